//! What stays between two runs of the same recipe: the machine's disk and its password.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::Artifacts;
use crate::progress::step;
use crate::qemu::{Disk, Error, Result, configuration};

/// The gateway's user.
const USER: &str = "admin";

/// The machine's folder, locked against a second `bothy run`.
pub(super) struct Kept {
    folder: PathBuf,
    disk: Disk,
    password: String,
    _lock: File,
}

impl Kept {
    /// Opens the folder of a recipe below `runs`, and makes what is missing. A disk whose image has since been built
    /// again gets the new system; its data stays.
    pub(super) fn open(runs: &Path, artifacts: &Artifacts, fresh: bool) -> Result<Self> {
        let folder = runs.join(&artifacts.name);
        // The password lies in it, and in the disk's bothy.toml.
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&folder);
        made.map_err(Error::file("create", &folder))?;
        let lock_path = folder.join("lock");
        let lock = File::create(&lock_path).map_err(Error::file("create", &lock_path))?;
        if lock.try_lock().is_err() {
            return Err(Error::InUse { path: folder });
        }
        let password = password(&folder.join("password"), fresh)?;
        let path = folder.join("disk.img");
        let image = folder.join("image");
        let identity = identity(artifacts)?;
        let made_of = fs::read_to_string(&image).unwrap_or_default();
        if fresh {
            // Variables of a machine that no longer exists.
            let _ = fs::remove_file(folder.join("firmware-variables.fd"));
        }
        // Only its absence, or the user's word, makes a new disk: what a run left that was interrupted has data on it.
        let new = fresh || !path.exists();
        let disk = if new {
            let _step = step("make a disk of 4 GiB");
            Disk::create(&artifacts.image, &path)?
        } else {
            let disk = Disk::open(&path)?;
            if made_of != identity {
                let _step = step("put the new system onto the disk of the last run (its data stays)");
                let _ = fs::remove_file(&image);
                disk.replace_system(&artifacts.image)?;
            }
            disk
        };
        if new || made_of != identity {
            disk.write_boot_file("bothy.toml", configuration(USER, &password).as_bytes())?;
            fs::write(&image, identity).map_err(Error::file("write", &image))?;
        }
        Ok(Self { folder, disk, password, _lock: lock })
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn disk(&self) -> &Disk {
        &self.disk
    }

    /// User and password of the gateway.
    pub(super) fn credentials(&self) -> (&str, &str) {
        (USER, &self.password)
    }
}

/// Which image a disk was made of: its command line has the root hash, its manifest the rest.
fn identity(artifacts: &Artifacts) -> Result<String> {
    let manifest = &artifacts.manifest;
    let bytes = fs::read(manifest).map_err(Error::file("read", manifest))?;
    Ok(format!("{}\n{}\n", crate::digest::hex(&bytes), artifacts.command_line))
}

/// The password of the last run, or a new one of 100 random bits.
fn password(path: &Path, fresh: bool) -> Result<String> {
    if !fresh && let Ok(known) = fs::read_to_string(path) {
        let known = known.trim();
        if known.len() == LENGTH && known.bytes().all(|byte| ALPHABET.contains(&byte)) {
            return Ok(known.to_owned());
        }
    }
    let mut random = [0; LENGTH];
    let source = "/dev/urandom";
    let read = File::open(source).and_then(|mut file| file.read_exact(&mut random));
    read.map_err(Error::file("read", source))?;
    let password: String = random.iter().map(|byte| char::from(ALPHABET[usize::from(byte % 32)])).collect();
    let _ = fs::remove_file(path);
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let written = file.and_then(|mut file| writeln!(file, "{password}"));
    written.map_err(Error::file("write", path))?;
    Ok(password)
}

const LENGTH: usize = 20;

/// 32 letters and digits that are not mistaken for each other.
const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_password_stays_until_a_fresh_start() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        let first = password(&path, false).unwrap();
        assert_eq!(first.len(), LENGTH);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(password(&path, false).unwrap(), first);
        let second = password(&path, true).unwrap();
        assert_ne!(second, first);
        fs::write(&path, "short\n").unwrap();
        assert_eq!(password(&path, false).unwrap().len(), LENGTH);
    }
}

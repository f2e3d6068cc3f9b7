//! Files that must be whole or not there: temporary file, fsync, rename, fsync of the folder.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// The text of a file.
pub(crate) fn read(path: impl AsRef<Path>) -> Result<String> {
    fs::read_to_string(&path).map_err(Error::read(&path))
}

/// The `*.conf` of a folder, by name. A folder that is not there has none.
pub(crate) fn configurations(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path()).collect();
    files.retain(|path| path.extension().is_some_and(|ext| ext == "conf"));
    files.sort();
    files
}

/// Writes into a file of the kernel (sysctl, cgroup): one write, nothing made.
pub(crate) fn poke(path: impl AsRef<Path>, text: &str) -> Result<()> {
    let mut file = OpenOptions::new().write(true).open(&path).map_err(Error::write(&path))?;
    file.write_all(text.as_bytes()).map_err(Error::write(&path))
}

/// Makes a folder and its parents; the folder itself gets `mode`.
pub(crate) fn make_dir(path: impl AsRef<Path>, mode: u32) -> Result<()> {
    fs::create_dir_all(&path).map_err(Error::write(&path))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).map_err(Error::write(&path))
}

/// Puts `bytes` at `path` so that a power cut leaves the old content or the new one, never a part.
pub(crate) fn replace(path: impl AsRef<Path>, bytes: &[u8], mode: u32) -> Result<()> {
    let path = path.as_ref();
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let fresh = path.with_file_name(name);
    // A leftover of a cut write may have another mode.
    let _ = fs::remove_file(&fresh);
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&fresh)?;
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&fresh, path)?;
        match path.parent() {
            Some(folder) => File::open(folder)?.sync_all(),
            None => Ok(()),
        }
    };
    write().map_err(Error::write(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_content_and_mode() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        fs::write(&path, "old, and longer than the new one").unwrap();
        fs::write(folder.path().join("secret.new"), "leftover").unwrap();
        replace(&path, b"new", 0o600).unwrap();
        assert_eq!(read(&path).unwrap(), "new");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!folder.path().join("secret.new").exists());
    }

    #[test]
    fn poke_makes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        assert!(poke(folder.path().join("absent"), "1").is_err());
        assert!(!folder.path().join("absent").exists());
    }
}

//! The random seed: what this run knew that nobody can guess, for the next one to begin with.
//!
//! A seed counts once. At the start it is mixed into the kernel's pool without being counted; then the file is
//! replaced and synced; only then is the old one counted (`RNDADDENTROPY`, random(4)). A power cut at any point leaves
//! a seed that was never counted, or counts the old one not at all. Never part of an image.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::rand::{GetRandomFlags, getrandom};
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::file;

/// Where it lies.
pub(super) const KEPT: &str = "/var/lib/bothy/random-seed";
/// What the kernel takes at once, and twice what it needs.
const BYTES: usize = 512;
/// What a seed counts for: as much as the pool can hold.
const CREDIT_BITS: i32 = 256;

/// The kernel's side; another one in tests.
pub(super) trait Pool {
    /// Mixes bytes in; they count for nothing.
    fn mix(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Mixes bytes in that nobody knows.
    fn credit(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Fills with the best that there is now, without waiting.
    fn fill(&mut self, bytes: &mut [u8]) -> io::Result<()>;
}

/// The running kernel's.
pub(super) struct Kernel;

impl Pool for Kernel {
    fn mix(&mut self, bytes: &[u8]) -> io::Result<()> {
        OpenOptions::new().write(true).open("/dev/urandom")?.write_all(bytes)
    }

    fn credit(&mut self, bytes: &[u8]) -> io::Result<()> {
        // _IOW('R', 0x03, int[2]) and _IO('R', 0x07), include/uapi/linux/random.h.
        const ADD_ENTROPY: u64 = (1 << 30) | (8 << 16) | (0x52 << 8) | 3;
        const RESEED: u64 = (0x52 << 8) | 7;
        #[repr(C)]
        struct Information {
            bits: i32,
            length: i32,
            bytes: [u8; BYTES],
        }
        let mut information = Information { bits: CREDIT_BITS, length: 0, bytes: [0; BYTES] };
        for (place, byte) in information.bytes.iter_mut().zip(bytes) {
            *place = *byte;
            information.length += 1;
        }
        let device = OpenOptions::new().write(true).open("/dev/urandom")?;
        // SAFETY: the structure is live and as long as its length says; the second call reads nothing.
        unsafe {
            if libc::ioctl(device.as_raw_fd(), ADD_ENTROPY as libc::Ioctl, &raw const information) < 0 {
                return Err(io::Error::last_os_error());
            }
            // What was handed out before is worth less than what comes now.
            libc::ioctl(device.as_raw_fd(), RESEED as libc::Ioctl);
        }
        Ok(())
    }

    fn fill(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        let mut done = 0;
        while done < bytes.len() {
            // INSECURE: better bytes that may be guessed, next to what was mixed in, than a boot that waits.
            done += getrandom(bytes.get_mut(done..).unwrap_or_default(), GetRandomFlags::INSECURE)?;
        }
        Ok(())
    }
}

/// Uses the seed of the run before, and leaves another one. Gives whether there was one.
pub(super) fn take(path: &Path, pool: &mut impl Pool) -> Result<bool> {
    let old = read(path);
    if let Some(old) = &old {
        pool.mix(old).map_err(Error::write("/dev/urandom"))?;
    }
    renew(path, old.as_deref(), pool)?;
    if let Some(old) = &old {
        pool.credit(old).map_err(Error::write("/dev/urandom"))?;
    }
    Ok(old.is_some())
}

/// Leaves a seed for the next run.
pub(super) fn leave(path: &Path, pool: &mut impl Pool) -> Result<()> {
    renew(path, None, pool)
}

/// Replaces it and comes back when the new one is on the disk. Its end depends on the old one too: should the kernel
/// have had nothing yet that nobody knows, the new seed is as good as the old one.
fn renew(path: &Path, old: Option<&[u8]>, pool: &mut impl Pool) -> Result<()> {
    let mut fresh = [0; BYTES];
    pool.fill(&mut fresh).map_err(Error::read("/dev/urandom"))?;
    let digest = Sha256::new().chain_update(old.unwrap_or_default()).chain_update(fresh).finalize();
    for (place, byte) in fresh.iter_mut().rev().zip(digest) {
        *place ^= byte;
    }
    file::replace(path, &fresh, 0o600)
}

/// A seed of the right size that only root could read and write.
fn read(path: &Path) -> Option<Vec<u8>> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(path).ok()?;
    let meta = file.metadata().ok()?;
    let own = rustix::process::geteuid().as_raw();
    let mut bytes = Vec::new();
    File::take(file, BYTES as u64 + 1).read_to_end(&mut bytes).ok()?;
    (bytes.len() == BYTES && meta.uid() == own && meta.mode() & 0o077 == 0).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// The act, its bytes, and what lay on the disk at that moment.
    type Told = (&'static str, Vec<u8>, Option<Vec<u8>>);

    /// Notes what is asked of it.
    struct Witness<'p> {
        path: &'p Path,
        told: Vec<Told>,
    }

    impl Witness<'_> {
        fn note(&mut self, act: &'static str, bytes: &[u8]) {
            self.told.push((act, bytes.to_vec(), fs::read(self.path).ok()));
        }
    }

    impl Pool for Witness<'_> {
        fn mix(&mut self, bytes: &[u8]) -> io::Result<()> {
            self.note("mix", bytes);
            Ok(())
        }

        fn credit(&mut self, bytes: &[u8]) -> io::Result<()> {
            self.note("credit", bytes);
            Ok(())
        }

        fn fill(&mut self, bytes: &mut [u8]) -> io::Result<()> {
            // The worst that a kernel can have: the same at each start.
            bytes.fill(7);
            self.note("fill", &[]);
            Ok(())
        }
    }

    #[test]
    fn the_old_one_counts_after_the_new_one_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("seed");
        let mut witness = Witness { path: &path, told: Vec::new() };
        assert!(!take(&path, &mut witness).unwrap());
        let old = fs::read(&path).unwrap();
        assert_eq!((old.len(), fs::metadata(&path).unwrap().mode() & 0o777), (BYTES, 0o600));
        let mut witness = Witness { path: &path, told: Vec::new() };
        assert!(take(&path, &mut witness).unwrap());
        let new = fs::read(&path).unwrap();
        assert_ne!(new, old);
        let expected = [
            ("mix", old.clone(), Some(old.clone())),
            ("fill", Vec::new(), Some(old.clone())),
            ("credit", old, Some(new)),
        ];
        assert_eq!(witness.told, expected);
    }

    #[test]
    fn one_that_cannot_be_replaced_never_counts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("seed");
        take(&path, &mut Witness { path: &path, told: Vec::new() }).unwrap();
        // The place of the new file is taken by what cannot be removed as a file.
        fs::create_dir(folder.path().join("seed.new")).unwrap();
        let mut witness = Witness { path: &path, told: Vec::new() };
        assert!(take(&path, &mut witness).is_err());
        assert!(!witness.told.iter().any(|(act, ..)| *act == "credit"));
    }

    #[test]
    fn what_others_could_read_or_a_cut_left_is_no_seed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("seed");
        take(&path, &mut Kernel).unwrap();
        assert!(read(&path).is_some());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(read(&path).is_none());
        fs::write(folder.path().join("short"), [1; 100]).unwrap();
        fs::set_permissions(folder.path().join("short"), fs::Permissions::from_mode(0o600)).unwrap();
        assert!(read(&folder.path().join("short")).is_none());
        leave(&path, &mut Kernel).unwrap();
        assert!(read(&path).is_some());
    }
}

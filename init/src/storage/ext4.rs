//! The data file system: whether it was made, making it, checking it, labelling it.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use super::helper;
use crate::console::{Level, kmsg};
use crate::error::{Error, Result};

/// Offset of the first superblock, and of the first backup of a file system with blocks of 4096 bytes.
pub(super) const SUPERBLOCKS: [u64; 2] = [1024, 32768 * 4096];
/// Making writes little; a card that takes longer is broken.
const MAKE_LIMIT: Duration = Duration::from_secs(120);
/// Checking reads every inode of a full disk.
const CHECK_LIMIT: Duration = Duration::from_secs(600);

/// What the superblock says.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Superblock {
    label: String,
    clean: bool,
}

impl Superblock {
    /// Reads the first 1024 bytes of one (Documentation/filesystems/ext4/super.rst); `None` if it is none.
    fn parse(bytes: &[u8]) -> Option<Self> {
        const RECOVER: u32 = 4;
        const VALID: u16 = 1;
        const ERRORS: u16 = 2;
        let u16_at = |at: usize| Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
        if u16_at(0x38)? != 0xef53 {
            return None;
        }
        let incompatible = u32::from_le_bytes(bytes.get(0x60..0x64)?.try_into().ok()?);
        let state = u16_at(0x3a)?;
        let label = bytes.get(0x78..0x88)?.split(|byte| *byte == 0).next().unwrap_or_default();
        Some(Self {
            label: String::from_utf8_lossy(label).into_owned(),
            clean: state & VALID != 0 && state & ERRORS == 0 && incompatible & RECOVER == 0,
        })
    }
}

fn superblock(device: &Path, offset: u64) -> Result<Option<Superblock>> {
    let file = File::open(device).map_err(Error::read(device))?;
    let mut bytes = vec![0; 1024];
    match file.read_exact_at(&mut bytes, offset) {
        Ok(()) => Ok(Superblock::parse(&bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(Error::read(device)(error)),
    }
}

/// Whether the file system was finished once: the label is written last. A backup superblock counts too, so that one
/// bad block at the start never lets a first boot erase what is there.
pub(crate) fn is_made(device: &Path, label: &str) -> Result<bool> {
    for offset in SUPERBLOCKS {
        if superblock(device, offset)?.is_some_and(|found| found.label == label) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Makes it, with a fresh UUID and no label. Tables are zeroed later by the kernel, so that this takes no time.
pub(crate) fn make(device: &Path) -> Result<()> {
    // -F: leftovers of an interrupted first boot must not raise a question. -b: below 512 MiB the default are blocks of
    // 1024 bytes, and the first backup would lie elsewhere than where `is_made` looks.
    let lazy = "lazy_itable_init=1,lazy_journal_init=1,nodiscard";
    let options = ["-q", "-F", "-t", "ext4", "-b", "4096", "-E", lazy];
    helper::run("/usr/sbin/mke2fs", &options, device, 0, MAKE_LIMIT)
}

/// Checks it if it was not left clean. What `-p` does not repair alone, `-y` does: nobody is there to answer.
pub(crate) fn check(device: &Path) -> Result<()> {
    if superblock(device, 1024)?.is_some_and(|found| found.clean) {
        return Ok(());
    }
    kmsg(Level::Warning, &format!("{} was not left clean, checking it", device.display()));
    // 1: repaired; 2: repaired, a mounted one would need a restart; 4 and more: not repaired.
    match helper::run("/usr/sbin/e2fsck", &["-p"], device, 3, CHECK_LIMIT) {
        Err(error @ Error::Helper { .. }) => {
            kmsg(Level::Error, &error.to_string());
            helper::run("/usr/sbin/e2fsck", &["-y"], device, 3, CHECK_LIMIT)
        }
        // One that is too slow would be so again.
        done => done,
    }
}

/// Labels a mounted file system, backups included (`FS_IOC_SETFSLABEL`, ext4 since Linux 5.17).
pub(crate) fn set_label(mounted: &Path, label: &str) -> Result<()> {
    // _IOW(0x94, 50, char[256])
    const SET_LABEL: u64 = (1 << 30) | (256 << 16) | (0x94 << 8) | 50;
    let folder = File::open(mounted).map_err(Error::read(mounted))?;
    let mut text = [0_u8; 256];
    for (place, byte) in text.iter_mut().zip(label.bytes().take(16)) {
        *place = byte;
    }
    // SAFETY: the kernel reads 256 bytes, which are there.
    let done = unsafe { libc::ioctl(folder.as_raw_fd(), SET_LABEL as libc::Ioctl, text.as_ptr()) };
    if done < 0 {
        Err(Error::control("label the file system", mounted.display().to_string()))
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn makes_checks_and_reads_a_real_one() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(200 << 20).unwrap();
        assert!(!is_made(file.path(), "data").unwrap());
        make(file.path()).unwrap();
        let fresh = superblock(file.path(), 1024).unwrap().unwrap();
        assert_eq!(fresh, Superblock { label: String::new(), clean: true });
        assert!(!is_made(file.path(), "data").unwrap());
        helper::run("/usr/sbin/tune2fs", &["-L", "data"], file.path(), 0, MAKE_LIMIT).unwrap();
        assert!(is_made(file.path(), "data").unwrap());
        // The state "has errors" makes it unclean; the check repairs that.
        file.as_file().write_all_at(&[3, 0], 1024 + 0x3a).unwrap();
        assert!(!superblock(file.path(), 1024).unwrap().unwrap().clean);
        check(file.path()).unwrap();
        assert!(superblock(file.path(), 1024).unwrap().unwrap().clean);
    }

    #[test]
    fn a_bad_first_superblock_is_repaired_not_made_anew() {
        // mke2fs has other defaults for small file systems.
        for mib in [300, 1024] {
            let file = tempfile::NamedTempFile::new().unwrap();
            file.as_file().set_len(mib << 20).unwrap();
            make(file.path()).unwrap();
            helper::run("/usr/sbin/tune2fs", &["-L", "data"], file.path(), 0, MAKE_LIMIT).unwrap();
            file.as_file().write_all_at(&[0; 1024], 1024).unwrap();
            assert!(is_made(file.path(), "data").unwrap(), "{mib}: the backup carries the label");
            check(file.path()).unwrap();
            assert_eq!(superblock(file.path(), 1024).unwrap().unwrap().label, "data");
        }
    }

    #[test]
    fn says_what_the_helper_said() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = make(file.path()).unwrap_err().to_string();
        assert!(error.starts_with("/usr/sbin/mke2fs ended with exit status: 1"), "{error}");
        assert!(is_made(Path::new("/nonexistent"), "data").is_err());
    }
}

//! The data file system: whether it was made, making it, checking it, labelling it.

use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use super::helper;
use crate::console::{Level, kmsg};
use crate::error::{Error, Result};

/// Offset of the first superblock.
pub(super) const SUPERBLOCK: u64 = 1024;
/// Size of a block, whatever the size of the file system.
const BLOCK: u64 = 4096;
/// Size of a block group: as many blocks as a bitmap of one block has bits.
const GROUP: u64 = 8 * BLOCK * BLOCK;
/// Room that is kept for the appliance itself, where a twentieth is more. It is for processes with CAP_SYS_RESOURCE and
/// for who is named when it is mounted. No function has either, and what it writes goes through an overlay, which takes
/// that capability from who mounted it (`ovl_fill_super`, fs/overlayfs/super.c) and leaves user 0: not to be named.
const RESERVE: u64 = 64 << 20;
/// Less than this is not worth growing for.
const GROW_MIN: u64 = 8 << 20;
/// Making writes little; a card that takes longer is broken.
const MAKE_LIMIT: Duration = Duration::from_secs(120);
/// Checking reads every inode of a full disk.
const CHECK_LIMIT: Duration = Duration::from_secs(600);

/// What the superblock says.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Superblock {
    label: String,
    clean: bool,
    /// In bytes.
    size: u64,
    /// In bytes, of these.
    reserved: u64,
}

/// Where superblocks lie in a file system of that many bytes: the first, and backups in the groups 1 and the powers of
/// 3, 5 and 7 (`sparse_super`, Documentation/filesystems/ext4/blockgroup.rst).
pub(super) fn superblocks(length: u64) -> Vec<u64> {
    let count = length.div_ceil(GROUP);
    let powers = |base: u64| std::iter::successors(Some(base), move |power| power.checked_mul(base));
    let mut groups: Vec<u64> =
        [3, 5, 7].into_iter().flat_map(|base| powers(base).take_while(|group| *group < count)).collect();
    groups.extend((count > 1).then_some(1));
    groups.sort_unstable();
    let backups = groups.into_iter().map(|group| group * GROUP).filter(|at| at + 1024 <= length);
    std::iter::once(SUPERBLOCK).chain(backups).collect()
}

/// Size of a device or file in bytes.
fn length(device: &Path) -> Result<u64> {
    let mut file = File::open(device).map_err(Error::read(device))?;
    file.seek(SeekFrom::End(0)).map_err(Error::read(device))
}

impl Superblock {
    /// Reads the first 1024 bytes of one (Documentation/filesystems/ext4/super.rst); `None` if it is none.
    fn parse(bytes: &[u8]) -> Option<Self> {
        const RECOVER: u32 = 4;
        const WIDE: u32 = 0x80;
        const VALID: u16 = 1;
        const ERRORS: u16 = 2;
        let u16_at = |at: usize| Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
        if u16_at(0x38)? != 0xef53 {
            return None;
        }
        let u32_at = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        let incompatible = u32_at(0x60)?;
        let bytes_of = |low: usize, high: usize| {
            let high = if incompatible & WIDE == 0 { 0 } else { u32_at(high)? };
            let blocks = u64::from(high) << 32 | u64::from(u32_at(low)?);
            blocks.checked_mul(1024_u64.checked_shl(u32_at(0x18)?)?)
        };
        let state = u16_at(0x3a)?;
        let label = bytes.get(0x78..0x88)?.split(|byte| *byte == 0).next().unwrap_or_default();
        Some(Self {
            label: String::from_utf8_lossy(label).into_owned(),
            clean: state & VALID != 0 && state & ERRORS == 0 && incompatible & RECOVER == 0,
            size: bytes_of(0x4, 0x150)?,
            reserved: bytes_of(0x8, 0x154)?,
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

/// Whether the file system was finished once: the label is written last. Any backup superblock counts too, so that no
/// bad block lets a first boot erase what is there (up to 128 MiB there is none, see [`superblocks`]).
pub(crate) fn is_made(device: &Path, label: &str) -> Result<bool> {
    Ok(labelled(device, label)?.is_some())
}

/// The first superblock that carries the label. One that cannot be read is an error only where no other carries it.
fn labelled(device: &Path, label: &str) -> Result<Option<u64>> {
    let mut unread = None;
    for offset in superblocks(length(device)?) {
        match superblock(device, offset) {
            Ok(Some(found)) if found.label == label => return Ok(Some(offset)),
            Ok(_) => {}
            Err(error) => unread = Some(error),
        }
    }
    unread.map_or(Ok(None), Err)
}

/// Makes it, with a fresh UUID and no label. Tables are zeroed later by the kernel, so that this takes no time.
pub(crate) fn make(device: &Path) -> Result<()> {
    // -F: leftovers of an interrupted first boot must not raise a question. -b: below 512 MiB the default are blocks of
    // 1024 bytes, and the first backup would lie elsewhere than where `is_made` looks.
    let lazy = "lazy_itable_init=1,lazy_journal_init=1,nodiscard";
    let options = ["-q", "-F", "-t", "ext4", "-b", "4096", "-m", "5", "-E", lazy];
    helper::run("/usr/sbin/mke2fs", &options, device, 0, MAKE_LIMIT)
}

/// Keeps the reserve at [`RESERVE`]: made, it is a twentieth, and the kernel lets it grow with the file system, which must
/// not be mounted.
pub(crate) fn limit_reserve(device: &Path) -> Result<()> {
    if superblock(device, SUPERBLOCK)?.is_none_or(|found| found.reserved <= RESERVE) {
        return Ok(());
    }
    helper::run("/usr/sbin/tune2fs", &["-r", &(RESERVE / BLOCK).to_string()], device, 0, MAKE_LIMIT)
}

/// Checks it if it was not left clean. Gives whether something may be lost by it.
pub(crate) fn check(device: &Path, label: &str) -> Result<bool> {
    if superblock(device, SUPERBLOCK).is_ok_and(|first| first.is_some_and(|found| found.clean)) {
        return Ok(false);
    }
    kmsg(Level::Warning, &format!("{} was not left clean, checking it", device.display()));
    match examine(device, label, &["-p"]) {
        Err(error @ Error::Helper { .. }) => {
            kmsg(Level::Error, &error.to_string());
            repair(device, label)
        }
        // One that is too slow would be so again.
        done => done,
    }
}

/// Repairs what a check does not repair alone, or did not look for in one that says that it is clean: nobody is there to
/// answer questions. What it finds without a name it puts into `lost+found`. Something may be lost by it.
pub(crate) fn repair(device: &Path, label: &str) -> Result<bool> {
    examine(device, label, &["-f", "-y"]).map(|_| true)
}

/// Runs e2fsck. Where the first superblock is none any more it would look at the first backup only: it is told which
/// one carries the label. Gives whether that was so.
fn examine(device: &Path, label: &str, how: &[&str]) -> Result<bool> {
    let first = superblock(device, SUPERBLOCK).ok().flatten();
    let backup = if first.is_none() { labelled(device, label)? } else { None };
    let block = backup.map(|offset| (offset / BLOCK).to_string());
    let from = block.iter().flat_map(|block| ["-b", block, "-B", "4096"]);
    let options: Vec<&str> = how.iter().copied().chain(from).collect();
    // 1: repaired; 2: repaired, a mounted one would need a restart; 4 and more: not repaired.
    helper::run("/usr/sbin/e2fsck", &options, device, 3, CHECK_LIMIT)?;
    Ok(backup.is_some())
}

/// Lets a mounted file system fill its partition (`EXT4_IOC_RESIZE_FS`). The kernel does it in its journal, group after
/// group: a power cut leaves a smaller one, and the next start goes on. Gives whether there was room to fill.
pub(crate) fn fill(mounted: &Path, device: &Path) -> Result<bool> {
    // _IOW('f', 16, u64)
    const RESIZE: u64 = (1 << 30) | (8 << 16) | (0x66 << 8) | 16;
    let wanted = length(device)? / BLOCK * BLOCK;
    let has = superblock(device, SUPERBLOCK)?.map_or(wanted, |found| found.size);
    if wanted < has.saturating_add(GROW_MIN) {
        return Ok(false);
    }
    kmsg(Level::Info, &format!("data grows from {} to {} MiB", has >> 20, wanted >> 20));
    let folder = File::open(mounted).map_err(Error::read(mounted))?;
    let blocks = wanted / BLOCK;
    // SAFETY: the kernel reads one number, which is there.
    let done = unsafe { libc::ioctl(folder.as_raw_fd(), RESIZE as libc::Ioctl, &raw const blocks) };
    if done < 0 {
        Err(Error::control("grow the file system", mounted.display().to_string()))
    } else {
        Ok(true)
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
        assert_eq!(
            fresh,
            Superblock { label: String::new(), clean: true, size: 200 << 20, reserved: 10 << 20 }
        );
        assert!(!is_made(file.path(), "data").unwrap());
        helper::run("/usr/sbin/tune2fs", &["-L", "data"], file.path(), 0, MAKE_LIMIT).unwrap();
        assert!(is_made(file.path(), "data").unwrap());
        // The state "has errors" makes it unclean, and the superblock's checksum wrong; the check repairs that.
        file.as_file().write_all_at(&[3, 0], 1024 + 0x3a).unwrap();
        assert!(!superblock(file.path(), 1024).unwrap().unwrap().clean);
        assert!(check(file.path(), "data").unwrap());
        assert!(superblock(file.path(), 1024).unwrap().unwrap().clean);
        assert!(!check(file.path(), "data").unwrap());
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
            check(file.path(), "data").unwrap();
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

    #[test]
    fn the_reserve_is_a_twentieth_at_most_and_small_on_any_disk() {
        let reserved = |size| {
            let file = tempfile::NamedTempFile::new().unwrap();
            file.as_file().set_len(size).unwrap();
            make(file.path()).unwrap();
            limit_reserve(file.path()).unwrap();
            superblock(file.path(), SUPERBLOCK).unwrap().unwrap().reserved
        };
        assert_eq!(reserved(200 << 20), 10 << 20);
        assert_eq!(reserved(64 << 30), RESERVE);
    }

    #[test]
    fn one_that_says_it_is_clean_can_be_repaired() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(2 * GROUP).unwrap();
        make(file.path()).unwrap();
        helper::run("/usr/sbin/tune2fs", &["-L", "data"], file.path(), 0, MAKE_LIMIT).unwrap();
        // The group descriptors.
        file.as_file().write_all_at(&[0xa5; 4096], BLOCK).unwrap();
        assert!(!check(file.path(), "data").unwrap());
        let sound = || helper::run("/usr/sbin/e2fsck", &["-f", "-n"], file.path(), 0, CHECK_LIMIT);
        assert!(sound().is_err());
        assert!(repair(file.path(), "data").unwrap());
        sound().unwrap();
    }

    #[test]
    fn backups_are_where_they_are_made() {
        assert_eq!(superblocks(4 << 20), [1024]);
        let groups: Vec<u64> = superblocks(30 * GROUP).iter().map(|at| at / GROUP).collect();
        assert_eq!(groups, [0, 1, 3, 5, 7, 9, 25, 27]);
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(10 * GROUP).unwrap();
        make(file.path()).unwrap();
        for at in superblocks(10 * GROUP) {
            assert!(superblock(file.path(), at).unwrap().is_some(), "{at}");
        }
    }

    #[test]
    fn the_last_superblock_saves_all() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(4 * GROUP).unwrap();
        make(file.path()).unwrap();
        helper::run("/usr/sbin/tune2fs", &["-L", "data"], file.path(), 0, MAKE_LIMIT).unwrap();
        for at in [SUPERBLOCK, GROUP] {
            file.as_file().write_all_at(&[0xa5; 1024], at).unwrap();
        }
        assert!(is_made(file.path(), "data").unwrap());
        assert!(check(file.path(), "data").unwrap(), "a backup may be old");
        let again = superblock(file.path(), SUPERBLOCK).unwrap().unwrap();
        assert_eq!((again.label.as_str(), again.clean), ("data", true));
    }
}

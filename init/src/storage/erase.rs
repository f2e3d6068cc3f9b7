//! Erasing the data partition, for a reset.
//!
//! The end of a run writes one sector, the mark, over the first superblock: before it the old data is whole, after it
//! the next start erases. The mark goes when everything else has gone, so that a power cut at any point leaves the old
//! data, or an erasing that begins again, or an empty partition that becomes a new file system.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::ext4::{SUPERBLOCK, superblocks};
use crate::console::{Level, kmsg, say};
use crate::error::{Error, Result};

/// Where the first superblock was; a sector is written whole or not at all.
const PLACE: u64 = SUPERBLOCK;
const SECTOR: usize = 512;
/// What the sector begins with.
const MARK: &[u8; 16] = b"bothy: erase me\0";
/// Written at once, and what a progress line counts.
const STEP: u64 = 64 << 20;
/// Read again after a discard: the start, where most lies, and samples of the rest.
const START: u64 = 8 << 20;
const SAMPLES: u64 = 512;
const SAMPLE: usize = 4096;

/// Marks a device that is not mounted.
pub(crate) fn mark(device: &Path) -> Result<()> {
    let mut sector = [0; SECTOR];
    for (place, byte) in sector.iter_mut().zip(MARK) {
        *place = *byte;
    }
    let write = || {
        let file = OpenOptions::new().write(true).open(device)?;
        file.write_all_at(&sector, PLACE)?;
        file.sync_all()
    };
    write().map_err(Error::write(device))
}

/// Whether it carries the mark.
pub(super) fn is_marked(device: &Path) -> Result<bool> {
    let mut start = [0; MARK.len()];
    let file = File::open(device).map_err(Error::read(device))?;
    match file.read_exact_at(&mut start, PLACE) {
        Ok(()) => Ok(start == *MARK),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(Error::read(device)(error)),
    }
}

/// Erases a marked device. What the device itself can forget at once, it forgets; where something is left after that,
/// all is written over, which takes as long as the device is large.
pub(super) fn erase(device: &Path) -> Result<()> {
    say("bothy: erasing data");
    kmsg(Level::Warning, &format!("{} is marked to be erased", device.display()));
    let file = OpenOptions::new().read(true).write(true).open(device).map_err(Error::read(device))?;
    let size = size(&file).map_err(Error::read(device))?;
    let work = || {
        let first = PLACE + SECTOR as u64;
        let forgotten = discard(&file, 1 << 20, size).is_ok();
        zero(&file, 0, PLACE)?;
        zero(&file, first, (1 << 20_u64).min(size))?;
        if !forgotten || !is_blank(&file, size)? {
            let mut at = 1 << 20;
            while at < size {
                let end = (at + STEP).min(size);
                zero(&file, at, end)?;
                say(&format!("bothy: erasing data: {} %", end / (size / 100).max(1)));
                at = end;
            }
        }
        // Not left to a discard: a backup superblock would bring the label back.
        for place in superblocks(size).into_iter().skip(1).filter(|place| place + 4096 <= size) {
            zero(&file, place, place + 4096)?;
        }
        file.sync_all()?;
        zero(&file, PLACE, first)?;
        file.sync_all()
    };
    work().map_err(Error::write(device))
}

fn size(mut file: &File) -> io::Result<u64> {
    use std::io::{Seek, SeekFrom};
    file.seek(SeekFrom::End(0))
}

/// `BLKDISCARD`; a file, in tests, has holes instead.
fn discard(file: &File, from: u64, to: u64) -> io::Result<()> {
    // _IO(0x12, 119)
    const DISCARD: u64 = (0x12 << 8) | 119;
    let range = [from, to.saturating_sub(from)];
    // SAFETY: the kernel reads two numbers, which are there.
    let done = unsafe { libc::ioctl(file.as_raw_fd(), DISCARD as libc::Ioctl, range.as_ptr()) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Writes zeroes; `BLKZEROOUT` would need whole sectors, and this is as fast as what lies below.
fn zero(file: &File, from: u64, to: u64) -> io::Result<()> {
    let zeroes = vec![0; 1 << 20];
    let mut at = from;
    while at < to {
        let length = (to - at).min(zeroes.len() as u64) as usize;
        file.write_all_at(zeroes.get(..length).unwrap_or_default(), at)?;
        at += length as u64;
    }
    Ok(())
}

/// Whether nothing that was there can be read: each sample is one byte all over, as erased flash or a hole is.
fn is_blank(file: &File, size: u64) -> io::Result<bool> {
    let mut sample = [0; SAMPLE];
    let rest = (size / SAMPLES).max(SAMPLE as u64);
    let start = ((1 << 20)..START.min(size)).step_by(SAMPLE);
    let spread = (0..SAMPLES).map(|number| START + number * rest);
    for at in start.chain(spread).filter(|at| at + SAMPLE as u64 <= size) {
        file.read_exact_at(&mut sample, at)?;
        if sample.iter().any(|byte| Some(byte) != sample.first()) {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::super::ext4;
    use super::*;

    #[test]
    fn a_marked_file_system_is_gone_for_good() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let (path, size) = (file.path(), 200 << 20);
        file.as_file().set_len(size).unwrap();
        ext4::make(path).unwrap();
        let label = std::process::Command::new("/usr/sbin/tune2fs").args(["-L", "data"]).arg(path).output();
        assert!(label.unwrap().status.success());
        for at in [5 << 20, 77 << 20, size - 8192] {
            file.as_file().write_all_at(b"a secret", at).unwrap();
        }
        assert!(!is_marked(path).unwrap() && ext4::is_made(path, "data").unwrap());
        mark(path).unwrap();
        // The backup still carries the label: nobody may look at it before the mark.
        assert!(is_marked(path).unwrap() && ext4::is_made(path, "data").unwrap());
        erase(path).unwrap();
        assert!(!is_marked(path).unwrap() && !ext4::is_made(path, "data").unwrap());
        let bytes = std::fs::read(path).unwrap();
        assert!(bytes.len() as u64 == size && bytes.iter().all(|byte| *byte == 0));
    }

    #[test]
    fn what_is_left_is_seen() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(100 << 20).unwrap();
        assert!(is_blank(&file, 100 << 20).unwrap());
        file.write_all_at(&[0xff; 8192], START).unwrap();
        assert!(is_blank(&file, 100 << 20).unwrap());
        file.write_all_at(b"x", (4 << 20) + 77).unwrap();
        assert!(!is_blank(&file, 100 << 20).unwrap());
    }

    #[test]
    fn a_device_too_small_carries_no_mark() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(!is_marked(file.path()).unwrap());
        assert!(is_marked(Path::new("/nonexistent")).is_err());
    }
}

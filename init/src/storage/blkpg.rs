//! The kernel's own list of partitions, which it reads from the disk only while none of them is in use.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::Path;

use super::table::Part;
use crate::block;
use crate::error::{Error, Result};

/// Tells the kernel of a partition that it does not know, or knows as a shorter one, without touching those in use
/// (`BLKPG_ADD_PARTITION`, `BLKPG_RESIZE_PARTITION`).
pub(crate) fn announce(node: &Path, disk: &str, part: &Part) -> Result<()> {
    const BLKPG: u64 = 0x1269;
    const ADD_PARTITION: i32 = 1;
    const RESIZE_PARTITION: i32 = 3;
    #[repr(C)]
    struct Partition {
        start: i64,
        length: i64,
        number: i32,
        names: [u8; 128],
    }
    #[repr(C)]
    struct Argument {
        op: i32,
        flags: i32,
        length: i32,
        data: *mut Partition,
    }
    let known = Path::new("/sys/class/block").join(block::partition_name(disk, part.number));
    let op = match fs::read_to_string(known.join("size")) {
        // In units of 512 bytes, whatever the disk's sectors are.
        Ok(sectors) if sectors.trim().parse() == Ok(part.length / 512) => return Ok(()),
        Ok(_) => RESIZE_PARTITION,
        Err(_) => ADD_PARTITION,
    };
    let file = File::open(node).map_err(Error::read(node))?;
    let number = part.number as i32;
    let (start, length) = (part.start as i64, part.length as i64);
    let mut data = Partition { start, length, number, names: [0; 128] };
    let length = size_of::<Partition>() as i32;
    let argument = Argument { op, flags: 0, length, data: &raw mut data };
    // SAFETY: both structures are laid out as in include/uapi/linux/blkpg.h and live during the call.
    let done = unsafe { libc::ioctl(file.as_raw_fd(), BLKPG as libc::Ioctl, &raw const argument) };
    if done < 0 { Err(Error::control("tell the kernel of a partition", disk)) } else { Ok(()) }
}

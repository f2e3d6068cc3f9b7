//! Device-mapper by its ioctls: make a device, load one target, let it run (include/uapi/linux/dm-ioctl.h).

use std::fs::OpenOptions;
use std::os::fd::AsRawFd;
use std::path::PathBuf;

use crate::error::{Error, Result};

const CONTROL: &str = "/dev/mapper/control";
/// `sizeof(struct dm_ioctl)`: part of each ioctl's number.
const HEADER_BYTES: usize = 312;
/// `sizeof(struct dm_target_spec)`.
const TARGET_BYTES: usize = 40;
const READ_ONLY: u32 = 1;

/// Commands, `DM_*_CMD`.
#[derive(Debug, Clone, Copy)]
enum Command {
    Create = 3,
    Remove = 4,
    Resume = 6,
    Load = 9,
}

/// A target of a table that has only this one.
#[derive(Debug, Clone)]
pub struct Target<'a> {
    /// Length in sectors of 512 bytes.
    pub sectors: u64,
    /// `verity`.
    pub kind: &'a str,
    /// What the target's documentation says.
    pub parameters: &'a str,
}

/// Makes a read-only device of that name and gives its node, `/dev/dm-N`. A failure leaves nothing behind.
pub fn create_read_only(name: &str, target: &Target<'_>) -> Result<PathBuf> {
    let answer = call(Command::Create, "make the mapped device", &request(name, READ_ONLY, None))?;
    let loaded = call(Command::Load, "load the table", &request(name, READ_ONLY, Some(target)))
        .and_then(|_| call(Command::Resume, "start the mapped device", &request(name, READ_ONLY, None)));
    if let Err(error) = loaded {
        let _ = call(Command::Remove, "remove the mapped device", &request(name, 0, None));
        return Err(error);
    }
    let device = answer.get(40..48).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes);
    // The kernel's huge_encode_dev: minor in bits 0-7 and 20-31.
    let minor = (device & 0xff) | ((device >> 12) & 0xfff00);
    Ok(PathBuf::from(format!("/dev/dm-{minor}")))
}

/// The bytes of a request: header, and the target if there is one.
fn request(name: &str, flags: u32, target: Option<&Target<'_>>) -> Vec<u8> {
    let mut body = Vec::new();
    if let Some(target) = target {
        body.extend(0_u64.to_le_bytes());
        body.extend(target.sectors.to_le_bytes());
        body.extend(0_u32.to_le_bytes());
        let length = (TARGET_BYTES + target.parameters.len() + 1).next_multiple_of(8);
        body.extend((length as u32).to_le_bytes());
        body.extend(padded(target.kind, 16));
        body.extend(target.parameters.as_bytes());
        body.resize(length, 0);
    }
    let mut bytes = Vec::new();
    let size = (HEADER_BYTES + body.len()) as u32;
    // Version 4.0.0, total size, where the body starts, targets, open count, flags, event, padding.
    for word in [4, 0, 0, size, HEADER_BYTES as u32, u32::from(target.is_some()), 0, flags, 0, 0] {
        bytes.extend(word.to_le_bytes());
    }
    bytes.extend(0_u64.to_le_bytes());
    bytes.extend(padded(name, 128));
    bytes.resize(HEADER_BYTES, 0);
    bytes.extend(body);
    bytes
}

/// A NUL padded text field; too long a text is cut, the last byte stays NUL.
fn padded(text: &str, length: usize) -> impl Iterator<Item = u8> {
    text.bytes().take(length - 1).chain(std::iter::repeat(0)).take(length)
}

fn call(command: Command, act: &'static str, request: &[u8]) -> Result<Vec<u8>> {
    let control = OpenOptions::new().read(true).write(true).open(CONTROL).map_err(Error::read(CONTROL))?;
    let mut buffer = request.to_vec();
    // _IOWR(0xfd, command, struct dm_ioctl)
    let number = (3 << 30) | ((HEADER_BYTES as u64) << 16) | (0xfd << 8) | command as u64;
    // SAFETY: the buffer is as long as its data_size field says, and the kernel writes no more than that.
    let done = unsafe { libc::ioctl(control.as_raw_fd(), number as libc::Ioctl, buffer.as_mut_ptr()) };
    if done < 0 { Err(Error::control(act, CONTROL)) } else { Ok(buffer) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_laid_out_as_the_kernel_reads_it() {
        let target = Target { sectors: 24, kind: "verity", parameters: "1 a b" };
        let bytes = request("root", READ_ONLY, Some(&target));
        assert_eq!(bytes.len(), 312 + 48);
        assert_eq!(bytes[..4], 4_u32.to_le_bytes());
        assert_eq!(bytes[12..16], 360_u32.to_le_bytes());
        assert_eq!(bytes[16..20], 312_u32.to_le_bytes());
        assert_eq!(bytes[20..24], 1_u32.to_le_bytes());
        assert_eq!(bytes[28..32], READ_ONLY.to_le_bytes());
        assert_eq!(&bytes[48..53], b"root\0");
        assert_eq!(bytes[320..328], 24_u64.to_le_bytes());
        assert_eq!(bytes[332..336], 48_u32.to_le_bytes());
        assert_eq!(&bytes[336..343], b"verity\0");
        assert_eq!(&bytes[352..], b"1 a b\0\0\0");
        assert_eq!(request("root", 0, None).len(), 312);
    }
}

//! Random UUIDs, version 4 (RFC 9562, 5.4).

use rustix::rand::{GetRandomFlags, getrandom};

use crate::error::{Error, Result};

/// A fresh one, in the order in which it is written.
pub(crate) fn fresh() -> Result<[u8; 16]> {
    let mut bytes = [0_u8; 16];
    getrandom(&mut bytes, GetRandomFlags::empty())
        .map_err(|errno| Error::Read { path: "/dev/random".into(), source: errno.into() })?;
    let [_, _, _, _, _, _, version, _, variant, ..] = &mut bytes;
    *version = (*version & 0x0f) | 0x40;
    *variant = (*variant & 0x3f) | 0x80;
    Ok(bytes)
}

/// The same one as a partition table has it: the first three fields are little endian (UEFI 2.10, appendix A).
pub(crate) fn on_disk(uuid: [u8; 16]) -> [u8; 16] {
    let [a, b, c, d, e, f, g, h, rest @ ..] = uuid;
    let [i, j, k, l, m, n, o, p] = rest;
    [d, c, b, a, f, e, h, g, i, j, k, l, m, n, o, p]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_and_variant_are_where_they_belong() {
        let uuid = fresh().unwrap();
        assert_eq!((uuid[6] >> 4, uuid[8] >> 6), (4, 2));
        assert_ne!(uuid, fresh().unwrap());
        let disk = on_disk(uuid);
        assert_eq!((disk[7] >> 4, disk[8] >> 6), (4, 2));
        assert_eq!(on_disk(disk), uuid);
    }
}

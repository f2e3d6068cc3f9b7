//! dm-verity: the hash tree behind a read-only file system, in veritysetup's format 1
//! (cryptsetup's lib/verity; the kernel's Documentation/admin-guide/device-mapper/verity.rst).

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};

/// Size of data and hash blocks in bytes.
pub const BLOCK: usize = 4096;
const DIGEST: usize = 32;
const PER_BLOCK: usize = BLOCK / DIGEST;

/// What lies behind the data, and the hash that vouches for all of it.
pub struct Verity {
    /// Superblock block and hash tree: to be written right behind the data.
    pub area: Vec<u8>,
    /// The root hash.
    pub root: [u8; DIGEST],
}

fn hash_block(salt: &[u8], block: &[u8]) -> [u8; DIGEST] {
    let mut hasher = Sha256::new();
    hasher.update(salt);
    hasher.update(block);
    hasher.finalize().into()
}

/// One level of the tree: the digests of all blocks of the level below, in padded blocks.
fn level(salt: &[u8], below: &[u8]) -> Vec<u8> {
    let digests: Vec<[u8; DIGEST]> = below.par_chunks(BLOCK).map(|block| hash_block(salt, block)).collect();
    let mut bytes = digests.concat();
    bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    bytes
}

/// Makes the hash tree of `data`, whose length is a multiple of [`BLOCK`].
///
/// # Errors
/// The data is empty or no whole number of blocks, or the salt longer than 256 bytes.
pub fn tree(data: &[u8], salt: &[u8], uuid: [u8; 16]) -> Result<Verity> {
    if data.is_empty() || !data.len().is_multiple_of(BLOCK) {
        return Err(Error::format(
            "dm-verity",
            format!("{} bytes are no whole number of blocks", data.len()),
        ));
    }
    let salt_size = u16::try_from(salt.len()).ok().filter(|n| *n <= 256);
    let salt_size =
        salt_size.ok_or_else(|| Error::format("dm-verity", "the salt is longer than 256 bytes"))?;

    let blocks = data.len() / BLOCK;
    let mut levels = Vec::new();
    let mut count = blocks;
    while count > 1 {
        levels.push(level(salt, levels.last().map_or(data, Vec::as_slice)));
        count = count.div_ceil(PER_BLOCK);
    }
    // One block of data has no tree: its own hash is the root hash.
    let root = hash_block(salt, levels.last().map_or(data, Vec::as_slice));

    let mut area = Vec::with_capacity(BLOCK);
    area.extend_from_slice(b"verity\0\0");
    area.extend_from_slice(&1u32.to_le_bytes()); // version
    area.extend_from_slice(&1u32.to_le_bytes()); // hash type: salt before data
    area.extend_from_slice(&uuid);
    area.extend_from_slice(b"sha256");
    area.resize(64, 0);
    area.extend_from_slice(&(BLOCK as u32).to_le_bytes());
    area.extend_from_slice(&(BLOCK as u32).to_le_bytes());
    area.extend_from_slice(&(blocks as u64).to_le_bytes());
    area.extend_from_slice(&salt_size.to_le_bytes());
    area.extend_from_slice(&[0; 6]);
    area.extend_from_slice(salt);
    area.resize(BLOCK, 0);
    // The root's level comes first.
    levels.iter().rev().for_each(|level| area.extend_from_slice(level));
    Ok(Verity { area, root })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::to_hex;

    #[test]
    fn superblock_and_level_sizes() {
        let data = vec![7; BLOCK * 129];
        let verity = tree(&data, &[1; 32], [2; 16]).unwrap();
        // 129 digests need two blocks, two digests need one.
        assert_eq!(verity.area.len(), BLOCK * (1 + 1 + 2));
        assert_eq!(&verity.area[72..80], &129u64.to_le_bytes());
        assert_eq!(verity.root, hash_block(&[1; 32], &verity.area[BLOCK..2 * BLOCK]));
    }

    #[test]
    fn golden_root_hash() {
        // `veritysetup format` of cryptsetup 2.7.5 printed this for 300 blocks that count up, salt 00 to 1f.
        let mut data = Vec::new();
        (0..300u32).for_each(|i| data.extend(i.to_le_bytes().repeat(BLOCK / 4)));
        let salt: Vec<u8> = (0..32).collect();
        let verity = tree(&data, &salt, [0; 16]).unwrap();
        assert_eq!(to_hex(&verity.root), GOLDEN);
    }

    const GOLDEN: &str = "f3a7d6ffb8e249236cc9927481fec19dedb6db70585463d6576630b064f59d60";

    #[test]
    fn one_block_is_its_own_root() {
        let verity = tree(&[0; BLOCK], &[], [0; 16]).unwrap();
        assert_eq!(verity.area.len(), BLOCK);
        assert_eq!(verity.root, hash_block(&[], &[0; BLOCK]));
        assert!(tree(&[0; 100], &[], [0; 16]).is_err());
    }
}

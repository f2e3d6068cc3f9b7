//! The root partition: squashfs, behind it veritysetup's superblock (format 1) and the hash tree.
//!
//! A partition is ours when the tree's top block hashes to the root hash of the kernel's command line. Everything is
//! read from the partition itself, so one command line serves either slot and no table names a slot.

use std::fmt::Write as _;
use std::io::{self, Read, Seek, SeekFrom};

use sha2::{Digest, Sha256};

/// Block size of data and tree.
pub const BLOCK_BYTES: u64 = 4096;

/// Where a root partition's parts lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    /// Blocks of the file system.
    pub data_blocks: u64,
    /// First block of the tree.
    pub hash_start: u64,
    /// Salt of each hash.
    pub salt: Vec<u8>,
}

/// What a partition turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// It carries the wanted root hash.
    Ours(Tree),
    /// It does not; why, in words.
    Other(String),
}

/// Looks at a partition from its start.
pub fn examine(device: &mut (impl Read + Seek), root: &[u8; 32]) -> io::Result<Finding> {
    let other = |text: &str| Ok(Finding::Other(text.to_owned()));
    let Some(head) = block(device, 0)? else { return other("too small") };
    if head.get(..4) != Some(b"hsqs") {
        return other("no squashfs");
    }
    // squashfs superblock: bytes_used is a u64 at 40.
    let Some(used) = u64_at(&head, 40).filter(|used| *used > 96) else { return other("squashfs of no size") };
    let data_blocks = used.div_ceil(BLOCK_BYTES);
    let Some(superblock) = block(device, data_blocks)? else {
        return other("squashfs longer than the partition");
    };
    let tree = match parse(&superblock, data_blocks) {
        Ok(tree) => tree,
        Err(why) => return other(why),
    };
    let found = if data_blocks == 1 {
        // No levels: the root hash is that of the only block.
        digest(&tree.salt, &head)
    } else {
        let Some(top) = block(device, tree.hash_start)? else { return other("verity tree cut off") };
        digest(&tree.salt, &top)
    };
    if &found == root {
        Ok(Finding::Ours(tree))
    } else {
        Ok(Finding::Other(format!("root hash {}", hex(&found))))
    }
}

/// veritysetup's superblock: "verity\0\0", version, type, UUID, algorithm[32], two block sizes, blocks, salt.
fn parse(bytes: &[u8], data_blocks: u64) -> Result<Tree, &'static str> {
    const CUT: &str = "verity superblock cut off";
    if bytes.get(..8) != Some(b"verity\0\0") {
        return Err("squashfs without verity");
    }
    if (u32_at(bytes, 8), u32_at(bytes, 12)) != (Some(1), Some(1)) {
        return Err("verity of another version");
    }
    let algorithm = bytes.get(32..64).ok_or(CUT)?;
    if algorithm.split(|byte| *byte == 0).next() != Some(b"sha256") {
        return Err("verity with another hash than sha256");
    }
    let size = Some(BLOCK_BYTES as u32);
    if u32_at(bytes, 64) != size || u32_at(bytes, 68) != size {
        return Err("verity with other blocks than 4096 bytes");
    }
    if u64_at(bytes, 72) != Some(data_blocks) {
        return Err("verity tree of another length than the squashfs");
    }
    let salt_size = usize::from(u16::from_le_bytes(array(bytes, 80).ok_or(CUT)?));
    if salt_size > 256 {
        return Err("verity with too long a salt");
    }
    let salt = bytes.get(88..88 + salt_size).ok_or(CUT)?.to_vec();
    Ok(Tree { data_blocks, hash_start: data_blocks + 1, salt })
}

impl Tree {
    /// The device-mapper table's parameters (Documentation/admin-guide/device-mapper/verity.rst) for data and tree
    /// on one device, given as `major:minor`.
    ///
    /// `panic_on_corruption`: a changed block ends in a panic that names it on the console and in pstore, and
    /// `panic=` brings the machine back, so that a boot counter can choose the other slot. `restart_on_corruption`
    /// restarts without a word, and plain EIO would leave a half working appliance.
    pub fn parameters(&self, device: &str, root: &[u8; 32]) -> String {
        let salt = if self.salt.is_empty() { "-".to_owned() } else { hex(&self.salt) };
        format!(
            "1 {device} {device} {BLOCK_BYTES} {BLOCK_BYTES} {} {} sha256 {} {salt} 1 panic_on_corruption",
            self.data_blocks,
            self.hash_start,
            hex(root),
        )
    }

    /// Length of the mapped device in sectors of 512 bytes.
    pub fn sectors(&self) -> u64 {
        self.data_blocks * (BLOCK_BYTES / 512)
    }
}

/// Lower case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn digest(salt: &[u8], block: &[u8]) -> [u8; 32] {
    Sha256::new().chain_update(salt).chain_update(block).finalize().into()
}

/// One block; `None` behind the end.
fn block(device: &mut (impl Read + Seek), number: u64) -> io::Result<Option<Vec<u8>>> {
    let Some(offset) = number.checked_mul(BLOCK_BYTES) else { return Ok(None) };
    device.seek(SeekFrom::Start(offset))?;
    let mut bytes = vec![0; BLOCK_BYTES as usize];
    match device.read_exact(&mut bytes) {
        Ok(()) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    array(bytes, at).map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    array(bytes, at).map(u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    /// A partition with `blocks` blocks of data, and its root hash; the tree has one level.
    fn partition(blocks: u64) -> (Vec<u8>, [u8; 32]) {
        let salt = [7_u8; 32];
        let mut data = vec![0_u8; (blocks * BLOCK_BYTES) as usize];
        data[..4].copy_from_slice(b"hsqs");
        data[40..48].copy_from_slice(&(blocks * BLOCK_BYTES - 100).to_le_bytes());
        let mut sb = vec![0_u8; 4096];
        sb[..8].copy_from_slice(b"verity\0\0");
        sb[8] = 1;
        sb[12] = 1;
        sb[32..38].copy_from_slice(b"sha256");
        sb[64..68].copy_from_slice(&4096_u32.to_le_bytes());
        sb[68..72].copy_from_slice(&4096_u32.to_le_bytes());
        sb[72..80].copy_from_slice(&blocks.to_le_bytes());
        sb[80] = 32;
        sb[88..120].copy_from_slice(&salt);
        let mut top: Vec<u8> = data.chunks(4096).flat_map(|chunk| digest(&salt, chunk)).collect();
        top.resize(4096, 0);
        let root = if blocks == 1 { digest(&salt, &data) } else { digest(&salt, &top) };
        data.extend(sb);
        data.extend(top);
        (data, root)
    }

    #[test]
    fn finds_its_own() {
        let (bytes, root) = partition(3);
        let tree = Tree { data_blocks: 3, hash_start: 4, salt: vec![7; 32] };
        assert_eq!(examine(&mut Cursor::new(bytes), &root).unwrap(), Finding::Ours(tree.clone()));
        let table = tree.parameters("254:2", &root);
        assert_eq!(
            table,
            format!(
                "1 254:2 254:2 4096 4096 3 4 sha256 {} {} 1 panic_on_corruption",
                hex(&root),
                hex(&[7; 32])
            )
        );
        assert_eq!(tree.sectors(), 24);
    }

    #[test]
    fn one_block_has_no_tree() {
        let (bytes, root) = partition(1);
        assert!(matches!(examine(&mut Cursor::new(bytes), &root).unwrap(), Finding::Ours(_)));
    }

    #[test]
    fn says_what_else_it_is() {
        let (bytes, root) = partition(3);
        let look = |bytes: &[u8], root: &[u8; 32]| match examine(&mut Cursor::new(bytes), root).unwrap() {
            Finding::Other(why) => why,
            Finding::Ours(_) => "ours".to_owned(),
        };
        assert_eq!(look(&bytes, &[0; 32]), format!("root hash {}", hex(&root)));
        assert_eq!(look(&[0; 100], &root), "too small");
        assert_eq!(look(&[0; 8192], &root), "no squashfs");
        assert_eq!(look(&bytes[..4096 * 3], &root), "squashfs longer than the partition");
        assert_eq!(look(&bytes[..4096 * 4], &root), "verity tree cut off");
        let mut changed = bytes.clone();
        changed[4096 * 3 + 32] = b'x';
        assert_eq!(look(&changed, &root), "verity with another hash than sha256");
        changed[4096 * 3 + 80..4096 * 3 + 82].copy_from_slice(&[0xff, 0xff]);
        changed[4096 * 3 + 32] = b's';
        assert_eq!(look(&changed, &root), "verity with too long a salt");
        changed[40..48].copy_from_slice(&u64::MAX.to_le_bytes());
        assert_eq!(look(&changed, &root), "squashfs longer than the partition");
    }
}

//! The disk image: partition table, boot partition, first root. The rest of a disk is made on first boot.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::digest::{Seed, to_hex};
use crate::error::{Error, Result};
use crate::gpt::{self, Partition, SECTOR};

const MIB: u64 = 1 << 20;
/// Partitions begin at multiples of this many sectors: 1 MiB, which suits flash and every tool.
const ALIGN: u64 = MIB / SECTOR;
/// Size of the boot partition in bytes.
pub const BOOT_SIZE: u64 = 256 * MIB;
/// Size of a root partition in bytes.
pub const ROOT_SIZE: u64 = 512 * MIB;
/// What is copied at a time; a piece of zeros of this size becomes a hole.
const PIECE: usize = 64 << 10;

/// Writes the image: `boot` and `root` are the contents of their partitions.
///
/// # Errors
/// A content is larger than its partition, or the file cannot be written.
pub fn write(path: &Path, seed: &Seed, root_type: gpt::Guid, boot: &[u8], root: &[u8]) -> Result<()> {
    if root.len() as u64 > ROOT_SIZE {
        return Err(Error::Tree(format!(
            "{} bytes do not fit into a root partition of {ROOT_SIZE}",
            root.len()
        )));
    }
    let boot_first = ALIGN;
    let root_first = boot_first + BOOT_SIZE / SECTOR;
    let root_last = root_first + ROOT_SIZE / SECTOR - 1;
    let sectors = (root_last + 1 + gpt::BACKUP).next_multiple_of(ALIGN);
    let part = |kind, name, first, last| {
        let guid = gpt::on_disk(seed.uuid(name));
        Partition { kind, guid, name, first, last }
    };
    let partitions = [
        part(gpt::ESP, "boot", boot_first, root_first - 1),
        part(root_type, "root-a", root_first, root_last),
    ];
    let table = gpt::table(gpt::on_disk(seed.uuid("disk")), sectors, &partitions)?;

    let mut file = File::create(path).map_err(Error::write(path))?;
    file.set_len(sectors * SECTOR).map_err(Error::write(path))?;
    let end = sectors - gpt::BACKUP;
    let parts = [(0, &table.start[..]), (boot_first, boot), (root_first, root), (end, &table.end)];
    for (sector, bytes) in parts {
        write_sparse(&mut file, sector * SECTOR, bytes).map_err(Error::write(path))?;
    }
    Ok(())
}

fn write_sparse(file: &mut File, offset: u64, bytes: &[u8]) -> std::io::Result<()> {
    let mut at = offset;
    for piece in bytes.chunks(PIECE) {
        if piece.iter().any(|b| *b != 0) {
            file.seek(SeekFrom::Start(at))?;
            file.write_all(piece)?;
        }
        at += piece.len() as u64;
    }
    Ok(())
}

/// Compresses an image to one zstd frame that carries the content's size, and returns the SHA-256 of both, the
/// image's first.
///
/// # Errors
/// A file cannot be read or written.
pub fn compress(image: &Path, out: &Path, level: i32) -> Result<(String, String)> {
    let (plain, packed) = rayon::join(|| hash(image), || pack(image, out, level));
    Ok((plain?, packed?))
}

/// Hands a file to `each` in pieces.
fn read_pieces(path: &Path, mut each: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
    let mut input = File::open(path).map_err(Error::read(path))?;
    let mut piece = vec![0; 1 << 20];
    loop {
        match input.read(&mut piece).map_err(Error::read(path))? {
            0 => return Ok(()),
            n => each(&piece[..n])?,
        }
    }
}

fn hash(path: &Path) -> Result<String> {
    let mut hasher = Sha256::new();
    read_pieces(path, |piece| {
        hasher.update(piece);
        Ok(())
    })?;
    Ok(to_hex(&hasher.finalize()))
}

fn pack(image: &Path, out: &Path, level: i32) -> Result<String> {
    let size = std::fs::metadata(image).map_err(Error::read(image))?.len();
    let output = Hashing { inner: File::create(out).map_err(Error::write(out))?, hasher: Sha256::new() };
    let mut encoder = zstd::Encoder::new(output, level).map_err(Error::write(out))?;
    let set = encoder.set_pledged_src_size(Some(size)).and_then(|()| encoder.include_checksum(true));
    set.map_err(Error::write(out))?;
    read_pieces(image, |piece| encoder.write_all(piece).map_err(Error::write(out)))?;
    let output = encoder.finish().map_err(Error::write(out))?;
    Ok(to_hex(&output.hasher.finalize()))
}

/// A file that hashes what is written to it.
struct Hashing {
    inner: File,
    hasher: Sha256,
}

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let n = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn the_image_is_sparse_and_ends_after_the_first_root() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.img");
        write(&path, &Seed::new(b"s"), gpt::ROOT_X86_64, &[1; 5000], &[2; 5000]).unwrap();
        let meta = std::fs::metadata(&path).unwrap();
        assert_eq!(meta.len(), 770 * MIB);
        assert!(meta.blocks() * 512 < MIB, "{} blocks", meta.blocks());
        let mut file = File::open(&path).unwrap();
        assert_eq!(gpt::find(&mut file, "root-a").unwrap(), (257 * MIB, ROOT_SIZE));
    }

    #[test]
    fn compressed_bytes_come_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let bytes = [vec![0; 3 << 20], vec![7; 100_001]].concat();
        std::fs::write(path("x.img"), &bytes).unwrap();
        let (plain, packed) = compress(&path("x.img"), &path("x.img.zst"), 1).unwrap();
        let frame = std::fs::read(path("x.img.zst")).unwrap();
        assert_eq!(plain, crate::digest::hex(&bytes));
        assert_eq!(packed, crate::digest::hex(&frame));
        assert_eq!(zstd::zstd_safe::get_frame_content_size(&frame).unwrap(), Some(bytes.len() as u64));
        assert!(zstd::decode_all(&frame[..]).unwrap() == bytes);
    }
}

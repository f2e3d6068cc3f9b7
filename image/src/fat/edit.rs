//! Reads files of a FAT32 file system, and replaces the content of one that is there.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::entry::{self, Found};
use super::{END_OF_CHAIN, ROOT_CLUSTER, SECTOR, bad};
use crate::error::{Error, Result};
use crate::gpt;

/// A file system with its tables, in memory.
struct Volume {
    bytes: Vec<u8>,
    fat_offset: usize,
    fat_size: usize,
    fats: usize,
    data: usize,
    cluster_size: usize,
    root: u32,
}

impl Volume {
    fn open(bytes: Vec<u8>) -> Result<Volume> {
        if bytes.len() < SECTOR || bytes[510..512] != [0x55, 0xaa] || &bytes[82..87] != b"FAT32" {
            return Err(bad("there is no FAT32 file system"));
        }
        let half = |at: usize| usize::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]));
        let word = |at: usize| half(at) | half(at + 2) << 16;
        let (sector, fats) = (half(11), usize::from(bytes[16]));
        let (fat_offset, fat_size) = (half(14) * sector, word(36) * sector);
        let data = fat_offset + fats * fat_size;
        let volume = Volume {
            cluster_size: usize::from(bytes[13]) * sector,
            root: word(44) as u32,
            fat_offset,
            fat_size,
            fats,
            data,
            bytes,
        };
        if volume.cluster_size == 0 || fats == 0 || data > volume.bytes.len() {
            return Err(bad("the boot sector makes no sense"));
        }
        Ok(volume)
    }

    fn next(&self, cluster: u32) -> Result<u32> {
        let at = self.fat_offset + cluster as usize * 4;
        let entry = self.bytes.get(at..at + 4).filter(|_| at + 4 <= self.data);
        let entry = entry.ok_or_else(|| bad(format!("cluster {cluster} is not on the volume")))?;
        Ok(u32::from_le_bytes([entry[0], entry[1], entry[2], entry[3]]) & 0x0fff_ffff)
    }

    /// The clusters of a chain, in order.
    fn chain(&self, first: u32) -> Result<Vec<u32>> {
        let mut chain = Vec::new();
        let mut cluster = first;
        while (ROOT_CLUSTER..0x0fff_fff7).contains(&cluster) {
            chain.push(cluster);
            if chain.len() * 4 > self.fat_size {
                return Err(bad("a chain of clusters runs in a circle"));
            }
            cluster = self.next(cluster)?;
        }
        Ok(chain)
    }

    fn cluster_at(&self, cluster: u32) -> usize {
        self.data + (cluster - ROOT_CLUSTER) as usize * self.cluster_size
    }

    fn content(&self, first: u32) -> Result<Vec<u8>> {
        let mut content = Vec::new();
        for cluster in self.chain(first)? {
            let at = self.cluster_at(cluster);
            let piece = self.bytes.get(at..at + self.cluster_size);
            content.extend_from_slice(
                piece.ok_or_else(|| bad(format!("cluster {cluster} is not on the volume")))?,
            );
        }
        Ok(content)
    }

    fn find(&self, path: &str) -> Result<(u32, Found)> {
        let mut folder = self.root;
        let mut parts = path.split('/').peekable();
        while let Some(part) = parts.next() {
            let found = entry::find(&self.content(folder)?, part)
                .ok_or_else(|| bad(format!("there is no {path}")))?;
            match (parts.peek(), found.folder) {
                (None, false) => return Ok((folder, found)),
                (Some(_), true) => folder = found.cluster,
                _ => break,
            }
        }
        Err(bad(format!("{path} is not a file")))
    }

    fn set_fat(&mut self, cluster: u32, value: u32) {
        for copy in 0..self.fats {
            let at = self.fat_offset + copy * self.fat_size + cluster as usize * 4;
            self.bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
    }

    /// Replaces a file's content: its old clusters are freed, and as many as it needs taken.
    fn replace(&mut self, path: &str, content: &[u8]) -> Result<()> {
        let (folder, found) = self.find(path)?;
        for cluster in self.chain(found.cluster)? {
            self.set_fat(cluster, 0);
        }
        let needed = content.len().div_ceil(self.cluster_size);
        let last = ROOT_CLUSTER + ((self.bytes.len() - self.data) / self.cluster_size) as u32;
        let mut taken = Vec::new();
        for cluster in ROOT_CLUSTER..last {
            if taken.len() == needed {
                break;
            }
            if self.next(cluster)? == 0 {
                taken.push(cluster);
            }
        }
        if taken.len() < needed {
            return Err(bad(format!("{} bytes for {path} do not fit", content.len())));
        }
        for (i, cluster) in taken.iter().enumerate() {
            self.set_fat(*cluster, taken.get(i + 1).copied().unwrap_or(END_OF_CHAIN));
            let piece = &content[i * self.cluster_size..content.len().min((i + 1) * self.cluster_size)];
            let at = self.cluster_at(*cluster);
            self.bytes[at..at + piece.len()].copy_from_slice(piece);
            self.bytes[at + piece.len()..at + self.cluster_size].fill(0);
        }
        let first = taken.first().copied().unwrap_or(0);
        let chain = self.chain(folder)?;
        let at = self.cluster_at(chain[found.offset / self.cluster_size]) + found.offset % self.cluster_size;
        self.bytes[at + 20..at + 22].copy_from_slice(&((first >> 16) as u16).to_le_bytes());
        self.bytes[at + 26..at + 28].copy_from_slice(&(first as u16).to_le_bytes());
        self.bytes[at + 28..at + 32].copy_from_slice(&(content.len() as u32).to_le_bytes());
        // How many clusters are free is a hint only: let whoever wants to know count (page 22).
        self.bytes[SECTOR + 488..SECTOR + 496].fill(0xff);
        Ok(())
    }
}

/// Reads a file, by its path, from a boot partition.
///
/// # Errors
/// It is no FAT32 file system or damaged, or the file is not there.
pub fn read_file(partition: &[u8], path: &str) -> Result<Vec<u8>> {
    let volume = Volume::open(partition.to_vec())?;
    let (_, found) = volume.find(path)?;
    let mut content = volume.content(found.cluster)?;
    content.truncate(found.size as usize);
    Ok(content)
}

/// Replaces the content of a file on the boot partition of a raw disk image.
///
/// # Errors
/// The disk has no boot partition, the file is not there, or the content does not fit.
pub fn replace_file(disk: &Path, name: &str, content: &[u8]) -> Result<()> {
    let mut file = OpenOptions::new().read(true).write(true).open(disk).map_err(Error::write(disk))?;
    let (start, length) = gpt::find(&mut file, "boot")?;
    let mut before = vec![0; length as usize];
    file.read_exact_at(&mut before, start).map_err(Error::read(disk))?;
    let mut volume = Volume::open(before.clone())?;
    volume.replace(name, content)?;
    // Only what changed is written, so that the image stays sparse.
    let pieces = volume.bytes.chunks(SECTOR).zip(before.chunks(SECTOR)).enumerate();
    for (i, (new, _)) in pieces.filter(|(_, (new, old))| new != old) {
        file.write_all_at(new, start + (i * SECTOR) as u64).map_err(Error::write(disk))?;
    }
    file.sync_all().map_err(Error::write(disk))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_grows_shrinks_and_vanishes() {
        let bytes =
            super::super::create(160 << 20, 1, 0, &[("a.conf", b"old"), ("EFI/X", &[9; 5000])]).unwrap();
        let mut volume = Volume::open(bytes).unwrap();
        for content in [vec![1; 10_000], vec![2; 10], vec![], vec![3; 4096]] {
            volume.replace("a.conf", &content).unwrap();
            assert!(read_file(&volume.bytes, "a.conf").unwrap() == content);
            assert!(read_file(&volume.bytes, "EFI/X").unwrap() == [9; 5000]);
        }
        assert!(volume.replace("none", b"").is_err());
        assert!(volume.replace("EFI", b"").is_err());
        assert!(volume.replace("a.conf", &vec![0; 200 << 20]).is_err());
    }

    #[test]
    fn nonsense_is_an_error() {
        assert!(read_file(&[0; 100], "a").is_err());
        let mut bytes = super::super::create(160 << 20, 1, 0, &[("a", b"x")]).unwrap();
        bytes[13] = 0;
        assert!(read_file(&bytes, "a").is_err());
    }
}

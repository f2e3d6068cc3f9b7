//! The boot partition: FAT32, so that every computer and every firmware can read it
//! (Microsoft, "FAT32 File System Specification", version 1.03; page numbers below are of that document).
//!
//! A file system is written whole, from a list of files, each contiguous and in that order. On one that exists only
//! the content of a file can be replaced.

mod edit;
mod entry;

use std::collections::BTreeMap;

use crate::error::{Error, Result};
use entry::{Stamp, directory};

pub use edit::{read_file, replace_file};

const SECTOR: usize = 512;
/// Bytes of a cluster: with 2 KiB, 256 MiB have more than the 65525 clusters that make it FAT32 (page 14).
const CLUSTER: usize = 2048;
const RESERVED_SECTORS: usize = 32;
const FATS: usize = 2;
const ROOT_CLUSTER: u32 = 2;
const END_OF_CHAIN: u32 = 0x0fff_ffff;
const MIN_CLUSTERS: usize = 65_525;
const LABEL: &[u8; 11] = b"BOTHY      ";

fn bad(reason: impl Into<String>) -> Error {
    Error::format("FAT", reason)
}

/// A folder while the file system is laid out.
#[derive(Default)]
struct Folder<'a> {
    folders: BTreeMap<&'a str, Folder<'a>>,
    files: BTreeMap<&'a str, usize>,
    cluster: u32,
}

impl<'a> Folder<'a> {
    fn add(&mut self, path: &'a str, file: usize) {
        match path.split_once('/') {
            Some((folder, rest)) => self.folders.entry(folder).or_default().add(rest, file),
            None => drop(self.files.insert(path, file)),
        }
    }

    /// Names in the order in which they will lie in the folder.
    fn names(&self) -> Vec<&'a str> {
        self.folders.keys().chain(self.files.keys()).copied().collect()
    }
}

/// Where everything lies, and what has been given away so far.
struct Layout {
    bytes: Vec<u8>,
    fat: Vec<u32>,
    data: usize,
}

impl Layout {
    fn new(size: usize) -> Result<Layout> {
        // The table describes the clusters that are left beside itself; one step of rounding up is harmless.
        let clusters = (size / SECTOR).saturating_sub(RESERVED_SECTORS) * SECTOR / (CLUSTER + FATS * 4);
        if clusters < MIN_CLUSTERS {
            return Err(bad(format!("{size} bytes are too few for FAT32")));
        }
        let fat_sectors = ((clusters + 2) * 4).div_ceil(SECTOR);
        let data = (RESERVED_SECTORS + FATS * fat_sectors) * SECTOR;
        let mut fat = Vec::with_capacity(clusters);
        fat.extend([0x0fff_fff8, END_OF_CHAIN]);
        let fit = (size - data) / CLUSTER;
        fat.reserve(fit);
        Ok(Layout { bytes: vec![0; size], fat, data })
    }

    fn clusters(&self) -> usize {
        (self.bytes.len() - self.data) / CLUSTER
    }

    fn fat_sectors(&self) -> usize {
        (self.data / SECTOR - RESERVED_SECTORS) / FATS
    }

    /// Takes the next free clusters for some bytes; nothing has no cluster.
    fn allocate(&mut self, length: usize) -> Result<u32> {
        let count = length.div_ceil(CLUSTER);
        if count == 0 {
            return Ok(0);
        }
        let first = self.fat.len() as u32;
        if self.fat.len() - 2 + count > self.clusters() {
            return Err(bad("the files do not fit"));
        }
        self.fat.extend((1..count as u32).map(|i| first + i).chain([END_OF_CHAIN]));
        Ok(first)
    }

    fn put(&mut self, cluster: u32, content: &[u8]) {
        if cluster >= ROOT_CLUSTER {
            let at = self.data + (cluster - ROOT_CLUSTER) as usize * CLUSTER;
            self.bytes[at..at + content.len()].copy_from_slice(content);
        }
    }
}

/// Makes a file system of `size` bytes that holds `files`: paths with `/`, and contents. The order of files is the
/// order of their clusters, and each is contiguous.
///
/// # Errors
/// The files do not fit, or a name is not valid.
pub fn create(size: usize, volume_id: u32, epoch: u64, files: &[(&str, &[u8])]) -> Result<Vec<u8>> {
    let mut root = Folder::default();
    for (i, (path, _)) in files.iter().enumerate() {
        root.add(path, i);
    }
    let mut layout = Layout::new(size)?;
    allocate_folders(&mut layout, &mut root, true)?;
    let clusters =
        files.iter().map(|(_, content)| layout.allocate(content.len())).collect::<Result<Vec<_>>>()?;
    for ((_, content), cluster) in files.iter().zip(&clusters) {
        layout.put(*cluster, content);
    }
    write_folders(&mut layout, &root, None, files, &clusters, Stamp::new(epoch))?;
    finish(&mut layout, volume_id)?;
    Ok(layout.bytes)
}

fn allocate_folders(layout: &mut Layout, folder: &mut Folder, is_root: bool) -> Result<()> {
    // A label, or the entries for itself and its parent, stand before the names.
    let slots = if is_root { 1 } else { 2 } + folder.names().iter().map(|n| entry::slots(n)).sum::<usize>();
    folder.cluster = layout.allocate(slots * entry::SIZE)?;
    folder.folders.values_mut().try_for_each(|sub| allocate_folders(layout, sub, false))
}

fn write_folders(
    layout: &mut Layout,
    folder: &Folder,
    parent: Option<u32>,
    files: &[(&str, &[u8])],
    clusters: &[u32],
    stamp: Stamp,
) -> Result<()> {
    let mut out = directory(stamp, parent.map(|parent| (folder.cluster, parent)), LABEL);
    for (name, sub) in &folder.folders {
        out.add(name, true, sub.cluster, 0)?;
    }
    for (name, file) in &folder.files {
        let length =
            u32::try_from(files[*file].1.len()).map_err(|_| bad(format!("{name} is 4 GiB or more")))?;
        out.add(name, false, clusters[*file], length)?;
    }
    layout.put(folder.cluster, &out.bytes);
    // The root is called 0 by its children (page 26).
    let own = if parent.is_none() { 0 } else { folder.cluster };
    folder.folders.values().try_for_each(|sub| write_folders(layout, sub, Some(own), files, clusters, stamp))
}

/// Writes boot sector, information sector, their copies, and the tables.
fn finish(layout: &mut Layout, volume_id: u32) -> Result<()> {
    let sectors =
        u32::try_from(layout.bytes.len() / SECTOR).map_err(|_| bad("the partition is too large"))?;
    let fat_sectors = layout.fat_sectors();
    let free = (layout.clusters() - (layout.fat.len() - 2)) as u32;
    let next = layout.fat.len() as u32;

    let mut boot = [0u8; SECTOR];
    boot[..11].copy_from_slice(b"\xeb\x58\x90BOTHY1.0");
    boot[11..13].copy_from_slice(&(SECTOR as u16).to_le_bytes());
    boot[13] = (CLUSTER / SECTOR) as u8;
    boot[14..16].copy_from_slice(&(RESERVED_SECTORS as u16).to_le_bytes());
    boot[16] = FATS as u8;
    boot[21] = 0xf8; // fixed medium
    boot[24..26].copy_from_slice(&32u16.to_le_bytes()); // geometry: what everybody writes, nobody reads
    boot[26..28].copy_from_slice(&64u16.to_le_bytes());
    boot[32..36].copy_from_slice(&sectors.to_le_bytes());
    boot[36..40].copy_from_slice(&(fat_sectors as u32).to_le_bytes());
    boot[44..48].copy_from_slice(&ROOT_CLUSTER.to_le_bytes());
    boot[48] = 1; // the information sector
    boot[50] = 6; // the copy of the boot sector
    boot[64] = 0x80;
    boot[66] = 0x29; // the next three fields are there
    boot[67..71].copy_from_slice(&volume_id.to_le_bytes());
    boot[71..82].copy_from_slice(LABEL);
    boot[82..90].copy_from_slice(b"FAT32   ");
    boot[510..].copy_from_slice(&[0x55, 0xaa]);

    let mut info = [0u8; SECTOR];
    info[..4].copy_from_slice(b"RRaA");
    info[484..488].copy_from_slice(b"rrAa");
    info[488..492].copy_from_slice(&free.to_le_bytes());
    info[492..496].copy_from_slice(&next.to_le_bytes());
    info[510..].copy_from_slice(&[0x55, 0xaa]);
    for (sector, content) in [(0, &boot), (1, &info), (6, &boot), (7, &info)] {
        layout.bytes[sector * SECTOR..][..SECTOR].copy_from_slice(content);
    }
    let table: Vec<u8> = layout.fat.iter().flat_map(|entry| entry.to_le_bytes()).collect();
    for copy in 0..FATS {
        let at = (RESERVED_SECTORS + copy * fat_sectors) * SECTOR;
        layout.bytes[at..at + table.len()].copy_from_slice(&table);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: usize = 160 << 20;

    #[test]
    fn files_come_back_and_bytes_repeat() {
        let big = vec![7; 100_000];
        let files: [(&str, &[u8]); 3] =
            [("bothy.toml", b"version = 1\n"), ("EFI/BOOT/BOOTX64.EFI", &big), ("empty file.txt", b"")];
        let one = create(SIZE, 5, 1_700_000_000, &files).unwrap();
        assert!(one == create(SIZE, 5, 1_700_000_000, &files).unwrap());
        for (path, content) in files {
            assert!(read_file(&one, path).unwrap() == content, "{path}");
        }
        assert!(read_file(&one, "EFI/none").is_err());
        // The upper case name of every long one is there too.
        assert_eq!(read_file(&one, "BOTHY~1.TOM").unwrap(), b"version = 1\n");
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let big = vec![1; SIZE];
        assert!(create(SIZE, 5, 0, &[("a", &big)]).is_err());
        assert!(create(1 << 20, 5, 0, &[]).is_err());
        assert!(create(SIZE, 5, 0, &[("a:b", b"")]).is_err());
    }
}

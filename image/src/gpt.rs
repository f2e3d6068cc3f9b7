//! GUID partition tables (UEFI specification, section 5.3), written from nothing but their description.

use crate::error::{Error, Result};

/// Bytes of a sector; nothing else is in use on the media that we write.
pub const SECTOR: u64 = 512;
const ENTRIES: u64 = 128;
const ENTRY: usize = 128;
/// Sectors that the entries take.
const TABLE: u64 = ENTRIES * ENTRY as u64 / SECTOR;

/// EFI system partition.
pub const ESP: Guid = guid(0xc12a7328, 0xf81f, 0x11d2, [0xba, 0x4b, 0x00, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b]);
/// Root file system for x86-64 (UAPI group, "Discoverable Partitions").
pub const ROOT_X86_64: Guid =
    guid(0x4f68bce3, 0xe8cd, 0x4db1, [0x96, 0xe7, 0xfb, 0xca, 0xf9, 0x84, 0xb7, 0x09]);

/// A GUID as it lies on disk: its first three groups little endian.
pub type Guid = [u8; 16];

const fn guid(a: u32, b: u16, c: u16, d: [u8; 8]) -> Guid {
    let (a, b, c) = (a.to_le_bytes(), b.to_le_bytes(), c.to_le_bytes());
    [a[0], a[1], a[2], a[3], b[0], b[1], c[0], c[1], d[0], d[1], d[2], d[3], d[4], d[5], d[6], d[7]]
}

/// A UUID in the order in which it is printed, as it lies on disk.
pub fn on_disk(uuid: [u8; 16]) -> Guid {
    let [a0, a1, a2, a3, b0, b1, c0, c1, rest @ ..] = uuid;
    let mut guid = [a3, a2, a1, a0, b1, b0, c1, c0, 0, 0, 0, 0, 0, 0, 0, 0];
    guid[8..].copy_from_slice(&rest);
    guid
}

/// A partition to be.
#[derive(Debug, Clone)]
pub struct Partition {
    /// Type.
    pub kind: Guid,
    /// Its own GUID.
    pub guid: Guid,
    /// Name of at most 36 UTF-16 units.
    pub name: &'static str,
    /// First sector.
    pub first: u64,
    /// Last sector, inclusive.
    pub last: u64,
}

/// The two pieces of a table: what begins the disk and what ends it.
#[derive(Debug)]
pub struct Table {
    /// Protective MBR, header and entries: sectors 0 to 33.
    pub start: Vec<u8>,
    /// Backup entries and header: the last 33 sectors.
    pub end: Vec<u8>,
}

/// First sector that a partition may use.
pub const FIRST_USABLE: u64 = 2 + TABLE;
/// Sectors at the end of the disk that the backup takes.
pub const BACKUP: u64 = TABLE + 1;

/// Writes the table of a disk of `sectors` sectors.
///
/// # Errors
/// Partitions overlap, leave the disk or have a name that is too long.
pub fn table(disk: Guid, sectors: u64, partitions: &[Partition]) -> Result<Table> {
    let last_usable =
        sectors.checked_sub(BACKUP + 1).ok_or_else(|| Error::format("GPT", "the disk is too small"))?;
    let mut next = FIRST_USABLE;
    let mut entries = vec![0; (TABLE * SECTOR) as usize];
    for (partition, entry) in partitions.iter().zip(entries.chunks_exact_mut(ENTRY)) {
        let Partition { kind, guid, name, first, last } = partition;
        if *first < next || last < first || *last > last_usable {
            return Err(Error::format("GPT", format!("partition {name} at {first} to {last} does not fit")));
        }
        next = last + 1;
        entry[..16].copy_from_slice(kind);
        entry[16..32].copy_from_slice(guid);
        entry[32..40].copy_from_slice(&first.to_le_bytes());
        entry[40..48].copy_from_slice(&last.to_le_bytes());
        let units: Vec<u8> = name.encode_utf16().flat_map(u16::to_le_bytes).collect();
        entry
            .get_mut(56..56 + units.len())
            .ok_or_else(|| Error::format("GPT", format!("partition name {name} is too long")))?
            .copy_from_slice(&units);
    }
    let sum = crc32fast::hash(&entries);
    let header = |own: u64, other: u64, table: u64| {
        let mut h = vec![0; SECTOR as usize];
        h[..8].copy_from_slice(b"EFI PART");
        h[8..12].copy_from_slice(&0x0001_0000u32.to_le_bytes()); // revision 1.0
        h[12..16].copy_from_slice(&92u32.to_le_bytes()); // size of this header
        for (at, value) in [(24, own), (32, other), (40, FIRST_USABLE), (48, last_usable), (72, table)] {
            h[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
        h[56..72].copy_from_slice(&disk);
        for (at, value) in [(80, ENTRIES as u32), (84, ENTRY as u32), (88, sum)] {
            h[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
        let sum = crc32fast::hash(&h[..92]);
        h[16..20].copy_from_slice(&sum.to_le_bytes());
        h
    };
    let last = sectors - 1;
    let start = [protective_mbr(sectors), header(1, last, 2), entries.clone()].concat();
    let end = [entries, header(last, 1, last - TABLE)].concat();
    Ok(Table { start, end })
}

/// The MBR that tells old tools that the whole disk is in use (section 5.2.3).
fn protective_mbr(sectors: u64) -> Vec<u8> {
    let mut mbr = vec![0; SECTOR as usize];
    let size = u32::try_from(sectors - 1).unwrap_or(u32::MAX);
    mbr[446..462].copy_from_slice(&[0, 0, 2, 0, 0xee, 0xff, 0xff, 0xff, 1, 0, 0, 0, 0, 0, 0, 0]);
    mbr[458..462].copy_from_slice(&size.to_le_bytes());
    mbr[510..].copy_from_slice(&[0x55, 0xaa]);
    mbr
}

/// Where a partition lies: first byte and length.
pub type Extent = (u64, u64);

/// Finds a partition of a disk by name, through the primary table.
///
/// # Errors
/// The bytes are no GPT, or no partition has that name.
pub fn find(disk: &mut (impl std::io::Read + std::io::Seek), name: &str) -> Result<Extent> {
    let broken = |e: std::io::Error| Error::format("GPT", e.to_string());
    let mut start = vec![0; (FIRST_USABLE * SECTOR) as usize];
    disk.seek(std::io::SeekFrom::Start(0)).map_err(broken)?;
    disk.read_exact(&mut start).map_err(broken)?;
    let header = &start[SECTOR as usize..];
    if !header.starts_with(b"EFI PART") {
        return Err(Error::format("GPT", "there is no table"));
    }
    let wanted: Vec<u8> = name.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect();
    let number = |entry: &[u8], at: usize| {
        let mut wide = [0; 8];
        wide.copy_from_slice(&entry[at..at + 8]);
        u64::from_le_bytes(wide)
    };
    start[2 * SECTOR as usize..]
        .chunks_exact(ENTRY)
        .find(|entry| entry[56..].starts_with(&wanted))
        .map(|entry| (number(entry, 32), number(entry, 40)))
        .and_then(|(first, last)| {
            let length = last.checked_sub(first)?.checked_add(1)?.checked_mul(SECTOR)?;
            Some((first.checked_mul(SECTOR)?, length))
        })
        .ok_or_else(|| Error::format("GPT", format!("no partition is called {name}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    const SECTORS: u64 = 8192;

    fn disk() -> Vec<u8> {
        let partitions = [
            Partition { kind: ESP, guid: [1; 16], name: "boot", first: 2048, last: 4095 },
            Partition { kind: ROOT_X86_64, guid: [2; 16], name: "root-a", first: 4096, last: 6143 },
        ];
        let table = table([9; 16], SECTORS, &partitions).unwrap();
        let mut disk = table.start;
        disk.resize(((SECTORS - BACKUP) * SECTOR) as usize, 0);
        disk.extend(table.end);
        disk
    }

    #[test]
    fn an_outside_reader_accepts_both_copies() {
        let good = disk();
        let primary = gptman::GPT::read_from(&mut Cursor::new(&good), SECTOR).unwrap();
        assert_eq!(primary[1].partition_name.as_str(), "boot");
        assert_eq!((primary[2].starting_lba, primary[2].ending_lba), (4096, 6143));
        assert_eq!(primary[1].partition_type_guid, ESP);
        let mut damaged = good.clone();
        damaged[512..1024].fill(0);
        let backup = gptman::GPT::find_from(&mut Cursor::new(&damaged)).unwrap();
        assert_eq!(backup[2].unique_partition_guid, [2; 16]);
    }

    #[test]
    fn partitions_are_found_by_name() {
        let mut disk = Cursor::new(disk());
        assert_eq!(find(&mut disk, "root-a").unwrap(), (4096 * 512, 2048 * 512));
        assert!(find(&mut disk, "root").is_err());
        assert!(find(&mut Cursor::new(vec![0; 100_000]), "boot").is_err());
    }

    #[test]
    fn overlaps_are_refused() {
        let part = |first, last| Partition { kind: ESP, guid: [1; 16], name: "x", first, last };
        assert!(table([0; 16], SECTORS, &[part(2048, 3000), part(3000, 4000)]).is_err());
        assert!(table([0; 16], SECTORS, &[part(2048, SECTORS)]).is_err());
        assert!(table([0; 16], 10, &[]).is_err());
    }

    #[test]
    fn the_order_of_bytes_on_disk() {
        let uuid =
            [0xc1, 0x2a, 0x73, 0x28, 0xf8, 0x1f, 0x11, 0xd2, 0xba, 0x4b, 0, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b];
        assert_eq!(on_disk(uuid), ESP);
    }
}

//! The partition table of the booted disk: `root-b` and `data` are added on first boot.
//!
//! An image ends behind `root-a`; the disk is larger. All four entries lie in one sector, and header and entries are
//! written with one call, behind a new backup at the disk's real end: a power cut leaves the old table or the new one
//! on every medium that writes 4096 bytes whole. On one that does not, the backup says the same (the kernel takes it
//! with `gpt` on its command line), and the next start writes the table at the front again.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use gptman::{GPT, GPTPartitionEntry};

use super::ext4;
use crate::error::{Error, Result};
use crate::uuid;

const MIB: u64 = 1 << 20;
/// Size of a root partition.
const ROOT_BYTES: u64 = 512 * MIB;
/// Less than this is no place for containers and logs.
const DATA_BYTES_MIN: u64 = 64 * MIB;
/// Room behind `data` that is worth a change of the table.
const GROW_BYTES_MIN: u64 = 16 * MIB;
/// Size of a superblock of ext4.
const SUPERBLOCK_BYTES: u64 = 1024;
/// Where the entries of the table at the front lie.
const ENTRIES_LBA: u64 = 2;
/// Linux file system data, 0FC63DAF-8483-4772-8E79-3D69D8477DE4, as it lies on disk (UEFI 2.10, 5.3.3).
const LINUX_DATA: [u8; 16] =
    [0xaf, 0x3d, 0xc6, 0x0f, 0x83, 0x84, 0x72, 0x47, 0x8e, 0x79, 0x3d, 0x69, 0xd8, 0x47, 0x7d, 0xe4];

/// A partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    /// Number, from 1.
    pub number: u32,
    /// The table's name for it.
    pub name: String,
    /// Start in bytes.
    pub start: u64,
    /// Length in bytes.
    pub length: u64,
}

/// The partitions of a disk (or an image).
pub(crate) fn read(disk: &Path) -> Result<Vec<Part>> {
    let mut file = File::open(disk).map_err(Error::read(disk))?;
    let gpt = GPT::find_from(&mut file).map_err(wrong(disk))?;
    Ok(parts(&gpt))
}

/// Adds `root-b` and `data` where they are missing and fit, lets `data` grow with the disk, and gives all partitions. A
/// disk too small for both is left as it is. A table whose front is torn is made whole from its backup.
pub(crate) fn extend(disk: &Path) -> Result<Vec<Part>> {
    let mut file = OpenOptions::new().read(true).write(true).open(disk).map_err(Error::read(disk))?;
    let mut gpt = GPT::find_from(&mut file).map_err(wrong(disk))?;
    let torn = gpt.header.is_backup();
    if torn {
        // A backup names its own place first, and where its own entries lie (UEFI 2.10, 5.3.2).
        let header = &mut gpt.header;
        std::mem::swap(&mut header.primary_lba, &mut header.backup_lba);
        header.partition_entry_lba = ENTRIES_LBA;
    }
    let mut fuller = gpt.clone();
    fuller.header.update_from(&mut file, gpt.sector_size).map_err(wrong(disk))?;
    let before = data_length(&gpt);
    let changed = complete(&mut fuller).map_err(wrong(disk))? || grow(&mut fuller);
    if changed {
        gpt = fuller;
        forget_old(&file, &parts(&gpt), before).map_err(Error::write(disk))?;
    }
    if changed || torn {
        write(&mut gpt, &mut file).map_err(wrong(disk))?;
    }
    Ok(parts(&gpt))
}

/// Adds what is missing. Gives whether that was anything, and all of it fits.
fn complete(gpt: &mut GPT) -> Result<bool, &'static str> {
    let has = |gpt: &GPT, name: &str| parts(gpt).iter().any(|part| part.name == name);
    if has(gpt, "data") {
        return Ok(false);
    }
    if !has(gpt, "root-b") {
        let root = gpt.iter().find(|(_, entry)| entry.partition_name.as_str() == "root-a");
        let kind = root.map(|(_, entry)| entry.partition_type_guid);
        let kind = kind.ok_or("there is no root-a to take the type from")?;
        if !add(gpt, "root-b", kind, Some(ROOT_BYTES)) {
            return Ok(false);
        }
    }
    Ok(add(gpt, "data", LINUX_DATA, None))
}

/// Lets `data`, where it is the last one, reach to the end of a disk that is larger than when it was made. Whether that
/// was anything.
fn grow(gpt: &mut GPT) -> bool {
    let align = MIB / gpt.sector_size;
    let end = (gpt.header.last_usable_lba + 1) / align * align;
    let smallest = GROW_BYTES_MIN / gpt.sector_size;
    let used = gpt.iter().filter(|(_, entry)| entry.is_used());
    let last = used.map(|(_, entry)| entry.ending_lba).max().unwrap_or_default();
    let data = gpt.iter_mut().map(|(_, entry)| entry).find(|entry| entry.partition_name.as_str() == "data");
    match data {
        Some(data) if data.ending_lba == last && end > last + smallest => {
            data.ending_lba = end - 1;
            true
        }
        _ => false,
    }
}

/// Length of `data` in bytes; 0 where there is none.
fn data_length(gpt: &GPT) -> u64 {
    parts(gpt).iter().find(|part| part.name == "data").map_or(0, |part| part.length)
}

/// Wipes what says "made" where `data` will lie, from `before` on, before there is an entry for it: on a medium that was
/// written anew lies the file system of its former owner, with passwords and functions that nobody expects.
fn forget_old(file: &File, parts: &[Part], before: u64) -> io::Result<()> {
    for data in parts.iter().filter(|part| part.name == "data") {
        for offset in ext4::superblocks(data.length).into_iter().filter(|offset| *offset >= before) {
            file.write_all_at(&[0; SUPERBLOCK_BYTES as usize], data.start + offset)?;
        }
    }
    file.sync_all()
}

/// Adds one partition behind all others, aligned to 1 MiB; without a size it takes all there is. Whether it fits.
fn add(gpt: &mut GPT, name: &str, kind: [u8; 16], bytes: Option<u64>) -> bool {
    let align = MIB / gpt.sector_size;
    let used = gpt.iter().filter(|(_, entry)| entry.is_used());
    let end = used.map(|(_, entry)| entry.ending_lba + 1).max().unwrap_or(gpt.header.first_usable_lba);
    let start = end.next_multiple_of(align);
    // The last usable sector counts; whole MiB only.
    let room = ((gpt.header.last_usable_lba + 1) / align * align).saturating_sub(start);
    let sectors = bytes.map_or(room, |bytes| bytes / gpt.sector_size);
    let smallest = bytes.unwrap_or(DATA_BYTES_MIN) / gpt.sector_size;
    let Some(number) = gpt.iter().find(|(_, entry)| entry.is_unused()).map(|(number, _)| number) else {
        return false;
    };
    if sectors > room || sectors < smallest {
        return false;
    }
    let Ok(id) = uuid::fresh().map(uuid::on_disk) else { return false };
    if let Some((_, entry)) = gpt.iter_mut().find(|(n, _)| *n == number) {
        *entry = GPTPartitionEntry {
            partition_type_guid: kind,
            unique_partition_guid: id,
            starting_lba: start,
            ending_lba: start + sectors - 1,
            attribute_bits: 0,
            partition_name: name.into(),
        };
    }
    true
}

fn parts(gpt: &GPT) -> Vec<Part> {
    let used = gpt.iter().filter(|(_, entry)| entry.is_used() && entry.ending_lba >= entry.starting_lba);
    used.map(|(number, entry)| Part {
        number,
        name: entry.partition_name.as_str().to_owned(),
        start: entry.starting_lba * gpt.sector_size,
        length: (entry.ending_lba - entry.starting_lba + 1) * gpt.sector_size,
    })
    .collect()
}

/// Backup first, flushed; then protective MBR, header and entries as one write. A backup that is as it should be is
/// not touched: it may be the only whole copy.
fn write(gpt: &mut GPT, file: &mut File) -> Result<(), gptman::Error> {
    let mut record = Record::default();
    gpt.write_into(&mut record)?;
    let front = gpt.header.first_usable_lba * gpt.sector_size;
    for (offset, bytes) in record.writes.iter().filter(|(offset, _)| *offset >= front) {
        let mut there = vec![0; bytes.len()];
        if file.read_exact_at(&mut there, *offset).is_err() || there != *bytes {
            file.write_all_at(bytes, *offset)?;
        }
    }
    file.sync_all()?;
    let mut head = vec![0; front as usize];
    file.read_exact_at(&mut head, 0)?;
    for (offset, bytes) in record.writes.iter().filter(|(offset, _)| *offset < front) {
        let from = *offset as usize;
        if let Some(place) = head.get_mut(from..from + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    }
    protect(&mut head, gpt.header.backup_lba);
    file.write_all_at(&head, 0)?;
    file.sync_all()?;
    Ok(())
}

/// The protective entry of the MBR covers the whole disk (UEFI 2.10, table 5.4); other entries of a hybrid one stay.
fn protect(head: &mut [u8], last_lba: u64) {
    const ENTRIES: std::ops::Range<usize> = 446..510;
    for entry in head.get_mut(ENTRIES).into_iter().flat_map(|entries| entries.chunks_exact_mut(16)) {
        if let [_, _, _, _, 0xee, _, _, _, 1, 0, 0, 0, size @ ..] = entry {
            size.copy_from_slice(&u32::try_from(last_lba).unwrap_or(u32::MAX).to_le_bytes());
        }
    }
}

/// Keeps what gptman would write, to write it in an order of our own.
#[derive(Debug, Default)]
struct Record {
    position: u64,
    writes: Vec<(u64, Vec<u8>)>,
}

impl Write for Record {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writes.push((self.position, bytes.to_vec()));
        self.position += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Record {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Ok(0)
    }
}

impl Seek for Record {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let moved = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
            SeekFrom::End(_) => None,
        };
        self.position = moved.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}

fn wrong<E: std::fmt::Display>(disk: &Path) -> impl Fn(E) -> Error {
    move |reason| Error::Partitions { disk: disk.display().to_string(), reason: reason.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An image with `boot` and `root-a`, enlarged to `size` MiB as by writing it to a disk.
    fn image(size: u64) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut disk = file.reopen().unwrap();
        disk.set_len(772 * MIB).unwrap();
        let mut gpt = GPT::new_from(&mut disk, 512, [9; 16]).unwrap();
        for (number, name, start, length) in [(1, "boot", 1, 256), (2, "root-a", 257, 512)] {
            gpt[number] = GPTPartitionEntry {
                partition_type_guid: [number as u8; 16],
                unique_partition_guid: [number as u8 + 10; 16],
                starting_lba: start * 2048,
                ending_lba: (start + length) * 2048 - 1,
                attribute_bits: 0,
                partition_name: name.into(),
            };
        }
        gpt.write_into(&mut disk).unwrap();
        GPT::write_protective_mbr_into(&mut disk, 512).unwrap();
        disk.set_len(size * MIB).unwrap();
        file
    }

    fn names(parts: &[Part]) -> Vec<&str> {
        parts.iter().map(|part| part.name.as_str()).collect()
    }

    #[test]
    fn adds_both_and_moves_the_backup() {
        let file = image(4096);
        let parts = extend(file.path()).unwrap();
        assert_eq!(names(&parts), ["boot", "root-a", "root-b", "data"]);
        assert_eq!((parts[2].start, parts[2].length), (769 * MIB, 512 * MIB));
        assert_eq!((parts[3].start, parts[3].length), (1281 * MIB, (4096 - 1281 - 1) * MIB));
        assert_eq!(read(file.path()).unwrap(), parts);
        let mut disk = file.reopen().unwrap();
        // Without the primary, the backup at the real end says the same.
        disk.seek(SeekFrom::Start(512)).unwrap();
        disk.write_all(&[0; 512]).unwrap();
        let gpt = GPT::read_from(&mut disk, 512).unwrap();
        assert!(gpt.header.is_backup());
        assert_eq!(gpt.header.primary_lba, 4096 * 2048 - 1);
        assert_eq!(super::parts(&gpt), parts);
        assert_eq!(gpt[3].partition_type_guid, [2; 16]);
        assert_ne!(gpt[3].unique_partition_guid, gpt[4].unique_partition_guid);
        let mut mbr = [0; 512];
        disk.read_exact_at(&mut mbr, 0).unwrap();
        assert_eq!(mbr[458..462], (4096_u32 * 2048 - 1).to_le_bytes());
    }

    #[test]
    fn data_grows_with_the_disk() {
        let file = image(2048);
        let before = extend(file.path()).unwrap();
        let place = before[3].start + 5 * (128 * MIB);
        file.as_file().write_all_at(&[7; 1024], place).unwrap();
        for (size, grown) in [(2056, false), (8192, true)] {
            file.as_file().set_len(size * MIB).unwrap();
            let parts = extend(file.path()).unwrap();
            let length = if grown { (size - 1281 - 1) * MIB } else { before[3].length };
            assert_eq!((parts[3].start, parts[3].length), (before[3].start, length), "{size}");
            assert_eq!(parts[..3], before[..3]);
            assert_eq!(read(file.path()).unwrap(), parts);
        }
        // What lay in the old part is somebody's.
        let mut kept = [0; 1024];
        file.as_file().read_exact_at(&mut kept, place).unwrap();
        assert_eq!(kept, [7; 1024]);
    }

    #[test]
    fn a_second_time_changes_nothing() {
        let file = image(2048);
        let parts = extend(file.path()).unwrap();
        let before = std::fs::read(file.path()).unwrap();
        assert_eq!(extend(file.path()).unwrap(), parts);
        assert!(before == std::fs::read(file.path()).unwrap());
    }

    #[test]
    fn a_torn_front_is_written_again_from_the_backup() {
        for (size, torn) in [(2048, 512..1024), (2048, 1024..2048), (772, 512..4096)] {
            let file = image(size);
            let parts = extend(file.path()).unwrap();
            let front = || {
                let mut bytes = vec![0; MIB as usize];
                file.as_file().read_exact_at(&mut bytes, 0).unwrap();
                bytes
            };
            let mut before = front();
            let length = (torn.end - torn.start) as usize;
            file.as_file().write_all_at(&vec![0xa5; length], torn.start).unwrap();
            assert_eq!(extend(file.path()).unwrap(), parts);
            let mut after = front();
            // Unused bytes of the header's sector stay as they are.
            before[604..1024].fill(0);
            after[604..1024].fill(0);
            assert!(before == after, "{torn:?}");
            let header = GPT::find_from(&mut file.reopen().unwrap()).unwrap().header;
            assert!(header.is_primary());
        }
    }

    #[test]
    fn what_lay_where_data_will_be_is_forgotten() {
        let file = image(2048);
        for offset in ext4::superblocks(700 * MIB) {
            file.as_file().write_all_at(&[7; 4096], 1281 * MIB + offset - 1024).unwrap();
        }
        let parts = extend(file.path()).unwrap();
        let read = |offset| {
            let mut bytes = [1; 1024];
            file.as_file().read_exact_at(&mut bytes, parts[3].start + offset).unwrap();
            bytes
        };
        assert!(ext4::superblocks(700 * MIB).iter().all(|offset| read(*offset) == [0; 1024]));
        // A partition that has its entry is somebody's.
        file.as_file().write_all_at(&[7; 1024], parts[3].start + 1024).unwrap();
        extend(file.path()).unwrap();
        assert_eq!(read(1024), [7; 1024]);
    }

    #[test]
    fn a_small_disk_stays_as_it_is() {
        for size in [772, 1300] {
            let file = image(size);
            let before = std::fs::read(file.path()).unwrap();
            assert_eq!(names(&extend(file.path()).unwrap()), ["boot", "root-a"]);
            assert!(before == std::fs::read(file.path()).unwrap(), "{size}");
        }
    }

    #[test]
    fn no_table_is_an_error() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(MIB).unwrap();
        assert!(extend(file.path()).is_err());
    }
}

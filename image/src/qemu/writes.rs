//! Every write of a machine to its disk, as QEMU's `blklogwrites` records them, and the disk as a power cut at any
//! moment would have left it.
//!
//! The file has the format of the kernel's dm-log-writes (Documentation/admin-guide/device-mapper/log-writes.rst): one
//! sector with a superblock, then for each request a sector that describes it, followed by its data. All numbers are
//! little endian. QEMU counts the entries in the superblock only now and then, so the entries are read until the
//! file ends.
//!
//! What a disk owes after a power cut: all that was written before the last flush that completed. Of what came after
//! it may have kept any part, in any order, down to single sectors of 512 bytes.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::disk::{Disk, punch};
use super::{Error, Result};

const MAGIC: u64 = 0x006a_7366_7773_6872;
/// What the record counts places on the disk in, whatever its own sectors are.
pub const SECTOR: u64 = 512;
const FLUSH: u64 = 1;
const FUA: u64 = 2;
const DISCARD: u64 = 4;
/// How much is copied at once.
const PIECE: u64 = 1 << 20;

/// One request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// First sector on the disk.
    pub sector: u64,
    /// Number of sectors; a flush has none.
    pub sectors: u64,
    /// Where its data lies in the record.
    data: u64,
    /// Where the next entry begins.
    end: u64,
    flags: u64,
}

impl Entry {
    /// Whether the disk had to keep all earlier writes when it completed.
    pub fn is_flush(&self) -> bool {
        self.flags & FLUSH != 0
    }

    /// Whether it is data, or zeroes, for a place on the disk.
    pub fn is_write(&self) -> bool {
        self.sectors > 0
    }

    /// Whether it touches a range of sectors.
    pub fn touches(&self, sectors: &std::ops::Range<u64>) -> bool {
        self.sector < sectors.end && sectors.start < self.sector + self.sectors
    }
}

/// A whole record.
#[derive(Debug)]
pub struct Writes {
    file: File,
    entries: Vec<Entry>,
}

impl Writes {
    /// Opens a record that is complete.
    ///
    /// # Errors
    /// It cannot be read, or is none.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(Error::file("open", path))?;
        let length = file.metadata().map_err(Error::file("read", path))?.len();
        let read = |bytes: &mut [u8], at| file.read_exact_at(bytes, at);
        let entries = parse(length, read).map_err(Error::file("read", path))?;
        Ok(Self { file, entries })
    }

    /// All requests, in the order in which the disk got them.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// How many requests there are in the first `length` bytes of the record: what had arrived when it was that long.
    pub fn count_in(&self, length: u64) -> usize {
        self.entries.partition_point(|entry| entry.end <= length)
    }

    /// The data of an entry, at most `limit` bytes.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn data(&self, entry: &Entry, limit: u64) -> Result<Vec<u8>> {
        let mut bytes = vec![0; (entry.sectors * SECTOR).min(limit) as usize];
        if entry.flags & DISCARD == 0 {
            self.file.read_exact_at(&mut bytes, entry.data).map_err(Error::file("read", "the record"))?;
        }
        Ok(bytes)
    }

    /// Makes `disk`, which is as it was when the recording began, what it was after a power cut.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn replay(&self, cut: &Cut, disk: &Disk) -> Result<()> {
        let failed = || Error::file("write", disk.path());
        let file = File::options().write(true).open(disk.path()).map_err(failed())?;
        let size = file.metadata().map_err(failed())?.len();
        for survivor in cut.survivors(&self.entries) {
            let entry = &survivor.entry;
            if (entry.sector + entry.sectors).checked_mul(SECTOR).is_none_or(|end| end > size) {
                let reason = format!("the record has a write to sector {}, behind its end", entry.sector);
                return Err(Error::Disk { path: disk.path().to_owned(), reason });
            }
            match survivor.torn {
                None => self.copy(entry, 0, entry.sectors, &file).map_err(failed())?,
                Some(seed) => {
                    let mut random = Random(seed);
                    for sector in 0..entry.sectors {
                        if random.one_in(2) {
                            self.copy(entry, sector, 1, &file).map_err(failed())?;
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn copy(&self, entry: &Entry, from: u64, sectors: u64, to: &File) -> std::io::Result<()> {
        let mut bytes = vec![0; (sectors * SECTOR).min(PIECE) as usize];
        let (mut at, end) = (from * SECTOR, (from + sectors) * SECTOR);
        while at < end {
            let length = (end - at).min(PIECE) as usize;
            let Some(piece) = bytes.get_mut(..length) else { break };
            piece.fill(0);
            if entry.flags & DISCARD == 0 {
                self.file.read_exact_at(piece, entry.data + at)?;
            }
            let place = entry.sector * SECTOR + at;
            if piece.iter().all(|byte| *byte == 0) {
                // Inode tables, mostly: a hole reads the same and costs nothing.
                punch(to, place, length as u64)?;
            } else {
                to.write_all_at(piece, place)?;
            }
            at += length as u64;
        }
        Ok(())
    }
}

/// Reads a record of `length` bytes. What QEMU was writing when it was killed is left out.
fn parse(
    length: u64,
    read: impl Fn(&mut [u8], u64) -> std::io::Result<()>,
) -> Result<Vec<Entry>, std::io::Error> {
    let none = |why: &str| std::io::Error::new(std::io::ErrorKind::InvalidData, why.to_owned());
    let mut head = [0; 28];
    read(&mut head, 0)?;
    let word = |bytes: &[u8], at: usize| {
        bytes
            .get(at..at + 8)
            .and_then(|word| word.try_into().ok())
            .map(u64::from_le_bytes)
            .unwrap_or_default()
    };
    if word(&head, 0) != MAGIC {
        return Err(none("no record of writes: another magic number"));
    }
    if word(&head, 8) != 1 {
        return Err(none("a record of writes of another version than 1"));
    }
    let unit = u64::from(u32::from_le_bytes([head[24], head[25], head[26], head[27]]));
    if !unit.is_power_of_two() || unit < SECTOR {
        return Err(none("a record of writes with sectors of an odd size"));
    }
    let mut entries = Vec::new();
    let mut at = unit;
    while at + unit <= length {
        let mut bytes = [0; 32];
        read(&mut bytes, at)?;
        let (sector, sectors) = (word(&bytes, 0), word(&bytes, 8));
        let flags = word(&bytes, 16);
        let scale = unit / SECTOR;
        let (Some(sector), Some(sectors)) = (sector.checked_mul(scale), sectors.checked_mul(scale)) else {
            return Err(none("a record of writes with a place beyond all disks"));
        };
        let carried = if flags & DISCARD == 0 { sectors } else { 0 };
        let data = at + unit;
        let Some(end) = carried.checked_mul(SECTOR).and_then(|bytes| data.checked_add(bytes)) else {
            return Err(none("a record of writes with a place beyond all disks"));
        };
        if end > length {
            break;
        }
        entries.push(Entry { sector, sectors, data, end, flags });
        at = end;
    }
    Ok(entries)
}

/// A power cut: when, and what the disk made of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// Before which entry.
    pub at: usize,
    /// Chooses what is lost of the writes since the last flush.
    pub seed: u64,
}

/// A write that is on the disk after a cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Survivor {
    /// The write.
    pub entry: Entry,
    /// Whether only some of its sectors are there; the number chooses which.
    pub torn: Option<u64>,
}

impl Cut {
    /// What is on the disk: all up to the last flush, and a part of the rest, of which one write is torn.
    pub fn survivors(&self, entries: &[Entry]) -> Vec<Survivor> {
        let before = entries.get(..self.at).unwrap_or(entries);
        let durable = before.iter().rposition(Entry::is_flush).map_or(0, |last| last + 1);
        let mut random = Random(self.seed);
        // From "nothing reached the medium" to "all of it did".
        let lost = random.below(5);
        let loose: Vec<usize> = (durable..before.len()).filter(|at| before[*at].is_write()).collect();
        let torn = loose.get(random.below(loose.len().max(1) as u64) as usize).copied();
        let torn = torn.filter(|_| random.below(3) > 0);
        let keep = |(at, entry): (usize, &Entry)| {
            if !entry.is_write() {
                return None;
            }
            let whole = Some(Survivor { entry: *entry, torn: None });
            if at < durable {
                return whole;
            }
            // Asked for each, so that one that is safe changes nothing for those behind it.
            let gone = random.below(4) < lost;
            let how = random.next();
            if entry.flags & FUA != 0 {
                whole
            } else if torn == Some(at) {
                Some(Survivor { entry: *entry, torn: Some(how) })
            } else {
                whole.filter(|_| !gone)
            }
        };
        before.iter().enumerate().filter_map(keep).collect()
    }
}

/// A small generator of numbers that look random and are the same for the same seed (SplitMix64).
#[derive(Debug, Clone)]
pub struct Random(pub u64);

impl Random {
    /// The next number.
    #[allow(clippy::should_implement_trait, reason = "it never ends")]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// One below `limit`, which is not 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A record as bytes: entries of (sector, sectors, flags), each sector filled with the entry's number from 1.
    fn record(requests: &[(u64, u64, u64)]) -> Vec<u8> {
        let mut bytes = vec![0; 512];
        bytes[..8].copy_from_slice(b"rhswfsj\0");
        bytes[8] = 1;
        bytes[24..28].copy_from_slice(&512_u32.to_le_bytes());
        for (number, (sector, sectors, flags)) in requests.iter().enumerate() {
            let mut head = Vec::new();
            for word in [*sector, *sectors, *flags, 0] {
                head.extend(word.to_le_bytes());
            }
            head.resize(512, 0);
            bytes.extend(head);
            if flags & DISCARD == 0 {
                bytes.extend(vec![number as u8 + 1; (sectors * SECTOR) as usize]);
            }
        }
        bytes
    }

    fn writes(requests: &[(u64, u64, u64)]) -> Writes {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), record(requests)).unwrap();
        Writes::open(file.path()).unwrap()
    }

    fn disk(folder: &Path, sectors: u64) -> Disk {
        let path = folder.join("disk.img");
        std::fs::write(&path, vec![0xee; (sectors * SECTOR) as usize]).unwrap();
        Disk::open(&path).unwrap()
    }

    #[test]
    fn reads_entries_and_finds_moments() {
        let writes = writes(&[(8, 16, 0), (0, 0, FLUSH), (4, 4, DISCARD), (0, 1, FUA)]);
        let places: Vec<_> = writes.entries().iter().map(|e| (e.sector, e.sectors, e.end)).collect();
        assert_eq!(places, [(8, 16, 9216), (0, 0, 9728), (4, 4, 10240), (0, 1, 11264)]);
        assert_eq!([0, 9215, 9216, 9728, 1 << 40].map(|length| writes.count_in(length)), [0, 0, 1, 2, 4]);
        assert!(writes.entries()[0].touches(&(23..24)) && !writes.entries()[0].touches(&(24..30)));
    }

    #[test]
    fn a_record_that_is_none_or_cut_off() {
        let bytes = record(&[(8, 16, 0), (0, 1, 0)]);
        let count = |bytes: &[u8]| {
            let read = |to: &mut [u8], at: u64| {
                let from = bytes.get(at as usize..at as usize + to.len());
                to.copy_from_slice(from.ok_or(std::io::ErrorKind::UnexpectedEof)?);
                Ok(())
            };
            parse(bytes.len() as u64, read).map(|entries| entries.len()).ok()
        };
        assert_eq!(count(&bytes), Some(2));
        assert_eq!(count(&bytes[..bytes.len() - 1]), Some(1));
        assert_eq!(count(&bytes[..512]), Some(0));
        assert_eq!(count(&[0; 512]), None);
        let mut odd = bytes.clone();
        odd[520..528].fill(0xff);
        assert_eq!(count(&odd), None);
        odd = bytes;
        odd[24] = 1;
        assert_eq!(count(&odd), None);
    }

    #[test]
    fn what_was_flushed_stays_and_the_rest_may_go() {
        let mut requests = vec![(0, 1, 0), (1, 1, 0), (0, 0, FLUSH)];
        requests.extend((2..40).map(|sector| (sector, 1, if sector == 20 { FUA } else { 0 })));
        let writes = writes(&requests);
        let mut counts = std::collections::BTreeSet::new();
        for seed in 0..50 {
            let cut = Cut { at: requests.len(), seed };
            let kept = cut.survivors(writes.entries());
            assert_eq!(kept, cut.survivors(writes.entries()), "the same each time");
            let sectors: Vec<_> = kept.iter().map(|kept| kept.entry.sector).collect();
            assert!(sectors.starts_with(&[0, 1]) && sectors.contains(&20), "{sectors:?}");
            assert!(kept.iter().filter(|kept| kept.torn.is_some()).count() <= 1);
            counts.insert(kept.len());
        }
        assert!(counts.len() > 10 && counts.first() < Some(&6) && counts.last() == Some(&40), "{counts:?}");
        // Before the flush completed, it had promised nothing.
        let lost = (0..50).filter(|seed| Cut { at: 2, seed: *seed }.survivors(writes.entries()).is_empty());
        assert!(lost.count() > 0);
    }

    #[test]
    fn replays_whole_writes_zeroes_and_torn_ones() {
        let folder = tempfile::tempdir().unwrap();
        let writes = writes(&[(2, 64, 0), (4, 2, DISCARD), (2, 1, 0), (0, 0, FLUSH), (100, 64, 0)]);
        let mut torn = 0;
        for seed in 0..20 {
            let disk = disk(folder.path(), 200);
            writes.replay(&Cut { at: 5, seed }, &disk).unwrap();
            let bytes = std::fs::read(disk.path()).unwrap();
            let sector = |at: usize| (bytes[at * 512], bytes[at * 512 + 511]);
            assert_eq!([1, 2, 3, 4, 6, 65, 66].map(|at| sector(at).0), [0xee, 3, 1, 0, 1, 1, 0xee]);
            let landed = (100..164).filter(|at| sector(*at) == (5, 5)).count();
            assert!((100..164).all(|at| [(5, 5), (0xee, 0xee)].contains(&sector(at))));
            torn += usize::from(landed > 0 && landed < 64);
        }
        assert!(torn > 5 && torn < 20, "{torn}");
        let small = disk(folder.path(), 50);
        assert!(
            writes
                .replay(&Cut { at: 5, seed: 1 }, &small)
                .unwrap_err()
                .to_string()
                .contains("behind its end")
        );
    }

    /// QEMU's own record, not one of ours.
    #[test]
    fn reads_what_qemu_records() {
        let folder = tempfile::tempdir().unwrap();
        let disk = disk(folder.path(), 8192);
        let log = folder.path().join("log");
        File::create(&log).unwrap();
        let mut command = std::process::Command::new(super::super::machine::PROGRAM);
        command.args(["-nodefaults", "-display", "none", "-machine", "none", "-qmp", "stdio"]);
        for node in super::super::machine::recorded(disk.path(), &log) {
            command.arg("-blockdev").arg(node);
        }
        let say = |line: &str| {
            let line = serde_json::json!({ "command-line": format!("qemu-io disk \"{line}\"") });
            serde_json::json!({ "execute": "human-monitor-command", "arguments": line }).to_string()
        };
        let script = [
            "{\"execute\": \"qmp_capabilities\"}".to_owned(),
            say("write -P 7 4096 8192"),
            say("flush"),
            say("write -z 1M 64k"),
            "{\"execute\": \"quit\"}".to_owned(),
        ];
        let input = folder.path().join("input");
        std::fs::write(&input, script.join("\n")).unwrap();
        let done = command.stdin(File::open(&input).unwrap()).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        let writes = Writes::open(&log).unwrap();
        let kinds: Vec<_> =
            writes.entries().iter().map(|e| (e.sector, e.sectors, e.is_flush())).take(3).collect();
        assert_eq!(kinds, [(8, 16, false), (0, 0, true), (2048, 128, false)]);
        assert_eq!(writes.data(&writes.entries()[0], 4).unwrap(), [7; 4]);
        assert_eq!(writes.data(&writes.entries()[2], 1 << 20).unwrap(), [0; 65536]);
    }
}

//! What somebody did to a machine while its writes were recorded, and what they may expect of it after a power cut.

use std::collections::BTreeSet;
use std::ops::Range;

use anyhow::Result;
use image::qemu::{Cut, Entry, Random, SECTOR, Writes};
use serde::{Deserialize, Serialize};

/// Length of the table at the front of a disk.
const TABLE: Range<u64> = 0..34;
/// Length of its backup at the end.
const BACKUP: u64 = 33;
/// How far behind its acknowledgement an act is still looked at.
const AFTERWARDS: usize = 12;

/// Something that was done, with the length that the record had before it began and when its answer had arrived.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Act {
    /// In words.
    pub what: String,
    /// The function it is about; none for other acts.
    pub function: Option<String>,
    /// The function's label `step` from then on; none if it was removed.
    pub step: Option<String>,
    /// Length before.
    pub began: u64,
    /// Length when the answer was there.
    pub answered: u64,
}

/// An asynchronous call that was accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// Its identifier.
    pub id: String,
    /// The function.
    pub function: String,
    /// Length of the record when its answer was there.
    pub answered: u64,
}

/// All that was done, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// The acts.
    pub acts: Vec<Act>,
    /// The asynchronous calls among it.
    pub calls: Vec<Accepted>,
    /// Size of the disk in bytes.
    pub disk_bytes: u64,
    /// Where the partition `data` begins, in bytes.
    pub data_start: u64,
}

/// A stretch of the record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// What happened in it.
    pub what: String,
    /// Entries: a cut may lie before each of these.
    pub cuts: Range<usize>,
    /// The cut at which something had just been promised.
    pub promised: usize,
}

impl History {
    /// What a function may be after a cut: its `step`, or `None` for absent. What was answered before the cut counts;
    /// what had begun may have happened or not.
    pub fn may_be(&self, function: &str, cut: usize, writes: &Writes) -> BTreeSet<Option<String>> {
        let mut states = BTreeSet::from([None]);
        for act in self.acts.iter().filter(|act| act.function.as_deref() == Some(function)) {
            if cut >= writes.count_in(act.answered) {
                states = BTreeSet::from([act.step.clone()]);
            } else if cut > writes.count_in(act.began) {
                states.insert(act.step.clone());
            }
        }
        states
    }

    /// All functions that there ever were.
    pub fn functions(&self) -> BTreeSet<&str> {
        self.acts.iter().filter_map(|act| act.function.as_deref()).collect()
    }

    /// The calls that had been accepted before a cut. Each of them has to come to an end.
    pub fn accepted(&self, cut: usize, writes: &Writes) -> impl Iterator<Item = &Accepted> {
        self.calls.iter().filter(move |call| cut >= writes.count_in(call.answered))
    }

    /// The stretches that a cut may lie in.
    ///
    /// # Errors
    /// The record cannot be read, or tells of no first boot.
    pub fn windows(&self, writes: &Writes) -> Result<Vec<Window>> {
        let entries = writes.entries();
        let end = self.disk_bytes / SECTOR;
        let table = |entry: &Entry| {
            entry.is_write() && (entry.touches(&TABLE) || entry.touches(&(end - BACKUP..end)))
        };
        let first = entries.iter().position(|entry| entry.is_write()).unwrap_or(0);
        let table = entries.iter().rposition(table).map_or(first, |last| last + 2);
        let label = self.labelled(writes)?.unwrap_or(table) + 2;
        let window = |what: &str, from: usize, to: usize| Window {
            what: what.to_owned(),
            cuts: from..to.max(from + 1).min(entries.len() + 1),
            promised: to.min(entries.len()),
        };
        let mut windows =
            vec![window("partition table", first, table), window("making the file system", table, label)];
        let mut from = label;
        for act in &self.acts {
            let (began, answered) = (writes.count_in(act.began), writes.count_in(act.answered));
            if act.function.is_none() {
                windows.push(window(&act.what, from.min(answered), answered));
            } else {
                let mut window = window(&act.what, began, answered + AFTERWARDS);
                window.promised = answered;
                windows.push(window);
            }
            from = answered;
        }
        Ok(windows)
    }

    /// The first entry behind which the file system's first superblock has the label.
    fn labelled(&self, writes: &Writes) -> Result<Option<usize>> {
        let superblock = self.data_start / SECTOR + 2;
        for (number, entry) in writes.entries().iter().enumerate() {
            if !entry.touches(&(superblock..superblock + 1)) || entry.sector > superblock {
                continue;
            }
            let at = ((superblock - entry.sector) * SECTOR) as usize;
            let data = writes.data(entry, at as u64 + SECTOR)?;
            if data.get(at + 0x78..at + 0x7d) == Some(b"data\0") {
                return Ok(Some(number));
            }
        }
        Ok(None)
    }
}

/// The cut of a seed: its window, then a place in it. Half of them lie where most is at stake, just before a flush
/// completes or just after an answer.
pub fn choose(seed: u64, windows: &[Window], writes: &Writes) -> Option<(Window, Cut)> {
    let window = windows.get(seed as usize % windows.len().max(1))?;
    let mut random = Random(seed.wrapping_mul(0x0002_0003).wrapping_add(77));
    let inside = window.cuts.end.saturating_sub(window.cuts.start).max(1);
    let any = window.cuts.start + random.below(inside as u64) as usize;
    let at = match random.below(4) {
        0 => window.promised,
        1 => {
            let behind = writes.entries().iter().skip(any).position(Entry::is_flush);
            behind.map_or(any, |more| any + more)
        }
        _ => any,
    };
    Some((window.clone(), Cut { at: at.min(writes.entries().len()), seed }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATA: u64 = 64;

    /// A record of (sector, content of the first sector) with a flush behind each; every pair is 1536 bytes long.
    fn writes(folder: &std::path::Path, requests: &[(u64, Vec<u8>)]) -> Writes {
        let mut bytes = vec![0; 512];
        bytes[..8].copy_from_slice(b"rhswfsj\0");
        bytes[8] = 1;
        bytes[25] = 2;
        for (sector, content) in requests {
            let mut head = [sector.to_le_bytes(), 1_u64.to_le_bytes(), [0; 8], [0; 8]].concat();
            head.resize(512, 0);
            let mut data = content.clone();
            data.resize(512, 0);
            let mut flush = [[0; 8], [0; 8], 1_u64.to_le_bytes(), [0; 8]].concat();
            flush.resize(512, 0);
            bytes.extend([head, data, flush].concat());
        }
        let path = folder.join("record");
        std::fs::write(&path, bytes).unwrap();
        Writes::open(&path).unwrap()
    }

    fn act(function: Option<&str>, step: Option<&str>, began: u64, answered: u64) -> Act {
        let (function, step) = (function.map(str::to_owned), step.map(str::to_owned));
        // Each pair of entries is 1536 bytes long.
        let at = |pairs: u64| 512 + pairs * 1536;
        Act { what: "act".into(), function, step, began: at(began), answered: at(answered) }
    }

    fn history() -> (tempfile::TempDir, Writes, History) {
        let folder = tempfile::tempdir().unwrap();
        let mut label = vec![0; 512];
        label[0x78..0x7c].copy_from_slice(b"data");
        let mut requests = vec![(1999, vec![]), (1, vec![]), (DATA + 2, vec![]), (DATA + 2, label)];
        requests.extend((0..12).map(|number| (DATA + 100 + number, vec![1])));
        let writes = writes(folder.path(), &requests);
        let acts = vec![
            act(None, None, 0, 6),
            act(Some("a"), Some("1"), 6, 8),
            act(Some("a"), Some("2"), 9, 11),
            act(Some("a"), None, 12, 14),
            act(None, None, 14, 16),
        ];
        let calls = [("x", 8), ("y", 11)];
        let call = |(id, pairs): (&str, u64)| Accepted {
            id: id.into(),
            function: "a".into(),
            answered: 512 + pairs * 1536,
        };
        let calls = calls.map(call).into();
        (folder, writes, History { acts, calls, disk_bytes: 2000 * SECTOR, data_start: DATA * SECTOR })
    }

    #[test]
    fn what_was_answered_holds_and_what_had_begun_may() {
        let (_folder, writes, history) = history();
        let may = |cut| {
            let states = history.may_be("a", cut, &writes);
            states.into_iter().map(|state| state.unwrap_or_default()).collect::<Vec<_>>().join("|")
        };
        assert_eq!([0, 12, 13, 15].map(may), ["", "", "|1", "|1"]);
        assert_eq!([16, 18, 19, 21, 22, 24].map(may), ["1", "1", "1|2", "1|2", "2", "2"]);
        assert_eq!([25, 27, 28, 32].map(may), ["|2", "|2", "", ""]);
    }

    #[test]
    fn a_call_is_owed_from_its_answer_on() {
        let (_folder, writes, history) = history();
        let owed = |cut| history.accepted(cut, &writes).map(|call| call.id.as_str()).collect::<String>();
        assert_eq!([0, 15, 16, 21, 22, 32].map(owed), ["", "", "x", "x", "xy", "xy"]);
    }

    #[test]
    fn windows_cover_the_whole_record_and_seeds_choose_in_them() {
        let (_folder, writes, history) = history();
        let windows = history.windows(&writes).unwrap();
        let cuts: Vec<_> = windows.iter().map(|w| (w.cuts.start, w.cuts.end)).collect();
        assert_eq!(cuts[..4], [(0, 4), (4, 8), (8, 12), (12, 28)]);
        assert_eq!(windows.len(), 7);
        assert_eq!(windows[3].promised, 16);
        let mut promised = 0;
        for seed in 0..200 {
            let (window, cut) = choose(seed, &windows, &writes).unwrap();
            assert_eq!(Some((window.clone(), cut)), choose(seed, &windows, &writes));
            assert!(cut.at >= window.cuts.start && cut.at <= 32, "{window:?} {cut:?}");
            promised += usize::from(cut.at == window.promised);
        }
        assert!(promised > 30 && promised < 150, "{promised}");
    }
}

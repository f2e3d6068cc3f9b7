//! Folder entries: 32 bytes with a short name each, and before it the long name in pieces (pages 22 to 32).

use super::bad;
use crate::error::Result;

/// Bytes of one entry.
pub const SIZE: usize = 32;
/// UTF-16 units of a long name that one entry holds.
const UNITS: usize = 13;
/// Where they lie in the entry.
const UNIT_OFFSETS: [usize; UNITS] = [1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30];
const ATTRIBUTE_LABEL: u8 = 0x08;
const ATTRIBUTE_FOLDER: u8 = 0x10;
const ATTRIBUTE_ARCHIVE: u8 = 0x20;
pub const ATTRIBUTE_LONG_NAME: u8 = 0x0f;

/// A time stamp as the format has it: local time without a zone, two seconds fine, from 1980 on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    date: u16,
    time: u16,
}

impl Stamp {
    /// A moment in seconds since 1970, as UTC. Earlier ones than 1980 become its first day.
    pub fn new(epoch: u64) -> Stamp {
        let (year, month, day) = civil(epoch / 86_400);
        if year < 1980 {
            return Stamp { date: 1 << 5 | 1, time: 0 };
        }
        let (hour, minute, second) = (epoch / 3600 % 24, epoch / 60 % 60, epoch % 60);
        Stamp {
            date: ((year - 1980) << 9 | month << 5 | day) as u16,
            time: (hour << 11 | minute << 5 | (second / 2)) as u16,
        }
    }
}

/// Days since 1970 to year, month and day. Years are counted from March, so that a leap day comes last.
fn civil(days: u64) -> (u64, u64, u64) {
    const DAYS_TO_MARCH_OF_YEAR_0: u64 = 719_468;
    const DAYS_OF_400_YEARS: u64 = 146_097;
    let days = days + DAYS_TO_MARCH_OF_YEAR_0;
    let (era, day) = (days / DAYS_OF_400_YEARS, days % DAYS_OF_400_YEARS);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, carry) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (era * 400 + year + carry, month, day)
}

/// A folder that is being filled.
pub struct Directory {
    /// The entries so far.
    pub bytes: Vec<u8>,
    stamp: Stamp,
    short_names: Vec<[u8; 11]>,
}

/// Begins a folder: the root with the volume's label, any other with entries for itself and its parent.
pub fn directory(stamp: Stamp, own_and_parent: Option<(u32, u32)>, label: &[u8; 11]) -> Directory {
    let mut out = Directory { bytes: Vec::new(), stamp, short_names: Vec::new() };
    match own_and_parent {
        Some((own, parent)) => {
            out.push(b".          ", ATTRIBUTE_FOLDER, own, 0);
            out.push(b"..         ", ATTRIBUTE_FOLDER, parent, 0);
        }
        None => out.push(label, ATTRIBUTE_LABEL, 0, 0),
    }
    out
}

impl Directory {
    fn push(&mut self, name: &[u8; 11], attribute: u8, cluster: u32, size: u32) {
        let mut entry = [0; SIZE];
        entry[..11].copy_from_slice(name);
        entry[11] = attribute;
        for at in [14, 22] {
            entry[at..at + 2].copy_from_slice(&self.stamp.time.to_le_bytes());
        }
        for at in [16, 18, 24] {
            entry[at..at + 2].copy_from_slice(&self.stamp.date.to_le_bytes());
        }
        entry[20..22].copy_from_slice(&((cluster >> 16) as u16).to_le_bytes());
        entry[26..28].copy_from_slice(&(cluster as u16).to_le_bytes());
        entry[28..].copy_from_slice(&size.to_le_bytes());
        self.bytes.extend_from_slice(&entry);
    }

    /// Adds a file or folder.
    pub fn add(&mut self, name: &str, folder: bool, cluster: u32, size: u32) -> Result<()> {
        let forbidden = |c: char| c.is_control() || "\"*/:<>?\\|".contains(c);
        if name.is_empty() || name.chars().any(forbidden) || name.ends_with(['.', ' ']) || name.len() > 255 {
            return Err(bad(format!("{name:?} is not a valid name")));
        }
        let short = match plain_short_name(name) {
            Some(short) => short,
            None => {
                let short = self.numbered_short_name(name)?;
                long_name(&mut self.bytes, name, &short);
                short
            }
        };
        self.short_names.push(short);
        let attribute = if folder { ATTRIBUTE_FOLDER } else { ATTRIBUTE_ARCHIVE };
        self.push(&short, attribute, cluster, size);
        Ok(())
    }

    /// The short name of a long one: what is left of it, with a number (page 31).
    fn numbered_short_name(&self, name: &str) -> Result<[u8; 11]> {
        let fold = |text: &str| -> Vec<u8> {
            text.bytes().filter(u8::is_ascii_alphanumeric).map(|b| b.to_ascii_uppercase()).collect()
        };
        let (base, ending) = name.rsplit_once('.').unwrap_or((name, ""));
        let (base, ending) = (fold(base), fold(ending));
        for number in 1..100_000 {
            let tail = format!("~{number}");
            let mut short = [b' '; 11];
            let kept = base.len().min(8 - tail.len());
            short[..kept].copy_from_slice(&base[..kept]);
            short[kept..kept + tail.len()].copy_from_slice(tail.as_bytes());
            let kept = ending.len().min(3);
            short[8..8 + kept].copy_from_slice(&ending[..kept]);
            if !self.short_names.contains(&short) {
                return Ok(short);
            }
        }
        Err(bad(format!("too many names like {name}")))
    }
}

/// The short name of a name that is one already: upper case, at most eight and three characters.
fn plain_short_name(name: &str) -> Option<[u8; 11]> {
    let (base, ending) = name.split_once('.').unwrap_or((name, ""));
    let plain = |text: &str| {
        text.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b"-_~".contains(&b))
    };
    if base.is_empty() || base.len() > 8 || ending.len() > 3 || !plain(base) || !plain(ending) {
        return None;
    }
    let mut short = [b' '; 11];
    short[..base.len()].copy_from_slice(base.as_bytes());
    short[8..8 + ending.len()].copy_from_slice(ending.as_bytes());
    Some(short)
}

/// How many entries a name takes.
pub fn slots(name: &str) -> usize {
    if plain_short_name(name).is_some() { 1 } else { 1 + name.encode_utf16().count().div_ceil(UNITS) }
}

fn checksum(short: &[u8]) -> u8 {
    short.iter().fold(0u8, |sum, byte| sum.rotate_right(1).wrapping_add(*byte))
}

fn long_name(out: &mut Vec<u8>, name: &str, short: &[u8; 11]) {
    let mut units: Vec<u16> = name.encode_utf16().collect();
    if !units.len().is_multiple_of(UNITS) {
        units.push(0);
        units.resize(units.len().next_multiple_of(UNITS), 0xffff);
    }
    let pieces = units.chunks(UNITS).enumerate().collect::<Vec<_>>();
    for (i, piece) in pieces.iter().rev() {
        let mut entry = [0; SIZE];
        let last = if i + 1 == pieces.len() { 0x40 } else { 0 };
        entry[0] = (i + 1) as u8 | last;
        entry[11] = ATTRIBUTE_LONG_NAME;
        entry[13] = checksum(short);
        for (unit, at) in piece.iter().zip(UNIT_OFFSETS) {
            entry[at..at + 2].copy_from_slice(&unit.to_le_bytes());
        }
        out.extend_from_slice(&entry);
    }
}

/// An entry that was found.
pub struct Found {
    /// Offset of the short entry in its folder.
    pub offset: usize,
    /// Whether it is a folder.
    pub folder: bool,
    /// First cluster.
    pub cluster: u32,
    /// Size in bytes.
    pub size: u32,
}

/// Looks for a name among a folder's entries, long or short, without regard to case.
pub fn find(entries: &[u8], name: &str) -> Option<Found> {
    let mut long: Vec<u16> = Vec::new();
    for (i, entry) in entries.chunks_exact(SIZE).enumerate() {
        match (entry[0], entry[11]) {
            (0, _) => return None,
            (0xe5, _) => long.clear(),
            (order, ATTRIBUTE_LONG_NAME) => {
                let piece = UNIT_OFFSETS.map(|at| u16::from_le_bytes([entry[at], entry[at + 1]]));
                if order & 0x40 != 0 {
                    long.clear();
                }
                long.splice(0..0, piece);
            }
            (_, attribute) if attribute & ATTRIBUTE_LABEL != 0 => long.clear(),
            (_, attribute) => {
                let end = long.iter().position(|u| *u == 0).unwrap_or(long.len());
                let long_name = String::from_utf16_lossy(&long[..end]);
                long.clear();
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
                let (base, ending) = (text(&entry[..8]), text(&entry[8..11]));
                let short_name = if ending.is_empty() { base } else { format!("{base}.{ending}") };
                if long_name.eq_ignore_ascii_case(name) || short_name.eq_ignore_ascii_case(name) {
                    let half = |at: usize| u32::from(u16::from_le_bytes([entry[at], entry[at + 1]]));
                    return Some(Found {
                        offset: i * SIZE,
                        folder: attribute & ATTRIBUTE_FOLDER != 0,
                        cluster: half(20) << 16 | half(26),
                        size: half(28) | half(30) << 16,
                    });
                }
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps() {
        assert_eq!(Stamp::new(0), Stamp { date: 0x21, time: 0 });
        assert_eq!(civil(951_782_400 / 86_400), (2000, 2, 29));
        assert_eq!(civil(1_735_603_200 / 86_400), (2024, 12, 31));
        // 2024-12-31 23:59:59
        assert_eq!(
            Stamp::new(1_735_689_599),
            Stamp { date: 44 << 9 | 12 << 5 | 31, time: 23 << 11 | 59 << 5 | 29 }
        );
    }
}

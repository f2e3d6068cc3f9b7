//! Memory that functions may still take.

use std::fs;
use std::path::Path;

use super::{group, usage};

/// Where the kernel tells how much there is.
const MEMINFO: &str = "/proc/meminfo";

/// What is left to the machine itself where functions have no limit of their own.
const RESERVE_BYTES: u64 = 64 << 20;

/// How many bytes functions may still take: as many as their common group may, else as the machine has. Files that were not
/// used for a while count as free, for the kernel takes them back. Nothing where neither tells.
pub fn left(root: &str) -> Option<u64> {
    let limited = group::top(root).and_then(|folder| below_limit(&folder));
    limited.or_else(|| available(&fs::read_to_string(MEMINFO).ok()?))
}

fn below_limit(folder: &Path) -> Option<u64> {
    let limit = fs::read_to_string(folder.join("memory.max")).ok()?.trim().parse::<u64>().ok()?;
    Some(limit.saturating_sub(usage::working_set(folder)?))
}

fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib = line.split_whitespace().next()?.parse::<u64>().ok()?;
    Some(kib.saturating_mul(1024).saturating_sub(RESERVE_BYTES))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_groups_limit_counts_without_what_can_be_taken_back() {
        let folder = tempfile::tempdir().unwrap();
        let write = |file: &str, text: &str| fs::write(folder.path().join(file), text).unwrap();
        assert_eq!(below_limit(folder.path()), None);
        write("memory.max", "1000\n");
        write("memory.current", "700\n");
        assert_eq!(below_limit(folder.path()), Some(300));
        write("memory.stat", "anon 100\ninactive_file 500\nactive_file 100\n");
        assert_eq!(below_limit(folder.path()), Some(800));
        write("memory.current", "1700\n");
        assert_eq!(below_limit(folder.path()), Some(0));
        write("memory.max", "max\n");
        assert_eq!(below_limit(folder.path()), None);
    }

    #[test]
    fn else_what_the_machine_has() {
        let text = "MemTotal:  1000000 kB\nMemAvailable:   102400 kB\n";
        assert_eq!(available(text), Some(36 << 20));
        assert_eq!(available("MemAvailable: 5 kB\n"), Some(0));
        assert_eq!(available("MemTotal: 5 kB\n"), None);
        assert!(left("").is_some());
    }
}

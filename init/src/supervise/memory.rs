//! Memory in use: what a bench reads from the console.

use std::fs;

/// The figures, in bytes and seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Memory {
    /// All memory minus what programs could have.
    pub used: u64,
    /// Proportional set size, summed over all processes.
    pub pss: u64,
    /// Seconds since the kernel started.
    pub uptime: u64,
}

impl Memory {
    /// Measures. Processes that end meanwhile count nothing.
    pub(super) fn now() -> Self {
        let (used, _) = used_and_total();
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let numbers = entries.filter(|e| e.file_name().to_string_lossy().bytes().all(|b| b.is_ascii_digit()));
        let rollups = numbers.filter_map(|entry| fs::read_to_string(entry.path().join("smaps_rollup")).ok());
        let uptime = fs::read_to_string("/proc/uptime").unwrap_or_default();
        let uptime = uptime.split('.').next().and_then(|seconds| seconds.parse().ok()).unwrap_or(0);
        Self { used, pss: rollups.map(|text| kib(&text, "Pss:")).sum(), uptime }
    }
}

/// Memory in use and all there is, in bytes.
pub(super) fn used_and_total() -> (u64, u64) {
    let info = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = kib(&info, "MemTotal:");
    (total.saturating_sub(kib(&info, "MemAvailable:")), total)
}

/// A line's value, written in KiB, as bytes.
fn kib(text: &str, key: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_kernels_tables() {
        let text = "Rss:  10 kB\nPss:   7 kB\nPss_Dirty: 3 kB\n";
        assert_eq!(kib(text, "Pss:"), 7 * 1024);
        let now = Memory::now();
        assert!(now.used > 1 << 20 && now.pss > 1 << 20 && now.uptime > 0, "{now:?}");
    }
}

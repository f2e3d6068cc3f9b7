//! Limits of a service's group, in proportion to the machine: the same declaration serves 192 MiB and 64 GiB.

use crate::cgroup::Group;

const MIB: u64 = 1 << 20;

/// A part of the machine's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Share {
    percent: u64,
    least_mib: u64,
    most_mib: u64,
}

impl Share {
    /// So many percent, but never less and never more than so many MiB.
    pub(crate) const fn of(percent: u64, least_mib: u64, most_mib: u64) -> Self {
        Self { percent, least_mib, most_mib }
    }

    /// So many MiB on every machine.
    pub(crate) const fn fixed(mib: u64) -> Self {
        Self::of(0, mib, mib)
    }

    fn bytes(self, total: u64) -> u64 {
        (total / 100 * self.percent).clamp(self.least_mib * MIB, self.most_mib * MIB) & !4095
    }
}

/// The limits (Documentation/admin-guide/cgroup-v2.rst).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// `memory.min`: never taken from it.
    pub min: Option<Share>,
    /// `memory.low`: taken from it when nobody else has any left.
    pub low: Option<Share>,
    /// `memory.high`: beyond it, it is slowed down and gives memory back.
    pub high: Option<Share>,
    /// `memory.max`: beyond it, the memory killer ends it, and it alone.
    pub max: Option<Share>,
    /// `cpu.weight`; 100 is the kernel's default.
    pub cpu_weight: u32,
    /// `pids.max`: processes and threads; 0 for no limit.
    pub pids: u32,
}

/// The same in bytes of one machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bytes {
    /// See [`Limits::min`].
    pub min: Option<u64>,
    /// See [`Limits::low`].
    pub low: Option<u64>,
    /// See [`Limits::high`].
    pub high: Option<u64>,
    /// See [`Limits::max`].
    pub max: Option<u64>,
}

impl Limits {
    /// None at all.
    pub(crate) const NONE: Self =
        Self { min: None, low: None, high: None, max: None, cpu_weight: 100, pids: 0 };

    /// What they are on a machine with so much memory.
    pub(crate) fn bytes(&self, total: u64) -> Bytes {
        let bytes = |share: Option<Share>| share.map(|share| share.bytes(total));
        Bytes { min: bytes(self.min), low: bytes(self.low), high: bytes(self.high), max: bytes(self.max) }
    }

    /// File and content of each, on a machine with so much memory. Those that are not given are reset: the group may
    /// be that of an earlier version of the service.
    fn files(&self, total: u64) -> [(&'static str, String); 6] {
        let bytes = self.bytes(total);
        let or = |value: Option<u64>, none: &str| value.map_or_else(|| none.to_owned(), |v| v.to_string());
        [
            ("memory.min", or(bytes.min, "0")),
            ("memory.low", or(bytes.low, "0")),
            ("memory.high", or(bytes.high, "max")),
            ("memory.max", or(bytes.max, "max")),
            ("cpu.weight", self.cpu_weight.to_string()),
            ("pids.max", if self.pids == 0 { "max".to_owned() } else { self.pids.to_string() }),
        ]
    }

    /// Sets them. Gives the names of those that the kernel does not have: it limits less, and the service starts.
    pub(super) fn apply(&self, group: &Group, total: u64) -> Vec<&'static str> {
        let failed = |(name, text): (&'static str, String)| group.set(name, &text).err().map(|_| name);
        // Nothing known about the machine: a share of nothing would be the least for a large one.
        let files = if total == 0 { Self::NONE.files(0) } else { self.files(total) };
        files.into_iter().filter_map(failed).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_has_bounds() {
        let share = Share::of(10, 32, 256);
        assert_eq!(share.bytes(160 * MIB), 32 * MIB);
        assert_eq!(share.bytes(1000 * MIB), 100 * MIB);
        assert_eq!(share.bytes(16 << 30), 256 * MIB);
        assert_eq!(Share::fixed(4).bytes(1 << 40), 4 * MIB);
    }

    #[test]
    fn what_is_not_given_is_reset() {
        let limits = Limits { max: Some(Share::fixed(64)), pids: 9, ..Limits::NONE };
        let files = limits.files(1 << 30).map(|(name, text)| format!("{name}={text}"));
        let expected = ["memory.min=0", "memory.low=0", "memory.high=max", "memory.max=67108864"];
        assert_eq!(files[..4], expected);
        assert_eq!(files[4..], ["cpu.weight=100", "pids.max=9"]);
    }
}

//! Capabilities by name (capabilities(7)): those that a service here is given.

/// A capability; its value is the kernel's number (include/uapi/linux/capability.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Capability {
    /// Give files to anybody.
    Chown = 0,
    /// Read and write any file.
    DacOverride = 1,
    /// Read any file.
    DacReadSearch = 2,
    /// Change any file's mode and times.
    Fowner = 3,
    /// Signal any process.
    Kill = 5,
    /// Listen on ports below 1024.
    NetBindService = 10,
    /// Links, addresses, firewall.
    NetAdmin = 12,
    /// Raw packets.
    NetRaw = 13,
    /// Look into any process.
    SysPtrace = 19,
    /// Mounts and namespaces.
    SysAdmin = 21,
    /// Write where only the reserve of a full disk is left.
    SysResource = 24,
    /// Read the kernel's log.
    Syslog = 34,
}

/// A set, as the kernel's two words for capset(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Set(u64);

impl Set {
    /// The set of a list.
    pub(super) fn of(list: &[Capability]) -> Self {
        Self(list.iter().fold(0, |bits, capability| bits | 1 << (*capability as u8)))
    }

    /// Whether a number is in it.
    pub(super) fn has(self, number: u64) -> bool {
        number < 64 && self.0 & (1 << number) != 0
    }

    /// Low and high word.
    pub(super) fn words(self) -> [u32; 2] {
        [self.0 as u32, (self.0 >> 32) as u32]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_is_bits() {
        let set = Set::of(&[Capability::Chown, Capability::Syslog]);
        assert_eq!(set.words(), [1, 4]);
        assert!(set.has(0) && set.has(34) && !set.has(1) && !set.has(64));
        assert_eq!(Set::of(&[]).words(), [0, 0]);
    }
}

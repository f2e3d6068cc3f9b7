//! What instances use, as their control groups tell (cgroup-v2.rst).

use std::fs;
use std::path::Path;

use super::group;
use crate::key::Key;

/// One instance's use; what the kernel does not tell is left out.
#[derive(Debug, Clone, PartialEq)]
pub struct Usage {
    /// Whose.
    pub key: Key,
    /// Which of its instances.
    pub replica: u32,
    /// Processor time since it began, seconds.
    pub cpu_seconds: Option<f64>,
    /// Memory without the files that were not used for a while (Kubernetes' working set), bytes.
    pub memory_bytes: Option<u64>,
}

/// That of all instances below a group.
pub fn of(root: &str) -> Vec<Usage> {
    let groups = group::instances(root).into_iter();
    groups.map(|(key, replica, folder)| read(key, replica, &folder)).collect()
}

fn read(key: Key, replica: u32, folder: &Path) -> Usage {
    let text = |file| fs::read_to_string(folder.join(file)).unwrap_or_default();
    let cpu = group::figure(&text("cpu.stat"), "usage_usec").map(|micros| micros as f64 / 1e6);
    let memory = text("memory.current").trim().parse::<u64>().ok();
    let inactive = group::figure(&text("memory.stat"), "inactive_file").unwrap_or(0);
    Usage { key, replica, cpu_seconds: cpu, memory_bytes: memory.map(|all| all.saturating_sub(inactive)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_figures() {
        let folder = tempfile::tempdir().unwrap();
        let key = Key::new("f", "").unwrap();
        let usage = || read(key.clone(), 1, folder.path());
        assert_eq!((usage().cpu_seconds, usage().memory_bytes), (None, None));
        for (file, text) in [
            ("cpu.stat", "usage_usec 1500000\nuser_usec 1000000\nsystem_usec 500000\n"),
            ("memory.current", "5000\n"),
            ("memory.stat", "anon 900\ninactive_file 4000\nactive_file 100\n"),
        ] {
            fs::write(folder.path().join(file), text).unwrap();
        }
        assert_eq!((usage().cpu_seconds, usage().memory_bytes), (Some(1.5), Some(1000)));
    }
}

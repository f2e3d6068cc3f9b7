//! What instances use, as their control groups tell (cgroup-v2.rst).

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use super::group;
use crate::desired::on_disk;
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

/// What a function uses now, all its instances together; what the kernel does not tell is left out.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Present {
    /// Thousandths of a processor.
    pub cpu_millicores: Option<f64>,
    /// Bytes, counted as [`Usage`] does.
    pub memory_bytes: Option<u64>,
}

/// Time over which a use of processors is measured.
const WINDOW: Duration = Duration::from_millis(200);

/// What a function uses, as two looks tell; nothing where it has no instance.
pub async fn at_present(root: &str, key: &Key) -> Option<Present> {
    let look = || {
        let (root, key) = (root.to_owned(), key.clone());
        on_disk(move || of(&root, |of| *of == key))
    };
    let (before, began) = (look().await, Instant::now());
    if before.is_empty() {
        return None;
    }
    tokio::time::sleep(WINDOW).await;
    let after = look().await;
    Some(between(&before, &after, began.elapsed()))
}

/// What a function's instances used between two looks at them.
pub fn between(before: &[Usage], after: &[Usage], time: Duration) -> Present {
    // An instance that came or went meanwhile is left out.
    let both = after.iter().filter_map(|now| {
        let then = before.iter().find(|then| then.replica == now.replica)?;
        Some((now.cpu_seconds? - then.cpu_seconds?).max(0.0))
    });
    let cpu = both.reduce(|sum, seconds| sum + seconds);
    Present {
        cpu_millicores: cpu.map(|seconds| seconds / time.as_secs_f64() * 1e3),
        memory_bytes: after.iter().filter_map(|now| now.memory_bytes).reduce(u64::saturating_add),
    }
}

/// That of all instances below a group whose functions are wanted.
pub fn of(root: &str, wanted: impl Fn(&Key) -> bool) -> Vec<Usage> {
    let groups = group::instances(root).into_iter().filter(|(key, ..)| wanted(key));
    groups.map(|(key, replica, folder)| read(key, replica, &folder)).collect()
}

fn read(key: Key, replica: u32, folder: &Path) -> Usage {
    let text = |file| fs::read_to_string(folder.join(file)).unwrap_or_default();
    let cpu = group::figure(&text("cpu.stat"), "usage_usec").map(|micros| micros as f64 / 1e6);
    Usage { key, replica, cpu_seconds: cpu, memory_bytes: working_set(folder) }
}

/// Memory of a group without the files that were not used for a while, bytes; nothing where the kernel does not tell.
pub fn working_set(folder: &Path) -> Option<u64> {
    let text = |file| fs::read_to_string(folder.join(file)).unwrap_or_default();
    let all = text("memory.current").trim().parse::<u64>().ok()?;
    let inactive = group::figure(&text("memory.stat"), "inactive_file").unwrap_or(0);
    Some(all.saturating_sub(inactive))
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

    #[test]
    fn the_use_of_all_instances_between_two_looks() {
        let key = Key::new("f", "").unwrap();
        let of = |replica, cpu_seconds, memory_bytes| Usage {
            key: key.clone(),
            replica,
            cpu_seconds,
            memory_bytes,
        };
        let before = [of(0, Some(1.0), Some(1)), of(1, Some(7.0), Some(1)), of(2, Some(9.0), None)];
        // The second one was replaced, and another came.
        let after = [of(0, Some(1.5), Some(100)), of(1, Some(0.1), Some(20)), of(3, Some(8.0), Some(3))];
        let present = between(&before, &after, Duration::from_secs(2));
        assert_eq!(present, Present { cpu_millicores: Some(250.0), memory_bytes: Some(123) });
        assert_eq!(between(&before, &[of(2, None, None)], Duration::from_secs(1)), Present::default());
    }
}

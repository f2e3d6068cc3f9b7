//! Control groups (v2): the tree, a service's group, killing and counting.

use std::fs::{self, OpenOptions};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::file;

/// Where cgroup2 is mounted.
pub(crate) const ROOT: &str = "/sys/fs/cgroup";

/// Groups that get their parent's controllers, parents first. `init` is a leaf with PID 1 and the supervisor.
const TREE: [&str; 4] = ["init", "system", "workload", "workload/shims"];
/// Groups whose children are limited.
const PARENTS: [&str; 3] = ["", "system", "workload"];
/// Memory that the kernel leaves to PID 1 and the supervisor under pressure.
const INIT_MEMORY_BYTES: u64 = 16 << 20;

/// For those services that nothing may be taken from, as far as their own `memory.min` goes: `memory.low` is no promise
/// where functions have nothing that could be given back.
pub(crate) const SYSTEM_MIN_BYTES: u64 = 64 << 20;

/// Shares of the processor where everybody wants it: what answers, logs and starts functions comes before them.
const WEIGHTS: [(&str, u32); 3] = [("init", 400), ("system", 400), ("workload", 100)];

/// Least and most memory that functions leave to the appliance; between them it is a quarter. The least is what it has
/// in use while functions run, measured on a machine of 256 MB: 31 MiB of the services' own, 70 MiB of programs' pages
/// that they come back to, 10 MiB of kernel in their groups, 30 MiB of kernel in no group. With less, functions at their
/// ceiling make the whole machine read its programs from the disk again and again before one is killed: with 16 MiB less
/// containerd does not answer for seconds.
const RESERVE_BYTES: (u64, u64) = (144 << 20, 256 << 20);

/// What functions may have together on the smallest machine: a few small ones. The appliance goes before them all the
/// same, by its `memory.low`.
const FUNCTIONS_LEAST_BYTES: u64 = 32 << 20;

/// Makes the tree and moves the calling process into `init`: a group with processes cannot hand out controllers.
pub(crate) fn make_tree() -> Result<()> {
    let root = Path::new(ROOT);
    for group in TREE {
        fs::create_dir_all(root.join(group)).map_err(Error::write(root.join(group)))?;
    }
    file::poke(root.join("init/cgroup.procs"), "0")?;
    for parent in PARENTS {
        for controller in ["+cpu", "+memory", "+io", "+pids"] {
            // A kernel without one of them limits less, and boots.
            let _ = file::poke(root.join(parent).join("cgroup.subtree_control"), controller);
        }
    }
    for (group, weight) in WEIGHTS {
        let _ = file::poke(root.join(group).join("cpu.weight"), &weight.to_string());
    }
    let total = memory_total();
    let limit = workload_limit(total).map_or("max".to_owned(), |limit| limit.to_string());
    // What a service's own protection is worth is what its parent has: all that functions leave.
    let reserve = reserve(total).to_string();
    let settings = [
        ("init/memory.min", INIT_MEMORY_BYTES.to_string()),
        ("system/memory.min", SYSTEM_MIN_BYTES.to_string()),
        ("system/memory.low", reserve),
        ("workload/memory.max", limit),
    ];
    for (path, text) in settings {
        let _ = file::poke(root.join(path), &text);
    }
    Ok(())
}

/// What functions leave to the appliance.
pub(crate) fn reserve(total: u64) -> u64 {
    (total / 4).clamp(RESERVE_BYTES.0, RESERVE_BYTES.1)
}

/// What all functions together may use: what they take beyond it, the memory killer takes from them, and not a
/// connection or a log line from the appliance. `None`: too little is known, or there.
fn workload_limit(total: u64) -> Option<u64> {
    (total > RESERVE_BYTES.0).then(|| (total - reserve(total)).max(FUNCTIONS_LEAST_BYTES))
}

/// All memory that the kernel has to give, in bytes; 0 if it does not say.
pub(crate) fn memory_total() -> u64 {
    let info = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = info.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// A group by its path below the root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Group(PathBuf);

impl Group {
    /// The group of a path such as `system/nats`.
    pub(crate) fn at(path: &str) -> Self {
        Self(Path::new(ROOT).join(path))
    }

    /// Its folder.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Whether it is there.
    pub(crate) fn exists(&self) -> bool {
        self.0.is_dir()
    }

    /// Makes it.
    pub(crate) fn make(&self) -> Result<()> {
        fs::create_dir_all(&self.0).map_err(Error::write(&self.0))
    }

    /// Writes one of its files.
    pub(crate) fn set(&self, name: &str, text: &str) -> Result<()> {
        file::poke(self.0.join(name), text)
    }

    /// A descriptor into which a new process writes `0` to join.
    pub(crate) fn joiner(&self) -> Result<OwnedFd> {
        let path = self.0.join("cgroup.procs");
        OpenOptions::new().write(true).open(&path).map(OwnedFd::from).map_err(Error::write(path))
    }

    /// Processes in the group itself.
    pub(crate) fn processes(&self) -> Vec<i32> {
        let text = fs::read_to_string(self.0.join("cgroup.procs")).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    }

    /// The groups below, one level.
    pub(crate) fn children(&self) -> Vec<Self> {
        let entries = fs::read_dir(&self.0).into_iter().flatten().flatten();
        entries.filter(|e| e.file_type().is_ok_and(|kind| kind.is_dir())).map(|e| Self(e.path())).collect()
    }

    /// Its own name.
    pub(crate) fn name(&self) -> String {
        self.0.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Whether a process lives in it or below it.
    pub(crate) fn is_populated(&self) -> bool {
        let events = fs::read_to_string(self.0.join("cgroup.events")).unwrap_or_default();
        events.lines().any(|line| line == "populated 1")
    }

    /// Kills all in it and below it, at once and without a race against forks.
    pub(crate) fn kill(&self) {
        let _ = file::poke(self.0.join("cgroup.kill"), "1");
    }

    /// Kills and waits until nobody is left. Gives whether that came true within the limit.
    pub(crate) fn kill_and_wait(&self, limit: Duration) -> bool {
        let end = Instant::now() + limit;
        self.kill();
        while self.is_populated() {
            if Instant::now() > end {
                return false;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        true
    }
}

/// The group of a process, as a path below the root.
pub(crate) fn of_process(pid: i32) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    text.lines().find_map(|line| line.strip_prefix("0::/")).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_leave_some_memory() {
        let mib = |n: u64| n << 20;
        assert_eq!(workload_limit(mib(148)), Some(mib(32)));
        assert_eq!(workload_limit(mib(212)), Some(mib(68)));
        assert_eq!(workload_limit(mib(512)), Some(mib(368)));
        assert_eq!(workload_limit(mib(8192)), Some(mib(7936)));
        assert_eq!(workload_limit(mib(64)), None);
        assert!(memory_total() > mib(64));
    }
}

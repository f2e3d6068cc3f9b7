//! What control groups use: processor time, memory, processes, disk.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::cgroup::Group;

/// Counters of one group and all below it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Usage {
    /// Processor time so far, in microseconds.
    pub cpu_usec: u64,
    /// Memory now, caches included, in bytes.
    pub memory: u64,
    /// Processes and threads.
    pub pids: u64,
    /// Read from disks so far, in bytes.
    pub read: u64,
    /// Written to disks so far, in bytes.
    pub written: u64,
}

impl Usage {
    /// Reads them. What the kernel does not count is 0.
    pub(crate) fn of(group: &Group) -> Self {
        Self::in_folder(group.path())
    }

    fn in_folder(folder: &Path) -> Self {
        let text = |name: &str| fs::read_to_string(folder.join(name)).unwrap_or_default();
        let number = |name: &str| text(name).trim().parse().unwrap_or(0);
        let io = text("io.stat");
        Self {
            cpu_usec: value(&text("cpu.stat"), "usage_usec").unwrap_or(0),
            memory: number("memory.current"),
            pids: number("pids.current"),
            read: sum(&io, "rbytes="),
            written: sum(&io, "wbytes="),
        }
    }
}

/// The number behind a key at the begin of a line.
fn value(text: &str, key: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.split_once(' '));
    lines.find(|(name, _)| *name == key).and_then(|(_, number)| number.trim().parse().ok())
}

/// Disks below and above each other (dm-verity on a partition) count once: only numbers of the topmost would be right,
/// and the kernel counts what a group asked for at each device. The largest is closest to the truth.
fn sum(text: &str, key: &str) -> u64 {
    let numbers = text.lines().filter_map(|line| {
        line.split_whitespace().find_map(|word| word.strip_prefix(key)).and_then(|n| n.parse::<u64>().ok())
    });
    numbers.max().unwrap_or(0)
}

/// One group in a sample.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Row {
    /// `service`, `function` or `system`.
    pub kind: String,
    /// Name of the service or function.
    pub name: String,
    /// The function's namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Hundredths of one processor, on average.
    pub cpu_percent: f64,
    /// Memory at the end, in bytes.
    pub memory: u64,
    /// Processes and threads at the end.
    pub pids: u64,
    /// Bytes read a second.
    pub read_per_s: u64,
    /// Bytes written a second.
    pub written_per_s: u64,
}

/// A group under its name, and its counters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Counted {
    kind: &'static str,
    name: String,
    namespace: Option<String>,
    usage: Usage,
}

/// Counters of every service and function.
pub(crate) fn count() -> Vec<Counted> {
    let counted = |kind, name: String, namespace, group: &Group| Counted {
        kind,
        name,
        namespace,
        usage: Usage::of(group),
    };
    let mut all = vec![counted("system", "init".to_owned(), None, &Group::at("init"))];
    for group in Group::at("system").children() {
        let kind = if ["helpers", "console"].contains(&group.name().as_str()) { "system" } else { "service" };
        all.push(counted(kind, group.name(), None, &group));
    }
    for space in Group::at("workload").children() {
        if space.name() == "shims" {
            all.push(counted("system", "shims".to_owned(), None, &space));
            continue;
        }
        for function in space.children() {
            let name = function.name();
            // NAME.N: the number is the replica's.
            let name = name.rsplit_once('.').map_or(name.as_str(), |(name, _)| name).to_owned();
            all.push(counted("function", name, Some(space.name()), &function));
        }
    }
    all
}

/// What happened between two counts; groups that came meanwhile count from 0.
pub(crate) fn rows(before: &[Counted], after: &[Counted], elapsed: Duration) -> Vec<Row> {
    let seconds = elapsed.as_secs_f64().max(0.001);
    let mut rows: Vec<Row> = after
        .iter()
        .map(|now| {
            let same = |then: &&Counted| {
                (then.kind, &then.name, &then.namespace) == (now.kind, &now.name, &now.namespace)
            };
            let then = before.iter().find(same).map_or(Usage::default(), |then| then.usage);
            let rate = |now: u64, then: u64| now.saturating_sub(then) as f64 / seconds;
            let percent = rate(now.usage.cpu_usec, then.cpu_usec) / 10_000.0;
            Row {
                kind: now.kind.to_owned(),
                name: now.name.clone(),
                namespace: now.namespace.clone(),
                cpu_percent: (percent * 10.0).round() / 10.0,
                memory: now.usage.memory,
                pids: now.usage.pids,
                read_per_s: rate(now.usage.read, then.read) as u64,
                written_per_s: rate(now.usage.written, then.written) as u64,
            }
        })
        .collect();
    rows.sort_by(|a, b| b.cpu_percent.total_cmp(&a.cpu_percent).then(b.memory.cmp(&a.memory)));
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_kernels_files() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        write("cpu.stat", "usage_usec 1500\nuser_usec 1000\n");
        write("memory.current", "4096\n");
        write("pids.current", "3\n");
        write("io.stat", "254:0 rbytes=10 wbytes=7 rios=1\n253:0 rbytes=8 wbytes=0\n");
        let usage = Usage { cpu_usec: 1500, memory: 4096, pids: 3, read: 10, written: 7 };
        assert_eq!(Usage::in_folder(folder.path()), usage);
        assert_eq!(Usage::in_folder(Path::new("/nowhere")), Usage::default());
    }

    #[test]
    fn a_sample_is_a_difference() {
        let at = |cpu_usec, read| {
            let usage = Usage { cpu_usec, memory: 5, pids: 1, read, written: 0 };
            vec![Counted { kind: "service", name: "nats".into(), namespace: None, usage }]
        };
        let rows = rows(&at(1_000_000, 100), &at(1_500_000, 300), Duration::from_secs(2));
        assert_eq!((rows[0].cpu_percent, rows[0].read_per_s, rows[0].memory), (25.0, 100, 5));
        let fresh = super::rows(&[], &at(1_000_000, 0), Duration::from_secs(1));
        assert_eq!(fresh[0].cpu_percent, 100.0);
    }
}

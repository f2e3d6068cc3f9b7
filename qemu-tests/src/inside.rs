//! What runs on a machine and what lies about there, seen through its shell.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail, ensure};
use image::qemu::Running;
use serde_json::Value;

/// Runs a command line in a machine's shell that has to end with 0; gives what it wrote.
///
/// # Errors
/// The shell does not work, or the command ended otherwise.
pub fn shell(running: &mut Running, command: &str) -> Result<String> {
    let done = running.shell(command)?;
    ensure!(done.status == 0, "{command} ended with {}: {}", done.status, done.output);
    Ok(done.output)
}

/// Group of the console's session: the test's own hands.
const OWN: &str = "system/console";

/// One look: all of the kernel's tables in as few programs as can be, because starting one is what costs time here.
/// The kernel's own processes are the many; no program is started for them.
const LOOK: &str = "cd /proc; \
    for p in [0-9]*; do \
      { read -r stat <$p/stat; } 2>/dev/null || continue; \
      set -- ${stat##*) }; [ \"$2\" = 2 ] && continue; \
      { IFS= read -r group <$p/cgroup; } 2>/dev/null || continue; \
      echo \"P $stat|$group\"; \
    done; \
    grep -a '' [0-9]*/cmdline 2>/dev/null | tr '\\0' ' '; \
    count() { n=$1; shift; set -- \"$@\"; [ -e \"$1\" ] || shift; echo \"C $n $#\"; }; \
    echo \"C mounts $(grep -c . /proc/1/mountinfo)\"; \
    count netns /run/netns/*; \
    count groups /sys/fs/cgroup/workload/*/ /sys/fs/cgroup/workload/*/*/; \
    count links /sys/class/net/*; \
    count fifos /run/bothy/fifo/*; \
    count snapshots /var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots/*; \
    count bundles /run/containerd/io.containerd.runtime.v2.task/*/*; \
    echo STATUS; cat /run/bothy/status.json 2>/dev/null || echo null";

/// A process: the same number with another start is another process.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Process {
    /// Its number.
    pub pid: i32,
    /// When it started, in the kernel's ticks.
    pub started: u64,
    /// `R`, `S`, `Z`, …
    pub state: char,
    /// Its group, below the root.
    pub group: String,
    /// Its name as the kernel has it.
    pub name: String,
    /// Its command line.
    pub command: String,
}

impl Process {
    /// What it is, whatever its number: name, group and, where they tell more, arguments. The number of a function's
    /// instance does not count.
    pub fn role(&self) -> String {
        let words: Vec<_> = self.command.split(' ').collect();
        let word =
            words.get(1).filter(|word| word.bytes().all(|b| b.is_ascii_lowercase()) && !word.is_empty());
        let id = words.iter().position(|word| *word == "-id").and_then(|at| words.get(at + 1));
        let more = word.map(|word| format!(" {word}")).unwrap_or_default();
        let of = id.map(|id| format!(" of {}", without_number(id))).unwrap_or_default();
        format!("{}{more}{of} ({})", self.name, without_number(&self.group))
    }

    /// Whether it belongs to a function: lives in its group, or is its shim.
    pub fn is_of(&self, function: &str) -> bool {
        let group = self.group.strip_prefix("workload/").and_then(|group| group.split_once('/'));
        let lives = group.is_some_and(|(_, instance)| {
            without_number(instance.split('/').next().unwrap_or_default()) == function
        });
        lives || self.role().contains(&format!(" of {function} "))
    }
}

fn without_number(name: &str) -> &str {
    match name.rsplit_once('.') {
        Some((front, number)) if number.bytes().all(|b| b.is_ascii_digit()) => front,
        _ => name,
    }
}

/// The machine at one moment.
#[derive(Debug, Clone)]
pub struct Inside {
    /// The processes of programs; the kernel's own and the console's session are not among them.
    pub processes: Vec<Process>,
    /// Mounts, network namespaces, groups, …: how many there are.
    pub counts: BTreeMap<String, u64>,
    /// status.json.
    pub status: Value,
}

impl Inside {
    /// Looks.
    ///
    /// # Errors
    /// The shell does not work, or says what cannot be read.
    pub fn look(running: &mut Running) -> Result<Self> {
        let seen = shell(running, LOOK).context("the look at the machine")?;
        Self::read(&seen).with_context(|| format!("the look at the machine gave:\n{seen}"))
    }

    fn read(text: &str) -> Result<Self> {
        let (tables, status) = text.split_once("STATUS\n").context("no status")?;
        let (mut processes, mut counts) = (Vec::new(), BTreeMap::new());
        let commands: BTreeMap<&str, &str> =
            tables.lines().filter_map(|line| line.split_once("/cmdline:")).collect();
        for line in tables.lines() {
            if let Some(process) = line.strip_prefix("P ") {
                processes.extend(read_process(process, &commands));
            } else if let Some((name, count)) = line.strip_prefix("C ").and_then(|rest| rest.split_once(' '))
            {
                counts.insert(name.to_owned(), count.trim().parse().with_context(|| line.to_owned())?);
            }
        }
        ensure!(processes.iter().any(|process: &Process| process.pid == 1), "no process 1");
        Ok(Self { processes, counts, status: serde_json::from_str(status).context("status.json")? })
    }

    /// Whether the supervisor calls the machine healthy and has nothing to complain about.
    pub fn is_well(&self) -> bool {
        let no_problem = self.status["problems"].as_object().is_some_and(serde_json::Map::is_empty);
        self.status["healthy"] == true && no_problem
    }

    /// The one process of a group, process 1 aside.
    ///
    /// # Errors
    /// There is none, or there are several.
    pub fn of_group(&self, group: &str) -> Result<&Process> {
        let mut found = self.processes.iter().filter(|process| process.group == group && process.pid != 1);
        match (found.next(), found.next()) {
            (Some(process), None) => Ok(process),
            (first, _) => bail!(
                "there is not one process in {group}: {}",
                if first.is_some() { "several" } else { "none" }
            ),
        }
    }

    /// Those of a role.
    pub fn of<'a>(&'a self, role: &'a str) -> impl Iterator<Item = &'a Process> {
        self.processes.iter().filter(move |process| process.role() == role)
    }

    /// How many there are of each role.
    pub fn roles(&self) -> BTreeMap<String, usize> {
        let mut roles = BTreeMap::new();
        for process in &self.processes {
            *roles.entry(process.role()).or_default() += 1;
        }
        roles
    }

    /// What is another now than `before`: roles, counts, dead processes that nobody takes.
    pub fn differs(&self, before: &Self) -> Vec<String> {
        let mut differences = Vec::new();
        let (now, then) = (self.roles(), before.roles());
        for role in now.keys().chain(then.keys()).collect::<BTreeSet<_>>() {
            let count = |roles: &BTreeMap<String, usize>| roles.get(role).copied().unwrap_or(0);
            if count(&now) != count(&then) {
                differences.push(format!("{role}: {} instead of {}", count(&now), count(&then)));
            }
        }
        for (name, then) in &before.counts {
            let now = self.counts.get(name).copied().unwrap_or(0);
            if now != *then {
                differences.push(format!("{name}: {now} instead of {then}"));
            }
        }
        let dead = self.processes.iter().filter(|process| process.state == 'Z');
        differences.extend(dead.map(|process| format!("{} is a zombie", process.role())));
        differences
    }
}

/// `proc_pid_stat(5)` and the group, separated by a bar; nothing for the kernel's own and for the console's. Command
/// lines are known by number.
fn read_process(line: &str, commands: &BTreeMap<&str, &str>) -> Option<Process> {
    let (stat, group) = line.split_once('|')?;
    let (front, fields) = stat.rsplit_once(") ")?;
    let (pid, name) = front.split_once(" (")?;
    let fields: Vec<_> = fields.split(' ').collect();
    let state = fields.first()?.chars().next()?;
    let command = commands.get(pid).copied().unwrap_or_default();
    let pid = pid.parse().ok()?;
    // kthreadd and its children.
    let kernel = pid == 2 || fields.get(1) == Some(&"2");
    let group = group.trim_start_matches("0::/").to_owned();
    if kernel || group.starts_with(OWN) {
        return None;
    }
    let started = fields.get(19)?.parse().ok()?;
    Some(Process { pid, started, state, group, name: name.to_owned(), command: command.trim().to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "S 1 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 777 1 2 3";

    fn text(more: &str) -> String {
        format!(
            "P 1 (init) {STAT}|0::/init\n\
             P 2 (kthreadd) {}|0::/\n\
             P 80 (busybox) {STAT}|0::/system/console\n\
             P 70 (a (b) c) {STAT}|0::/workload/openfaas-fn/f.3\n{more}\
             1/cmdline:/sbin/init \n80/cmdline:busybox sh \n70/cmdline:/x -id f.3 \n\
             C mounts 7\nSTATUS\n{{\"healthy\": true, \"problems\": {{}}}}",
            STAT.replacen("S 1", "S 0", 1)
        )
    }

    #[test]
    fn reads_processes_and_counts() {
        let inside = Inside::read(&text("")).unwrap();
        assert!(inside.is_well());
        assert_eq!(inside.counts["mounts"], 7);
        assert_eq!(inside.processes.len(), 2, "{inside:?}");
        assert_eq!(inside.processes[1].role(), "a (b) c of f (workload/openfaas-fn/f)");
        assert!(inside.processes[1].is_of("f") && !inside.processes[1].is_of("g"));
        assert_eq!((inside.processes[1].pid, inside.processes[1].started), (70, 777));
    }

    #[test]
    fn tells_what_is_another() {
        let before = Inside::read(&text("")).unwrap();
        assert_eq!(before.differs(&before), [""; 0]);
        let zombie = format!("P 9 (x) {}|0::/init\n", STAT.replacen('S', "Z", 1));
        let after = Inside::read(&text(&zombie).replace("C mounts 7", "C mounts 8")).unwrap();
        let told = ["x (init): 1 instead of 0", "mounts: 8 instead of 7", "x (init) is a zombie"];
        assert_eq!(after.differs(&before), told);
    }
}

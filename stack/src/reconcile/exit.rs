//! How an instance's process ended by itself, as far as the kernel and containerd tell.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use super::group;
use super::instance::Instance;
use crate::error::Error;
use crate::timestamp;

/// From here on a status is a signal's number, as shells and containerd count.
const SIGNALS: std::ops::RangeInclusive<u32> = 129..=192;

/// What made a process end, in a word: a metric's label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Means {
    /// It ended by itself, or nobody saw how.
    Exit,
    /// A signal.
    Signal,
    /// The kernel, because of memory.
    Oom,
}

impl Means {
    /// As the label has it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Exit => "exit",
            Self::Signal => "signal",
            Self::Oom => "oom",
        }
    }
}

/// An end that nobody asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// Its status, where containerd told.
    pub status: Option<u32>,
    /// What the kernel killed it for.
    killed: Option<&'static str>,
}

impl Exit {
    /// To be asked before the instance is removed: the kernel's figures go with its cgroup.
    pub fn of(root: &str, instance: &Instance, status: Option<u32>) -> Self {
        Self::read(group::folder(root, &instance.key, instance.replica).as_deref(), status)
    }

    fn read(group: Option<&Path>, status: Option<u32>) -> Self {
        let events = group.and_then(|group| std::fs::read_to_string(group.join("memory.events")).ok());
        Self { status, killed: killed(&events.unwrap_or_default()) }
    }

    /// The end that an error tells of, if it is one.
    pub fn told_by(error: &Error) -> Option<Self> {
        match error {
            Error::Exited { status, killed } => Some(Self { status: *status, killed: *killed }),
            _ => None,
        }
    }

    /// The same as an error of a start.
    pub fn before_ready(self) -> Error {
        Error::Exited { status: self.status, killed: self.killed }
    }

    /// What made it end.
    pub fn means(&self) -> Means {
        match self.status {
            _ if self.killed.is_some() => Means::Oom,
            Some(status) if SIGNALS.contains(&status) => Means::Signal,
            _ => Means::Exit,
        }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.killed, self.status) {
            (Some(cause), Some(status)) => write!(f, "{cause} (status {status})"),
            (Some(cause), None) => f.write_str(cause),
            (None, None) => f.write_str("its process ended"),
            (None, Some(status)) if SIGNALS.contains(&status) => {
                write!(f, "its process was ended by signal {}", status - (SIGNALS.start() - 1))
            }
            (None, Some(status)) => write!(f, "its process ended with status {status}"),
        }
    }
}

/// From `memory.events` (cgroup-v2.rst): `oom` counts how often the group's own limit was hit without a way out,
/// `oom_kill` the processes of it that were killed, for that or for a limit above.
fn killed(events: &str) -> Option<&'static str> {
    let count = |key: &str| group::figure(events, key).unwrap_or(0);
    match (count("oom_kill"), count("oom")) {
        (0, _) => None,
        (_, 0) => Some("killed because all functions together took more memory than there is"),
        _ => Some("killed because it took more memory than its limit"),
    }
}

/// The ends of one function's processes, since this process or the function began.
#[derive(Debug, Default)]
pub struct Exits(Mutex<Past>);

#[derive(Debug, Default)]
struct Past {
    counts: BTreeMap<(Means, Option<u32>), u64>,
    last: Option<String>,
}

impl Exits {
    /// Takes note of one.
    pub(super) fn note(&self, instance: &Instance, exit: Exit) {
        let mut past = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *past.counts.entry((exit.means(), exit.status)).or_default() += 1;
        let now = timestamp::rfc3339(timestamp::now_seconds());
        past.last = Some(format!("{now} {}: {exit}", instance.id));
    }

    /// The last one is about a version that is no more.
    pub(super) fn forget_last(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).last = None;
    }

    /// When, which instance and how: the last one of this version.
    pub fn last(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).last.clone()
    }

    /// How many, by what made them and their status.
    pub fn counts(&self) -> BTreeMap<(Means, Option<u32>), u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).counts.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENTS: &str = "low 0\nhigh 0\nmax 31\noom 1\noom_kill 2\noom_group_kill 1\n";

    fn instance() -> Instance {
        Instance {
            key: crate::key::Key::new("f", "").unwrap(),
            id: "f.0".into(),
            replica: 0,
            digest: String::new(),
            address: None,
            task: crate::containerd::Task::Stopped,
        }
    }

    #[test]
    fn the_kernels_figures_in_words() {
        assert!(killed(EVENTS).unwrap().contains("than its limit"));
        assert!(killed(&EVENTS.replace("oom 1", "oom 0")).unwrap().contains("all functions"));
        assert_eq!(killed(&EVENTS.replace("oom_kill 2", "oom_kill 0")), None);
        assert_eq!(killed(""), None);
    }

    #[test]
    fn the_status_in_words() {
        let told = |status| {
            let exit = Exit::of("", &instance(), status);
            (exit.to_string(), exit.means().word())
        };
        assert_eq!(told(None), ("its process ended".into(), "exit"));
        assert_eq!(told(Some(3)), ("its process ended with status 3".into(), "exit"));
        assert_eq!(told(Some(128)), ("its process ended with status 128".into(), "exit"));
        assert_eq!(told(Some(137)), ("its process was ended by signal 9".into(), "signal"));
        assert_eq!(told(Some(255)), ("its process ended with status 255".into(), "exit"));
    }

    #[test]
    fn memory_is_told_with_the_status() {
        let group = tempfile::tempdir().unwrap();
        std::fs::write(group.path().join("memory.events"), EVENTS).unwrap();
        let exit = Exit::read(Some(group.path()), Some(137));
        assert_eq!(exit.means(), Means::Oom);
        assert_eq!(exit.to_string(), "killed because it took more memory than its limit (status 137)");
        let error = exit.before_ready();
        assert_eq!(Exit::told_by(&error), Some(exit));
        assert!(
            error
                .to_string()
                .ends_with("before it was ready: killed because it took more memory than its limit")
        );

        let exits = Exits::default();
        exits.note(&instance(), exit);
        exits.note(&instance(), Exit::of("", &instance(), Some(1)));
        exits.note(&instance(), exit);
        assert_eq!(exits.counts(), [((Means::Exit, Some(1)), 1), ((Means::Oom, Some(137)), 2)].into());
        assert!(
            exits
                .last()
                .unwrap()
                .ends_with("Z f.0: killed because it took more memory than its limit (status 137)")
        );
        exits.forget_last();
        assert_eq!((exits.last(), exits.counts().len()), (None, 2));
    }
}

//! What the supervisor knows, in one place: every change goes through here, wakes who waits, and is shown.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// Port of the gateway.
pub(crate) const GATEWAY_PORT: u16 = 8080;

/// State of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    /// Waits for others.
    #[default]
    Waiting,
    /// Its process runs, and has not said that it is ready.
    Starting,
    /// It works.
    Ready,
    /// It ended, and starts again after a pause.
    Restarting,
    /// It ended too often, and is tried rarely.
    Failed,
    /// One that it needs has failed: it does not start.
    Blocked,
    /// It was asked to end.
    Stopping,
    /// It ended as asked.
    Stopped,
}

impl State {
    /// Whether a service goes from this state to that one.
    pub(crate) fn may_become(self, next: Self) -> bool {
        use State::*;
        match self {
            Waiting => matches!(next, Waiting | Blocked | Starting | Restarting | Failed | Stopped),
            Blocked => matches!(next, Blocked | Waiting | Starting | Restarting | Failed | Stopped),
            Starting => matches!(next, Ready | Restarting | Failed | Stopping),
            Ready => matches!(next, Restarting | Failed | Stopping),
            Restarting | Failed => matches!(next, Waiting | Stopped),
            Stopping => matches!(next, Waiting | Restarting | Failed | Stopped),
            Stopped => matches!(next, Waiting),
        }
    }
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // `pad`: columns need the width.
        f.pad(match self {
            Self::Waiting => "waiting",
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Restarting => "restarting",
            Self::Failed => "failed",
            Self::Blocked => "blocked",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
        })
    }
}

/// A service, as status.json shows it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Service {
    /// Name.
    pub name: String,
    /// State.
    pub state: State,
    /// When it came into this state, in milliseconds since 1970; 0 before its first.
    pub since_ms: u64,
    /// Main process, if there is one.
    pub pid: Option<i32>,
    /// How often it started again since the boot.
    pub restarts: u32,
    /// Why it ended or did not start the last time.
    pub last_error: Option<String>,
    /// Whether it answers; nothing where nobody asks it, or it does not run.
    #[serde(default)]
    pub healthy: Option<bool>,
    /// What a person has to know: it ends again and again. Gone when it was ready for a while.
    #[serde(default)]
    pub trouble: Option<String>,
    /// Whether that it failed was said.
    #[serde(default)]
    pub gave_up: bool,
    /// What it wants people to know (`X_NOTICE=` among the words of sd_notify(3)): the gateway names functions that
    /// ended. Several are separated by semicolons.
    #[serde(default)]
    pub notice: Option<String>,
    /// Its last ends, the oldest first.
    #[serde(default)]
    pub ends: Vec<End>,
}

/// One end of a service.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct End {
    /// When, in seconds since 1970 by the clock of that moment.
    pub time: u64,
    /// When, in seconds since the machine started: no clock that was set wrong is in it.
    pub uptime: u64,
    /// How long it had lived, in seconds.
    pub lived: u64,
    /// Why.
    pub reason: String,
}

/// The machine, as status.json shows it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Status {
    /// Its name.
    pub hostname: String,
    /// IPv4 address, without a prefix length.
    pub address: Option<String>,
    /// Where the gateway answers.
    pub url: String,
    /// Whether all services are ready and the gateway says so too.
    pub healthy: bool,
    /// What the network does.
    pub network: String,
    /// Whether waiting longer for an address would be in vain for now.
    #[serde(skip)]
    pub settled: bool,
    /// Disk that was booted.
    pub boot_disk: String,
    /// Where `/var` lies.
    pub data: String,
    /// Which configuration is in force: `boot`, `last-good`, `defaults`.
    pub config: String,
    /// What a person has to look at, by who found it; each is one line or more.
    pub problems: BTreeMap<String, String>,
    /// The services, in the order of starting.
    pub services: Vec<Service>,
}

struct Inner {
    status: RefCell<Status>,
    changes: watch::Sender<u64>,
}

/// The status, shared.
#[derive(Clone)]
pub(crate) struct Board(Rc<Inner>);

impl Board {
    /// An empty one.
    pub(crate) fn new() -> Self {
        Self(Rc::new(Inner { status: RefCell::default(), changes: watch::Sender::new(0) }))
    }

    /// A copy of what is known.
    pub(crate) fn status(&self) -> Status {
        self.0.status.borrow().clone()
    }

    /// Changes something; wakes those who wait if it is really another.
    pub(crate) fn change(&self, change: impl FnOnce(&mut Status)) {
        let before = self.status();
        let mut after = before.clone();
        change(&mut after);
        after.healthy =
            after.all_ready() && after.services.iter().all(|service| service.healthy != Some(false));
        if after != before {
            date(&before, &mut after);
            *self.0.status.borrow_mut() = after;
            self.0.changes.send_modify(|count| *count += 1);
        }
    }

    /// Notes a problem, or that it is gone.
    pub(crate) fn problem(&self, source: &str, text: Option<String>) {
        if self.0.status.borrow().problems.get(source) == text.as_ref() {
            return;
        }
        if let Some(text) = &text {
            tracing::error!("{source}: {text}");
        }
        self.change(|status| {
            match text {
                Some(text) => status.problems.insert(source.to_owned(), text),
                None => status.problems.remove(source),
            };
        });
    }

    /// Changes a service, which is made if there is none of that name.
    pub(crate) fn service(&self, name: &str, change: impl FnOnce(&mut Service)) {
        self.change(|status| match status.services.iter_mut().find(|service| service.name == name) {
            Some(service) => change(service),
            None => {
                let mut service = Service { name: name.to_owned(), ..Service::default() };
                change(&mut service);
                status.services.push(service);
            }
        });
    }

    /// Tells of every change from now on.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    /// Waits until something is true.
    pub(crate) async fn until(&self, mut true_now: impl FnMut(&Status) -> bool) {
        let mut changes = self.changes();
        while !true_now(&self.0.status.borrow()) {
            // The sender lives as long as `self`.
            let _ = changes.changed().await;
        }
    }
}

/// Dates the services that are in another state than before.
fn date(before: &Status, after: &mut Status) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    for service in &mut after.services {
        let then = before.services.iter().find(|then| then.name == service.name);
        if then.is_none_or(|then| then.state != service.state) {
            service.since_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        }
    }
}

impl Status {
    /// Whether a service of this name is ready.
    pub(crate) fn is_ready(&self, name: &str) -> bool {
        self.services.iter().any(|service| service.name == name && service.state == State::Ready)
    }

    /// Whether a service of this name has failed, or cannot start because another one has.
    pub(crate) fn is_lost(&self, name: &str) -> bool {
        let lost = |state| matches!(state, State::Failed | State::Blocked);
        self.services.iter().any(|service| service.name == name && lost(service.state))
    }

    /// Whether all services are ready.
    pub(crate) fn all_ready(&self) -> bool {
        !self.services.is_empty() && self.services.iter().all(|service| service.state == State::Ready)
    }

    /// Problems as a person reads them: those that were noted, and services that do not work.
    pub(crate) fn troubles(&self) -> Vec<String> {
        let noted = self.problems.values().cloned();
        let failing = self
            .services
            .iter()
            .filter_map(|service| Some(format!("service {}: {}", service.name, service.trouble.as_ref()?)));
        noted.chain(failing).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn only_real_changes_wake() {
        let board = Board::new();
        let changes = board.changes();
        board.service("nats", |service| service.state = State::Ready);
        assert!(changes.has_changed().unwrap());
        let changes = board.changes();
        board.service("nats", |service| service.state = State::Ready);
        board.problem("x", None);
        assert!(!changes.has_changed().unwrap());
        board.until(|status| status.is_ready("nats")).await;
        assert!(board.status().all_ready());
    }

    #[test]
    fn people_and_programs_read_the_same_words() {
        use State::*;
        for state in [Waiting, Starting, Ready, Restarting, Failed, Blocked, Stopping, Stopped] {
            assert_eq!(serde_json::to_value(state).unwrap(), state.to_string());
        }
    }

    #[test]
    fn troubles_name_service_and_reason() {
        let board = Board::new();
        assert!(!board.status().all_ready());
        board.service("nats", |service| {
            service.state = State::Restarting;
            service.trouble = Some("exit status 1".to_owned());
        });
        board.problem("config", Some("bothy.toml:2:1: unknown key".to_owned()));
        let troubles = board.status().troubles();
        assert_eq!(troubles, ["bothy.toml:2:1: unknown key", "service nats: exit status 1"]);
    }
}

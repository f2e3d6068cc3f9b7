//! What the supervisor knows, in one place: every change goes through here, wakes who waits, and is shown.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

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
    Failed,
    /// It was asked to end.
    Stopping,
    /// It ended as asked.
    Stopped,
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // `pad`: columns need the width.
        f.pad(match self {
            Self::Waiting => "waiting",
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Failed => "failed",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
        })
    }
}

/// A service, as status.json shows it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Service {
    /// Name.
    pub name: String,
    /// State.
    pub state: State,
    /// Main process, if there is one.
    pub pid: Option<i32>,
    /// How often it started again since the boot.
    pub restarts: u32,
    /// Why it ended or did not start the last time.
    pub last_error: Option<String>,
}

/// The machine, as status.json shows it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
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
        if after != before {
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

impl Status {
    /// Whether a service of this name is ready.
    pub(crate) fn is_ready(&self, name: &str) -> bool {
        self.services.iter().any(|service| service.name == name && service.state == State::Ready)
    }

    /// Whether all services are ready.
    pub(crate) fn all_ready(&self) -> bool {
        !self.services.is_empty() && self.services.iter().all(|service| service.state == State::Ready)
    }

    /// Problems as a person reads them: those that were noted, and services that do not work.
    pub(crate) fn troubles(&self) -> Vec<String> {
        let noted = self.problems.values().cloned();
        let failed = self.services.iter().filter(|s| s.state == State::Failed).map(|service| {
            format!("service {}: {}", service.name, service.last_error.as_deref().unwrap_or("failed"))
        });
        noted.chain(failed).collect()
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
        for state in [Waiting, Starting, Ready, Failed, Stopping, Stopped] {
            assert_eq!(serde_json::to_value(state).unwrap(), state.to_string());
        }
    }

    #[test]
    fn troubles_name_service_and_reason() {
        let board = Board::new();
        assert!(!board.status().all_ready());
        board.service("nats", |service| {
            service.state = State::Failed;
            service.last_error = Some("exit status 1".to_owned());
        });
        board.problem("config", Some("bothy.toml:2:1: unknown key".to_owned()));
        let troubles = board.status().troubles();
        assert_eq!(troubles, ["bothy.toml:2:1: unknown key", "service nats: exit status 1"]);
    }
}

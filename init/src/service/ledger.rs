//! The one place where a service's state changes: checked, logged, shown (board, status.json), and written down for
//! the next supervisor.

use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::record::{self, Record};
use super::restart::{self, Ends, Verdict};
use crate::board::{Board, End, Service, State};
use crate::process::Identity;

/// Ends that are remembered of each service.
const HISTORY: usize = 10;

/// One service's.
pub(super) struct Ledger {
    name: &'static str,
    /// Whether it counts as healthy only when somebody asked it.
    checked: bool,
    board: Board,
    run: PathBuf,
    who: Cell<Option<Identity>>,
    /// Who was ready under an earlier supervisor, and since when (milliseconds since 1970), until it is known whether it
    /// still is. As long as that is so, the earlier supervisor's record stands: one in between would make the next one
    /// wait for a word of readiness that was said long ago.
    was_ready: Cell<Option<(Identity, u64)>>,
    ends: RefCell<Ends>,
}

impl Ledger {
    /// An empty one.
    pub(super) fn new(name: &'static str, checked: bool, board: Board, run: PathBuf) -> Self {
        let (who, was_ready) = (Cell::default(), Cell::default());
        Self { name, checked, board, run, who, was_ready, ends: RefCell::default() }
    }

    /// Takes over what an earlier supervisor knew.
    pub(super) fn inherit(&self, record: Record) {
        let since = record.service.since_ms;
        self.was_ready.set(record.who.filter(|_| record.was_ready()).map(|who| (who, since)));
        *self.ends.borrow_mut() = record.ends;
        self.board.service(self.name, |service| {
            *service = Service { state: State::Waiting, pid: None, healthy: None, ..record.service };
        });
    }

    /// It waits for others.
    pub(super) fn waits(&self) {
        self.to(State::Waiting, "", |_| {});
    }

    /// It waits for one that has failed.
    pub(super) fn blocked(&self, by: &str) {
        self.to(State::Blocked, &format!("{by} has failed"), |_| {});
    }

    /// Its process runs: a new one, or one that is adopted.
    pub(super) fn starts(&self, who: Identity, adopted: bool) {
        self.who.set(Some(who));
        self.was_ready.set(self.was_ready.get().filter(|(was, _)| *was == who));
        let healthy = self.checked.then_some(false);
        self.to(State::Starting, "", |service| {
            (service.pid, service.healthy) = (Some(who.pid), healthy);
            // An adopted one has said it before, and does not say it again.
            if !adopted {
                service.notice = None;
            }
        });
    }

    /// It works; an adopted one has worked since long ago.
    pub(super) fn ready(&self) {
        self.to(State::Ready, "", |_| {});
        if let Some((_, since)) = self.was_ready.take() {
            self.board.service(self.name, |service| service.since_ms = since);
            self.write();
        }
    }

    /// It was asked to end.
    pub(super) fn stops(&self, why: &str) {
        self.to(State::Stopping, why, |_| {});
    }

    /// It ended as asked: nobody adopts it.
    pub(super) fn stopped(&self) {
        self.forget();
        self.to(State::Stopped, "", |service| (service.pid, service.healthy) = (None, None));
        record::remove(&self.run, self.name);
    }

    /// It ended, or did not start, and what follows from that.
    pub(super) fn ended(
        &self,
        reason: &str,
        lived: Duration,
        count: impl FnOnce(&mut Ends) -> Verdict,
    ) -> Verdict {
        self.forget();
        let verdict = count(&mut self.ends.borrow_mut());
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let end = End { time, uptime: restart::uptime(), lived: lived.as_secs(), reason: reason.to_owned() };
        let next = if verdict.failed { State::Failed } else { State::Restarting };
        self.to(next, reason, |service| {
            (service.pid, service.healthy) = (None, None);
            service.last_error = Some(reason.to_owned());
            service.ends.push(end);
            let surplus = service.ends.len().saturating_sub(HISTORY);
            service.ends.drain(..surplus);
            // One end is an accident that is over; said once, whatever the later ones were.
            let (name, minutes) = (self.name, verdict.pause.as_secs() / 60);
            match (&service.trouble, verdict) {
                (_, Verdict { failed: true, .. }) if !service.gave_up => {
                    service.trouble = Some(format!(
                        "{reason}, too often: tried again every {minutes} minutes; look at `bothyctl services {name}`; \
                         `bothyctl reboot` starts it at once"
                    ));
                    service.gave_up = true;
                }
                (None, Verdict { row, .. }) if row > 1 => {
                    service.trouble = Some(format!("{reason}, again and again"));
                }
                _ => {}
            }
        });
        verdict
    }

    /// The pause is over.
    pub(super) fn again(&self) {
        self.to(State::Waiting, "", |service| service.restarts = service.restarts.saturating_add(1));
    }

    /// It was ready for long enough.
    pub(super) fn recovered(&self) {
        self.board.service(self.name, |service| (service.trouble, service.gave_up) = (None, false));
        self.write();
    }

    /// Whether it answers, as far as that is no passing weakness.
    pub(super) fn healthy(&self, healthy: bool) {
        if self.now().healthy != Some(healthy) {
            tracing::info!(
                service = self.name,
                healthy,
                "{} is {}healthy",
                self.name,
                if healthy { "" } else { "not " }
            );
            self.board.service(self.name, |service| service.healthy = Some(healthy));
        }
    }

    /// It wants people to know something; an empty text takes it back.
    pub(super) fn notice(&self, text: &str) {
        let notice = Some(text.to_owned()).filter(|text| !text.is_empty());
        if self.now().notice != notice {
            self.board.service(self.name, |service| service.notice = notice);
            self.write();
        }
    }

    /// That it does not answer is a problem, or no longer.
    pub(super) fn problem(&self, text: Option<String>) {
        let text = text.map(|text| format!("service {} does not answer: {text}", self.name));
        self.board.problem(&format!("health of {}", self.name), text);
    }

    /// No process is this service's any more.
    fn forget(&self) {
        self.who.set(None);
        self.was_ready.set(None);
    }

    fn now(&self) -> Service {
        self.board.status().services.into_iter().find(|service| service.name == self.name).unwrap_or_default()
    }

    fn to(&self, next: State, reason: &str, change: impl FnOnce(&mut Service)) {
        let before = self.now().state;
        if !before.may_become(next) {
            // Shown as it is nevertheless: what people see must be what happened.
            tracing::error!(
                service = self.name,
                "{} goes from {before} to {next}, which cannot be",
                self.name
            );
        }
        self.board.service(self.name, |service| {
            change(service);
            service.state = next;
        });
        if before != next {
            self.log(before, next, reason);
        }
        self.write();
    }

    fn log(&self, before: State, next: State, reason: &str) {
        let (service, pid) = (self.name, self.who.get().map_or(0, |who| who.pid));
        let (state, state_before) = (next.to_string(), before.to_string());
        let colon = if reason.is_empty() { "" } else { ": " };
        if matches!(next, State::Restarting | State::Failed | State::Blocked) {
            tracing::warn!(
                service,
                state,
                state_before,
                service_pid = pid,
                reason,
                "{service} {next}{colon}{reason}"
            );
        } else {
            tracing::info!(
                service,
                state,
                state_before,
                service_pid = pid,
                reason,
                "{service} {next}{colon}{reason}"
            );
        }
    }

    /// Writes what a later supervisor needs to take over.
    fn write(&self) {
        if self.was_ready.get().is_some() {
            return;
        }
        let record = Record { who: self.who.get(), service: self.now(), ends: self.ends.borrow().clone() };
        if let Err(error) = record.write(&self.run, self.name) {
            tracing::warn!("{} cannot be adopted later: {error}", self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::SERVICES;

    fn ledger(run: &std::path::Path) -> Ledger {
        Ledger::new("nats", true, Board::new(), run.to_owned())
    }

    fn end(ledger: &Ledger, reason: &str, limit: usize) -> Verdict {
        let policy = super::super::declaration::Restart { limit, ..SERVICES[0].restart };
        let lived = Duration::from_secs(1);
        ledger.ended(reason, lived, |ends| ends.count(&policy, lived, 7, 0))
    }

    #[test]
    fn each_change_is_shown_and_written_down() {
        let run = tempfile::tempdir().unwrap();
        let ledger = ledger(run.path());
        let who = Identity { pid: 7, started: 70 };
        ledger.waits();
        ledger.starts(who, false);
        let record = Record::read(run.path(), "nats").unwrap();
        assert_eq!(
            (record.who, record.service.state, record.service.healthy),
            (Some(who), State::Starting, Some(false))
        );
        ledger.ready();
        assert_eq!(Record::read(run.path(), "nats").unwrap().service.state, State::Ready);
        assert!(!ledger.board.status().healthy);
        ledger.healthy(true);
        assert!(ledger.board.status().healthy);
        assert_eq!(end(&ledger, "ended with exit status 1", 9).pause, Duration::ZERO);
        let record = Record::read(run.path(), "nats").unwrap();
        assert_eq!((record.who, record.service.pid, record.service.ends.len()), (None, None, 1));
        assert!(!ledger.board.status().healthy);
        // The next supervisor goes on counting.
        let next = self::ledger(run.path());
        next.inherit(record);
        next.again();
        assert_eq!(next.now().restarts, 1);
        assert_eq!(end(&next, "ended with exit status 1", 9).pause, Duration::from_millis(200));
        ledger.stops("");
        ledger.stopped();
        assert_eq!(Record::read(run.path(), "nats"), None);
    }

    #[test]
    fn an_adopted_one_is_ready_since_it_was() {
        let run = tempfile::tempdir().unwrap();
        let who = Identity { pid: 7, started: 70 };
        let adopted_as = |next: Identity| {
            let first = ledger(run.path());
            first.starts(who, false);
            first.ready();
            first.board.service("nats", |service| service.since_ms = 5);
            first.write();
            let second = ledger(run.path());
            second.inherit(Record::read(run.path(), "nats").unwrap());
            second.waits();
            second.starts(next, next == who);
            // One more supervisor that dies in between must not make the next one ask for readiness again.
            assert_eq!(Record::read(run.path(), "nats").unwrap().was_ready(), next == who);
            second.ready();
            assert_eq!(Record::read(run.path(), "nats").unwrap().service, second.now());
            second.now().since_ms
        };
        assert_eq!(adopted_as(who), 5);
        assert!(adopted_as(Identity { pid: 8, started: 80 }) > 5);
    }

    #[test]
    fn troubles_are_said_once() {
        let run = tempfile::tempdir().unwrap();
        let ledger = ledger(run.path());
        let mut said = Vec::new();
        for at in 0..12 {
            ledger.waits();
            end(&ledger, &format!("ended with exit status {at}"), 4);
            let troubles = ledger.board.status().troubles();
            if troubles != said.last().cloned().unwrap_or_default() {
                said.push(troubles);
            }
        }
        let again = "service nats: ended with exit status 1, again and again";
        let failed = "service nats: ended with exit status 4, too often: tried again every 5 minutes; \
                      look at `bothyctl services nats`; `bothyctl reboot` starts it at once";
        assert_eq!(said, [[again], [failed]]);
        assert_eq!((ledger.now().state, ledger.now().ends.len()), (State::Failed, HISTORY));
        ledger.recovered();
        assert!(ledger.board.status().troubles().is_empty());
    }
}

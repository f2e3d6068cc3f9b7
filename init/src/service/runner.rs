//! One service's life: wait, start, ready, end, again; and its stop.

use std::cell::RefCell;
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustix::rand::{GetRandomFlags, getrandom};
use tokio::sync::{Notify, watch};

use super::backoff::Backoff;
use super::declaration::{Kill, Ready};
use super::ready::Probe;
use super::record::{self, Record};
use super::store::Store;
use super::watch::{Reaped, Watched};
use super::{Declaration, JournalSockets};
use super::{leftover, spawn};
use crate::board::{Board, State};
use crate::cgroup::{self, Group};
use crate::process::{Exit, Identity};

/// Longest wait for a group to be empty after it was killed.
const KILL_LIMIT: Duration = Duration::from_secs(3);

/// Where services live.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// `/run/bothy`: records and notify sockets.
    pub run: PathBuf,
    /// Group above the services' groups; none where groups cannot be made (tests).
    pub groups: Option<&'static str>,
    /// Folder of journald's sockets.
    pub journal: PathBuf,
}

/// Runs one service.
pub(crate) struct Runner {
    /// What it is.
    pub declaration: Declaration,
    /// Where it lives.
    pub place: Place,
    /// Where its state is noted.
    pub board: Board,
    /// Ends of adopted processes.
    pub reaped: Reaped,
    /// Journald's sockets, for the service that gets them. Bound here where an earlier supervisor's went with it.
    pub sockets: RefCell<Option<Rc<JournalSockets>>>,
    /// Descriptors that it gets back at its next start; journald's alone.
    pub stored: Rc<Store>,
    /// Told when it is ready, lives and does not work: it starts again.
    pub unwell: Rc<Notify>,
}

/// How a process's time ended.
enum Turn {
    Ended(String),
    Asked,
}

impl Runner {
    /// Runs it until `stop` says otherwise; then stops it and ends.
    pub(crate) async fn run(self, mut stop: watch::Receiver<bool>) {
        let name = self.declaration.name;
        let mut backoff = Backoff::default();
        let mut adopted = self.adopt().await;
        self.board.service(name, |service| service.state = State::Waiting);
        loop {
            if adopted.is_none() {
                tokio::select! {
                    () = self.wait_for_others() => {}
                    () = asked(&mut stop) => break,
                }
            }
            let started = Instant::now();
            let error = match self.live(adopted.take(), &mut stop).await {
                Turn::Asked => break,
                Turn::Ended(error) => error,
            };
            tracing::warn!("{name} {error}");
            self.board.service(name, |service| {
                (service.state, service.pid, service.last_error) = (State::Failed, None, Some(error));
            });
            let mut random = [0];
            let _ = getrandom(&mut random, GetRandomFlags::empty());
            let [random] = random;
            tokio::select! {
                () = tokio::time::sleep(backoff.pause(started.elapsed(), random)) => {}
                () = asked(&mut stop) => break,
            }
            self.board.service(name, |service| service.restarts += 1);
        }
        record::remove(&self.place.run, name);
        self.board.service(name, |service| (service.state, service.pid) = (State::Stopped, None));
    }

    /// Waits for what must be ready before, as long as it matters.
    async fn wait_for_others(&self) {
        let ready = self.board.until(|s| self.declaration.after.iter().all(|name| s.is_ready(name)));
        match self.declaration.after_limit {
            Some(limit) => {
                let _ = tokio::time::timeout(limit, ready).await;
            }
            None => ready.await,
        }
    }

    /// One process from start to end.
    async fn live(&self, adopted: Option<(Watched, bool)>, stop: &mut watch::Receiver<bool>) -> Turn {
        let name = self.declaration.name;
        let socket = self.place.run.join("notify").join(name);
        let probe = match Probe::new(self.declaration.ready, &socket, self.stored.clone()) {
            Ok(probe) => probe,
            Err(error) => return Turn::Ended(format!("has no notify socket: {error}")),
        };
        let (process, was_ready) = match adopted {
            Some(found) => found,
            None => match self.start(&probe) {
                Ok(process) => (process, false),
                Err(error) => {
                    self.end_leftovers().await;
                    return Turn::Ended(format!("did not start: {error}"));
                }
            },
        };
        self.board.service(name, |service| {
            (service.state, service.pid) = (State::Starting, Some(process.who.pid));
        });
        self.note(process.who, was_ready);
        let ready = async {
            if !was_ready {
                tokio::time::timeout(self.declaration.start_limit, probe.wait()).await
            } else {
                Ok(())
            }
        };
        tokio::select! {
            exit = process.wait() => return self.ended(exit).await,
            () = asked(stop) => {
                self.stop(&process).await;
                return Turn::Asked;
            }
            in_time = ready => if in_time.is_err() {
                self.stop(&process).await;
                return Turn::Ended(format!("was not ready within {} s", self.declaration.start_limit.as_secs()));
            },
        }
        self.board.service(name, |service| service.state = State::Ready);
        self.note(process.who, true);
        tokio::select! {
            exit = process.wait() => self.ended(exit).await,
            () = asked(stop) => {
                self.stop(&process).await;
                Turn::Asked
            }
            () = self.unwell.notified() => {
                self.stop(&process).await;
                Turn::Ended("ran and did not answer".to_owned())
            }
            () = probe.drain() => Turn::Asked,
        }
    }

    /// The group, once it is made.
    fn group(&self) -> Option<Group> {
        self.place.groups.map(|above| Group::at(&format!("{above}/{}", self.declaration.name)))
    }

    fn start(&self, probe: &Probe) -> Result<Watched, String> {
        let group = self.group();
        if let Some(group) = &group {
            group.make().map_err(|error| error.to_string())?;
        }
        let mut held = self.sockets.borrow_mut();
        if self.declaration.journal_sockets && held.is_none() {
            let bound = JournalSockets::bind(&self.place.journal).map_err(|error| error.to_string())?;
            *held = Some(Rc::new(bound));
        }
        let mut sockets: Vec<RawFd> = held.iter().flat_map(|sockets| sockets.numbers()).collect();
        if self.declaration.journal_sockets {
            sockets.extend(self.stored.numbers());
        }
        let who =
            spawn::spawn(&self.declaration, group.as_ref(), probe.socket(), &sockets, &self.place.journal)
                .map_err(|error| error.to_string())?;
        Watched::new(who, &self.reaped).map_err(|error| {
            // Our child, unreaped: the pid is its own. Nobody would see it end.
            if let Some(pid) = Pid::from_raw(who.pid) {
                let _ = kill_process(pid, Signal::KILL);
            }
            format!("watch process {}: {error}", who.pid)
        })
    }

    /// Cleans up behind a process that ended by itself.
    async fn ended(&self, exit: Exit) -> Turn {
        self.clear().await;
        Turn::Ended(format!("ended with {exit}"))
    }

    /// SIGTERM, a limit, SIGKILL; then the rest of its group.
    async fn stop(&self, process: &Watched) {
        self.board.service(self.declaration.name, |service| service.state = State::Stopping);
        process.signal(Signal::TERM);
        let ended = tokio::time::timeout(self.declaration.stop_limit, process.wait()).await;
        if ended.is_err() {
            tracing::warn!("{} did not end in time and is killed", self.declaration.name);
            process.signal(Signal::KILL);
            let _ = tokio::time::timeout(KILL_LIMIT, process.wait()).await;
        }
        self.clear().await;
    }

    /// Ends what the main process left behind, where that is right.
    async fn clear(&self) {
        if self.declaration.kill == Kill::Group {
            self.end_leftovers().await;
        }
    }

    /// Ends what is in the group though no process is watched.
    async fn end_leftovers(&self) {
        if let Some(group) = self.group().filter(Group::is_populated) {
            let program = self.declaration.command.first().copied().unwrap_or_default();
            leftover::end(&group, self.declaration.kill, program.as_ref()).await;
        }
    }

    /// Writes what a later supervisor needs to take over.
    fn note(&self, who: Identity, ready: bool) {
        let name = self.declaration.name;
        let restarts = self.board.status().services.iter().find(|s| s.name == name).map(|s| s.restarts);
        let record = Record { who, ready, restarts: restarts.unwrap_or(0) };
        if let Err(error) = record.write(&self.place.run, name) {
            tracing::warn!("{name} cannot be adopted later: {error}");
        }
    }

    /// Takes over what an earlier supervisor started: same pid, same start time, in its group. Anything else in the
    /// group is nobody's and ends.
    async fn adopt(&self) -> Option<(Watched, bool)> {
        let name = self.declaration.name;
        let found = Record::read(&self.place.run, name).and_then(|record| {
            let in_group = self.place.groups.is_none_or(|above| {
                cgroup::of_process(record.who.pid).is_some_and(|at| at == format!("{above}/{name}"))
            });
            let process = Watched::new(record.who, &self.reaped).ok().filter(|_| in_group)?;
            Some((process, record))
        });
        let Some((process, record)) = found else {
            self.end_leftovers().await;
            return None;
        };
        self.board.service(name, |service| service.restarts = record.restarts);
        if !record.ready && self.declaration.ready == Ready::Notify {
            // It says so once, and may have said it to a supervisor that was no more: this one would wait in vain.
            tracing::info!("{name} starts again: nobody knows whether process {} is ready", record.who.pid);
            self.stop(&process).await;
            return None;
        }
        tracing::info!("{name} goes on as process {}", record.who.pid);
        Some((process, record.ready))
    }
}

/// Waits until the word to stop is given; a sender that is gone gave it.
async fn asked(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

#[cfg(test)]
mod tests;

//! One service's life: wait, start, ready, end, again; and its stop.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustix::rand::{GetRandomFlags, getrandom};
use tokio::sync::watch;

use super::declaration::Kill;
use super::ledger::Ledger;
use super::probe::Asked;
use super::ready::Readiness;
use super::record::Record;
use super::store::Store;
use super::watch::{Reaped, Watched};
use super::{Declaration, health, leftover, restart, spawn};
use crate::board::Board;
use crate::cgroup::{self, Group};
use crate::process::Exit;

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
    /// What outlives its processes: sockets, and what it wants back.
    pub store: Store,
}

/// A process, new or one that an earlier supervisor started.
struct Running {
    process: Watched,
    readiness: Readiness,
    ready: bool,
}

/// How a process's time ended.
enum Turn {
    Ended(String),
    Asked,
}

impl Runner {
    /// Runs it until `stop` says otherwise; then stops it and ends.
    pub(crate) async fn run(self, mut stop: watch::Receiver<bool>) {
        let declaration = &self.declaration;
        let checked = declaration.health.is_some();
        let ledger = Ledger::new(declaration.name, checked, self.board.clone(), self.place.run.clone());
        let mut adopted = self.adopt(&ledger).await;
        loop {
            if adopted.is_none() {
                tokio::select! {
                    () = self.wait_for_others(&ledger) => {}
                    () = asked(&mut stop) => break,
                }
            }
            // An adopted one has lived before.
            let age = adopted.as_ref().map_or(Duration::ZERO, |running| running.process.who.age());
            let started = Instant::now();
            let reason = match self.live(&ledger, adopted.take(), &mut stop).await {
                Turn::Asked => break,
                Turn::Ended(reason) => reason,
            };
            let lived = age + started.elapsed();
            let mut random = [0];
            let _ = getrandom(&mut random, GetRandomFlags::empty());
            let [random] = random;
            let verdict = ledger.ended(&reason, lived, |ends| {
                ends.count(&declaration.restart, lived, restart::uptime(), random)
            });
            tokio::select! {
                () = tokio::time::sleep(verdict.pause) => {}
                () = asked(&mut stop) => break,
            }
            ledger.again();
        }
        self.store.forget_all(declaration.name);
        ledger.stopped();
    }

    /// Waits for those that it needs, as long as it takes; and for a while for those that it wants.
    async fn wait_for_others(&self, ledger: &Ledger) {
        let (wants, limit) = self.declaration.wants;
        let wanted = async {
            if !wants.is_empty() {
                let ready = self.board.until(|s| wants.iter().all(|name| s.is_ready(name)));
                let _ = tokio::time::timeout(limit, ready).await;
            }
        };
        let needed = async {
            let needs = self.declaration.needs;
            let mut changes = self.board.changes();
            loop {
                changes.borrow_and_update();
                let status = self.board.status();
                if needs.iter().all(|name| status.is_ready(name)) {
                    return;
                }
                match needs.iter().find(|name| status.is_lost(name)) {
                    Some(lost) => ledger.blocked(lost),
                    None => ledger.waits(),
                }
                // The sender lives as long as the board.
                let _ = changes.changed().await;
            }
        };
        tokio::join!(wanted, needed);
    }

    /// One process from start to end.
    async fn live(
        &self,
        ledger: &Ledger,
        adopted: Option<Running>,
        stop: &mut watch::Receiver<bool>,
    ) -> Turn {
        let declaration = &self.declaration;
        let is_adopted = adopted.is_some();
        let running = match adopted {
            Some(running) => running,
            None => match self.start() {
                Ok(running) => running,
                Err(error) => {
                    self.end_leftovers().await;
                    return Turn::Ended(format!("did not start: {error}"));
                }
            },
        };
        let Running { process, readiness, ready: was_ready } = running;
        let asks =
            Asked { declaration, group: self.group(), journal: &self.place.journal, reaped: &self.reaped };
        ledger.starts(process.who, is_adopted);
        let says = |text: &str| ledger.notice(text);
        if !was_ready {
            let limit = declaration.start_limit;
            tokio::select! {
                exit = process.wait() => return self.ended(exit).await,
                () = asked(stop) => {
                    self.stop(ledger, &process, "").await;
                    return Turn::Asked;
                }
                in_time = tokio::time::timeout(limit, readiness.wait(&asks, &says)) => if in_time.is_err() {
                    let why = format!("was not ready within {} s", limit.as_secs());
                    self.stop(ledger, &process, &why).await;
                    return Turn::Ended(why);
                },
            }
        }
        ledger.ready();
        let unwell = async {
            match &declaration.health {
                Some(health) => health::watch(health, &asks, ledger).await,
                None => std::future::pending().await,
            }
        };
        let recovers = async {
            tokio::time::sleep(declaration.restart.stable).await;
            ledger.recovered();
            std::future::pending::<()>().await;
        };
        tokio::select! {
            exit = process.wait() => self.ended(exit).await,
            () = asked(stop) => {
                self.stop(ledger, &process, "").await;
                Turn::Asked
            }
            why = unwell => {
                self.stop(ledger, &process, &why).await;
                Turn::Ended(why)
            }
            () = async { tokio::join!(readiness.drain(&says), recovers); } => Turn::Asked,
        }
    }

    /// The group, once it is made.
    fn group(&self) -> Option<Group> {
        self.place.groups.map(|above| Group::at(&format!("{above}/{}", self.declaration.name)))
    }

    /// Where its word of readiness goes.
    fn notify_path(&self) -> PathBuf {
        self.place.run.join("notify").join(self.declaration.name)
    }

    fn start(&self) -> Result<Running, String> {
        let declaration = &self.declaration;
        let name = declaration.name;
        let readiness = Readiness::fresh(name, declaration.ready, &self.notify_path(), self.store.clone());
        let readiness = readiness.map_err(|error| format!("make its notify socket: {error}"))?;
        let group = self.group();
        if let Some(group) = &group {
            group.make().map_err(|error| error.to_string())?;
            let unknown = declaration.limits.apply(group, cgroup::memory_total());
            if !unknown.is_empty() {
                tracing::warn!("{name} runs without {}: the kernel does not take them", unknown.join(", "));
            }
        }
        self.store.bind(name, declaration.sockets).map_err(|error| error.to_string())?;
        let handed = self.store.handed(name);
        let who = spawn::spawn(declaration, group.as_ref(), readiness.socket(), &handed, &self.place.journal)
            .map_err(|error| error.to_string())?;
        let process = Watched::new(who, &self.reaped).map_err(|error| {
            // Our child, unreaped: the pid is its own. Nobody would see it end.
            if let Some(pid) = Pid::from_raw(who.pid) {
                let _ = kill_process(pid, Signal::KILL);
            }
            format!("watch process {}: {error}", who.pid)
        })?;
        Ok(Running { process, readiness, ready: false })
    }

    /// Cleans up behind a process that ended by itself.
    async fn ended(&self, exit: Exit) -> Turn {
        self.clear().await;
        Turn::Ended(format!("ended with {exit}"))
    }

    /// SIGTERM, a limit, SIGKILL; then the rest of its group.
    async fn stop(&self, ledger: &Ledger, process: &Watched, why: &str) {
        ledger.stops(why);
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

    /// Takes over what an earlier supervisor started: same pid, same start time, in its group. Anything else in the
    /// group is nobody's and ends.
    async fn adopt(&self, ledger: &Ledger) -> Option<Running> {
        let name = self.declaration.name;
        let Some(record) = Record::read(&self.place.run, name) else {
            ledger.waits();
            self.end_leftovers().await;
            return None;
        };
        let (who, was_ready) = (record.who, record.was_ready());
        // Its history goes on, whether it lives or not.
        ledger.inherit(record);
        let process = who.and_then(|who| {
            let in_group = self.place.groups.is_none_or(|above| {
                cgroup::of_process(who.pid).is_some_and(|at| at == format!("{above}/{name}"))
            });
            Watched::new(who, &self.reaped).ok().filter(|_| in_group)
        });
        let Some(process) = process else {
            self.end_leftovers().await;
            return None;
        };
        let pid = process.who.pid;
        let ready = self.declaration.ready;
        let readiness = match Readiness::adopted(name, ready, &self.notify_path(), self.store.clone()) {
            Some(readiness) => Ok(readiness),
            // Its word has been heard; what else it says is lost.
            None if was_ready => Readiness::fresh(name, ready, &self.notify_path(), self.store.clone()),
            // It says so once, and may have said it to a supervisor that was no more.
            None => Err(std::io::Error::other("nobody knows whether it is ready")),
        };
        match readiness {
            Ok(readiness) => {
                tracing::info!("{name} goes on as process {pid}");
                Some(Running { process, readiness, ready: was_ready })
            }
            Err(error) => {
                tracing::warn!("{name} starts again instead of process {pid}: {error}");
                ledger.starts(process.who, true);
                self.stop(ledger, &process, "").await;
                ledger.waits();
                None
            }
        }
    }
}

/// Waits until the word to stop is given; a sender that is gone gave it.
async fn asked(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

#[cfg(test)]
mod tests;

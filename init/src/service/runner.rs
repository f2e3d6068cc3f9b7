//! One service's life: wait, start, ready, end, again; and its stop.

use std::cell::RefCell;
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustix::rand::{GetRandomFlags, getrandom};
use tokio::sync::watch;

use super::backoff::Backoff;
use super::declaration::{Kill, Ready};
use super::ready::Probe;
use super::record::{self, Record};
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
        let probe = match Probe::new(self.declaration.ready, &socket) {
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
        let sockets: Vec<RawFd> = held.iter().flat_map(|sockets| sockets.numbers()).collect();
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
mod tests {
    use super::super::declaration::Ready;
    use super::*;

    const SHORT: Duration = Duration::from_secs(20);

    struct Scene {
        folder: tempfile::TempDir,
        board: Board,
        stop: watch::Sender<bool>,
        reaped: Reaped,
    }

    impl Scene {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            Self { folder, board: Board::new(), stop: watch::Sender::new(false), reaped: Reaped::default() }
        }

        fn runner(&self, name: &'static str, command: &'static [&'static str], ready: Ready) -> Runner {
            let declaration = Declaration {
                name,
                command,
                ready,
                stop_limit: Duration::from_millis(300),
                start_limit: Duration::from_secs(10),
                oom_score: 0,
                files: (256, 256),
                ..super::super::SERVICES[3].clone()
            };
            let run = self.folder.path().to_owned();
            let place = Place { run: run.clone(), groups: None, journal: run.join("journal") };
            let (board, reaped) = (self.board.clone(), self.reaped.clone());
            Runner { declaration, place, board, reaped, sockets: RefCell::default() }
        }

        fn of(&self, name: &str) -> crate::board::Service {
            self.board.status().services.into_iter().find(|s| s.name == name).unwrap_or_default()
        }

        async fn until(&self, name: &str, state: State) {
            let seen = self.board.until(|s| s.services.iter().any(|s| s.name == name && s.state == state));
            tokio::time::timeout(SHORT, seen).await.unwrap_or_else(|_| panic!("{name}: {:?}", self.of(name)));
        }
    }

    fn local(scene: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, scene);
    }

    const TCP_COMMAND: &[&str] = &["/bin/sleep", "600"];

    fn port() -> (std::net::TcpListener, Ready) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        (listener, Ready::Tcp(port))
    }

    #[test]
    fn starts_is_ready_restarts_and_stops() {
        local(async {
            let scene = Scene::new();
            let (_listener, ready) = port();
            let runner = scene.runner("one", TCP_COMMAND, ready);
            let task = tokio::task::spawn_local(runner.run(scene.stop.subscribe()));
            scene.until("one", State::Ready).await;
            let first = scene.of("one").pid.unwrap();
            rustix::process::kill_process(rustix::process::Pid::from_raw(first).unwrap(), Signal::KILL)
                .unwrap();
            let again = scene.board.until(|s| s.is_ready("one") && s.services[0].restarts == 1);
            tokio::time::timeout(SHORT, again).await.unwrap();
            let second = scene.of("one");
            assert_ne!(second.pid, Some(first));
            assert_eq!(second.last_error.as_deref(), Some("ended with signal 9 (killed)"));
            scene.stop.send_replace(true);
            task.await.unwrap();
            assert_eq!(scene.of("one").state, State::Stopped);
            assert!(Identity::of(second.pid.unwrap()).is_none());
            assert!(!record::is_adoptable(scene.folder.path(), "one"));
            assert_eq!(Record::read(scene.folder.path(), "one"), None);
        });
    }

    #[test]
    fn kills_what_does_not_listen() {
        local(async {
            let scene = Scene::new();
            let (_listener, ready) = port();
            let command = &["/bin/sh", "-c", "trap '' TERM; while :; do sleep 0.05; done"];
            let runner = scene.runner("deaf", command, ready);
            let task = tokio::task::spawn_local(runner.run(scene.stop.subscribe()));
            scene.until("deaf", State::Ready).await;
            // The shell needs a moment to set its trap.
            tokio::time::sleep(Duration::from_millis(200)).await;
            scene.stop.send_replace(true);
            tokio::time::timeout(SHORT, task).await.unwrap().unwrap();
            assert_eq!(scene.of("deaf").state, State::Stopped);
        });
    }

    #[test]
    fn says_why_it_cannot_start() {
        local(async {
            let scene = Scene::new();
            let runner = scene.runner("none", &["/nonexistent/program"], Ready::Notify);
            let _task = tokio::task::spawn_local(runner.run(scene.stop.subscribe()));
            scene.until("none", State::Failed).await;
            let error = scene.of("none").last_error.unwrap();
            assert!(error.contains("/nonexistent/program") && error.contains("No such file"), "{error}");
        });
    }

    #[test]
    fn waits_for_what_it_needs() {
        local(async {
            let scene = Scene::new();
            let (_listener, ready) = port();
            let mut runner = scene.runner("second", TCP_COMMAND, ready);
            runner.declaration.after = &["first"];
            let task = tokio::task::spawn_local(runner.run(scene.stop.subscribe()));
            tokio::time::sleep(Duration::from_millis(100)).await;
            assert_eq!(scene.of("second").state, State::Waiting);
            scene.board.service("first", |service| service.state = State::Ready);
            scene.until("second", State::Ready).await;
            // One that can do without waits for a while only.
            let mut runner = scene.runner("third", TCP_COMMAND, ready);
            (runner.declaration.after, runner.declaration.after_limit) =
                (&["never"], Some(Duration::from_millis(50)));
            let third = tokio::task::spawn_local(runner.run(scene.stop.subscribe()));
            scene.until("third", State::Ready).await;
            scene.stop.send_replace(true);
            task.await.unwrap();
            third.await.unwrap();
        });
    }

    #[test]
    fn a_new_supervisor_adopts() {
        local(async {
            let scene = Scene::new();
            let (_listener, ready) = port();
            let runner = scene.runner("kept", TCP_COMMAND, ready);
            let task = tokio::task::spawn_local(runner.run(scene.stop.subscribe()));
            scene.until("kept", State::Ready).await;
            let pid = scene.of("kept").pid;
            // The supervisor dies: its task with it, the process stays.
            task.abort();
            let _ = task.await;
            let board = Board::new();
            let second = Scene { board, ..scene };
            let runner = second.runner("kept", TCP_COMMAND, ready);
            let task = tokio::task::spawn_local(runner.run(second.stop.subscribe()));
            second.until("kept", State::Ready).await;
            assert_eq!(second.of("kept").pid, pid);
            second.stop.send_replace(true);
            task.await.unwrap();
            assert!(Identity::of(pid.unwrap()).is_none());
        });
    }

    #[test]
    fn a_word_that_a_dead_supervisor_took_is_not_waited_for() {
        local(async {
            let scene = Scene::new();
            let command = &["/bin/sleep", "600"];
            let task = tokio::task::spawn_local(
                scene.runner("mute", command, Ready::Notify).run(scene.stop.subscribe()),
            );
            scene.until("mute", State::Starting).await;
            let pid = scene.of("mute").pid;
            task.abort();
            let _ = task.await;
            let second = Scene { board: Board::new(), ..scene };
            let runner = second.runner("mute", command, Ready::Notify);
            let task = tokio::task::spawn_local(runner.run(second.stop.subscribe()));
            second.until("mute", State::Starting).await;
            assert_ne!(second.of("mute").pid, pid);
            assert!(Identity::of(pid.unwrap()).is_none());
            second.stop.send_replace(true);
            task.await.unwrap();
        });
    }
}

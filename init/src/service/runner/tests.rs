//! Services that are really started: no groups, and the programs that every machine has.

use super::super::declaration::{Health, Probe, Ready, Resource, Restart, Rights, Sandbox};
use super::super::record;
use std::path::Path;

use super::*;
use crate::board::State;
use crate::process::Identity;

const SHORT: Duration = Duration::from_secs(20);

struct Scene {
    folder: tempfile::TempDir,
    board: Board,
    stop: watch::Sender<bool>,
    reaped: Reaped,
    store: Store,
}

impl Scene {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (board, stop) = (Board::new(), watch::Sender::new(false));
        Self { folder, board, stop, reaped: Reaped::default(), store: Store::default() }
    }

    fn runner(&self, name: &'static str, command: &'static [&'static str], ready: Ready) -> Runner {
        let declaration = Declaration {
            name,
            command,
            ready,
            stop_limit: Duration::from_millis(300),
            start_limit: Duration::from_secs(10),
            oom_score: 0,
            rlimits: &[(Resource::Files, 256, 256), (Resource::Core, 0, 0)],
            rights: Rights::Any,
            sandbox: Sandbox::None,
            ..crate::service::SERVICES[3].clone()
        };
        let run = self.folder.path().to_owned();
        let place = Place { run: run.clone(), groups: None, journal: run.join("journal") };
        let (board, reaped) = (self.board.clone(), self.reaped.clone());
        Runner { declaration, place, board, reaped, store: self.store.clone() }
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
    (listener, Ready::Probe(Probe::Tcp(port)))
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
        rustix::process::kill_process(rustix::process::Pid::from_raw(first).unwrap(), Signal::KILL).unwrap();
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
fn what_runs_and_does_not_answer_starts_again() {
    local(async {
        let scene = Scene::new();
        let (_listener, ready) = port();
        let (door, Ready::Probe(probe)) = port() else { unreachable!() };
        let ms = Duration::from_millis;
        let (period, limit, said_after, hung_after) = (ms(20), SHORT, ms(50), ms(250));
        let mut runner = scene.runner("hung", TCP_COMMAND, ready);
        runner.declaration.health =
            Some(Health { probe, period, limit, failures: 2, said_after, hung_after });
        let task = tokio::task::spawn_local(runner.run(scene.stop.subscribe()));
        let healthy = scene.board.until(|status| status.healthy);
        tokio::time::timeout(SHORT, healthy).await.unwrap();
        let first = scene.of("hung").pid;
        drop(door);
        let said = scene.board.until(|status| !status.healthy && status.troubles().len() == 1);
        tokio::time::timeout(SHORT, said).await.unwrap();
        assert_eq!((scene.of("hung").pid, scene.of("hung").state), (first, State::Ready));
        let again = scene.board.until(|s| s.is_ready("hung") && s.services[0].restarts == 1);
        tokio::time::timeout(SHORT, again).await.unwrap();
        assert_ne!(scene.of("hung").pid, first);
        let error = scene.of("hung").last_error.unwrap();
        assert!(error.starts_with("ran and did not answer (port "), "{error}");
        scene.stop.send_replace(true);
        task.await.unwrap();
    });
}

#[test]
fn it_is_limited_as_declared() {
    local(async {
        let scene = Scene::new();
        let (_listener, ready) = port();
        let runner = scene.runner("small", TCP_COMMAND, ready);
        let task = tokio::task::spawn_local(runner.run(scene.stop.subscribe()));
        scene.until("small", State::Ready).await;
        let pid = scene.of("small").pid.unwrap();
        let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
        let line = |name: &str| {
            let line = limits.lines().find(|line| line.starts_with(name)).unwrap();
            line[name.len()..].split_whitespace().take(2).collect::<Vec<_>>().join(" ")
        };
        assert_eq!((line("Max open files"), line("Max core file size")), ("256 256".into(), "0 0".into()));
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        assert!(status.contains("SigBlk:\t0000000000000000"), "{status}");
        scene.stop.send_replace(true);
        task.await.unwrap();
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
        scene.until("none", State::Restarting).await;
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
        runner.declaration.needs = &["first"];
        let task = tokio::task::spawn_local(runner.run(scene.stop.subscribe()));
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(scene.of("second").state, State::Waiting);
        // One that is lost for good is said, and keeps it from starting; its return lets it.
        scene.board.service("first", |service| service.state = State::Failed);
        scene.until("second", State::Blocked).await;
        scene.board.service("first", |service| service.state = State::Ready);
        scene.until("second", State::Ready).await;
        // One that can do without waits for a while only.
        let mut runner = scene.runner("third", TCP_COMMAND, ready);
        runner.declaration.wants = (&["never"], Duration::from_millis(50));
        let third = tokio::task::spawn_local(runner.run(scene.stop.subscribe()));
        scene.until("third", State::Ready).await;
        scene.stop.send_replace(true);
        task.await.unwrap();
        third.await.unwrap();
    });
}

/// What a supervisor leaves that dies: its task with it, the processes stay.
async fn die(task: tokio::task::JoinHandle<()>) {
    task.abort();
    let _ = task.await;
}

#[test]
fn a_new_supervisor_adopts_with_readiness_and_history() {
    local(async {
        let scene = Scene::new();
        let (_listener, ready) = port();
        let runner = scene.runner("kept", TCP_COMMAND, ready);
        let task = tokio::task::spawn_local(runner.run(scene.stop.subscribe()));
        for _ in 0..2 {
            scene.until("kept", State::Ready).await;
            let pid = scene.of("kept").pid.unwrap();
            rustix::process::kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
            let other = scene.board.until(|s| s.is_ready("kept") && s.services[0].pid != Some(pid));
            tokio::time::timeout(SHORT, other).await.unwrap();
        }
        let before = scene.of("kept");
        die(task).await;
        let second = Scene { board: Board::new(), ..scene };
        let runner = second.runner("kept", TCP_COMMAND, ready);
        let task = tokio::task::spawn_local(runner.run(second.stop.subscribe()));
        second.until("kept", State::Ready).await;
        let after = second.of("kept");
        assert_eq!((after.pid, after.restarts), (before.pid, 2));
        assert_eq!(after.last_error.as_deref(), Some("ended with signal 9 (killed)"));
        let record = Record::read(second.folder.path(), "kept").unwrap();
        assert_eq!((record.service.ends.len(), record.was_ready()), (2, true));
        second.stop.send_replace(true);
        task.await.unwrap();
        assert!(Identity::of(before.pid.unwrap()).is_none());
    });
}

#[test]
fn a_word_said_to_a_dead_supervisor_reaches_the_next() {
    local(async {
        let scene = Scene::new();
        let command = &["/bin/sleep", "600"];
        let run = |scene: &Scene| {
            let runner = scene.runner("slow", command, Ready::Notify);
            tokio::task::spawn_local(runner.run(scene.stop.subscribe()))
        };
        let task = run(&scene);
        scene.until("slow", State::Starting).await;
        let pid = scene.of("slow").pid;
        die(task).await;
        let socket = scene.folder.path().join("notify/slow");
        std::os::unix::net::UnixDatagram::unbound().unwrap().send_to(b"READY=1", socket).unwrap();
        let second = Scene { board: Board::new(), ..scene };
        let task = run(&second);
        second.until("slow", State::Ready).await;
        assert_eq!((second.of("slow").pid, second.of("slow").restarts), (pid, 0));
        // Nobody else has its socket: what it says was heard by nobody, and it starts again.
        let record = Record::read(second.folder.path(), "slow").unwrap();
        die(task).await;
        let service = crate::board::Service { state: State::Starting, ..record.service };
        Record { service, ..record }.write(second.folder.path(), "slow").unwrap();
        let third = Scene { board: Board::new(), store: Store::default(), ..second };
        let task = run(&third);
        third.until("slow", State::Starting).await;
        assert_ne!(third.of("slow").pid, pid);
        assert!(Identity::of(pid.unwrap()).is_none());
        third.stop.send_replace(true);
        task.await.unwrap();
    });
}

#[test]
fn one_that_ends_too_often_is_tried_rarely() {
    local(async {
        let scene = Scene::new();
        let mut runner = scene.runner("frail", &["/bin/false"], Ready::Notify);
        let (first, slow) = (Duration::from_millis(5), Duration::from_secs(300));
        runner.declaration.restart = Restart { first, slow, limit: 3, ..runner.declaration.restart };
        let task = tokio::task::spawn_local(runner.run(scene.stop.subscribe()));
        scene.until("frail", State::Failed).await;
        let frail = scene.of("frail");
        assert_eq!((frail.restarts, frail.ends.len()), (3, 4));
        assert!(frail.ends.iter().all(|end| end.reason == "ended with exit status 1"), "{frail:?}");
        // Five, and up to a quarter more, so that many machines do not try at once.
        let troubles = scene.board.status().troubles();
        let told =
            |minutes| format!("ended with exit status 1, too often: tried again every {minutes} minutes; ");
        assert!([5, 6].into_iter().any(|minutes| troubles[0].contains(&told(minutes))), "{troubles:?}");
        scene.stop.send_replace(true);
        tokio::time::timeout(SHORT, task).await.unwrap().unwrap();
    });
}

mod as_root;

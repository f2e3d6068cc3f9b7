//! Services that are really started: no groups, and the programs that every machine has.

use super::super::declaration::Rights;
use super::*;

const SHORT: Duration = Duration::from_secs(20);

struct Scene {
    folder: tempfile::TempDir,
    board: Board,
    stop: watch::Sender<bool>,
    reaped: Reaped,
    unwell: Rc<Notify>,
}

impl Scene {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (board, stop) = (Board::new(), watch::Sender::new(false));
        Self { folder, board, stop, reaped: Reaped::default(), unwell: Rc::default() }
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
            ..crate::service::SERVICES[3].clone()
        };
        let run = self.folder.path().to_owned();
        let place = Place { run: run.clone(), groups: None, journal: run.join("journal") };
        let (board, reaped) = (self.board.clone(), self.reaped.clone());
        let (sockets, stored, unwell) = (RefCell::default(), Rc::default(), self.unwell.clone());
        Runner { declaration, place, board, reaped, sockets, stored, unwell }
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
        let runner = scene.runner("hung", TCP_COMMAND, ready);
        let task = tokio::task::spawn_local(runner.run(scene.stop.subscribe()));
        scene.until("hung", State::Ready).await;
        let first = scene.of("hung").pid;
        scene.unwell.notify_waiters();
        let again = scene.board.until(|s| s.is_ready("hung") && s.services[0].restarts == 1);
        tokio::time::timeout(SHORT, again).await.unwrap();
        assert_ne!(scene.of("hung").pid, first);
        assert_eq!(scene.of("hung").last_error.as_deref(), Some("ran and did not answer"));
        scene.stop.send_replace(true);
        task.await.unwrap();
    });
}

#[test]
fn a_service_gains_no_rights() {
    local(async {
        let scene = Scene::new();
        let (_listener, ready) = port();
        let mut runner = scene.runner("meek", TCP_COMMAND, ready);
        runner.declaration.rights = Rights::None;
        let task = tokio::task::spawn_local(runner.run(scene.stop.subscribe()));
        scene.until("meek", State::Ready).await;
        let path = format!("/proc/{}/status", scene.of("meek").pid.unwrap());
        let status = std::fs::read_to_string(path).unwrap();
        assert!(status.contains("NoNewPrivs:\t1"), "{status}");
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

//! The watchdog as a process: what callers, the gateway and the container runtime see of it.

mod connections;
mod cost;
mod files;
mod forked;
mod http;
mod life;
mod server;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long anything may take before a test gives up.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running watchdog, with a folder of its own.
struct Watchdog {
    child: Child,
    address: SocketAddr,
    metrics: SocketAddr,
    folder: tempfile::TempDir,
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port that was free a moment ago.
fn port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Waits for something.
fn until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Starts one and waits until it listens.
fn start(environment: &[(&str, &str)]) -> Watchdog {
    let watchdog = spawn(environment);
    until("the watchdog listens", || TcpStream::connect(watchdog.address).is_ok());
    watchdog
}

/// Starts one whose log is kept in a file.
fn spawn(environment: &[(&str, &str)]) -> Watchdog {
    let folder = tempfile::tempdir().unwrap();
    let log = std::fs::File::create(folder.path().join("log")).unwrap();
    spawn_in(folder, environment, log.into())
}

fn spawn_in(folder: tempfile::TempDir, environment: &[(&str, &str)], stderr: Stdio) -> Watchdog {
    let (requests, metrics) = (port(), port());
    let child = Command::new(env!("CARGO_BIN_EXE_watchdog"))
        .env("port", requests.to_string())
        .env("metrics_port", metrics.to_string())
        .env("TMPDIR", folder.path())
        .envs(environment.iter().copied())
        .stdout(std::fs::File::create(folder.path().join("out")).unwrap())
        .stderr(stderr)
        .spawn()
        .unwrap();
    let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
    Watchdog { child, address: address(requests), metrics: address(metrics), folder }
}

/// Sends a request; `head` is what stands before the version, and more headers may follow a line break in it.
fn send(address: SocketAddr, head: &str, body: &str) -> TcpStream {
    let (line, headers) = head.split_once('\n').unwrap_or((head, ""));
    let headers: String = headers.lines().map(|header| format!("{header}\r\n")).collect();
    let length = body.len();
    let mut stream = connect(address);
    let text = format!(
        "{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}Content-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(text.as_bytes()).unwrap();
    stream
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn answer(mut stream: TcpStream) -> String {
    let mut bytes = Vec::new();
    // An answer that is broken off ends with what came.
    let _ = stream.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

fn ask(address: SocketAddr, head: &str, body: &str) -> String {
    answer(send(address, head, body))
}

/// Reads until these bytes have come; gives all that came.
fn read_until(stream: &mut impl Read, wanted: &str) -> String {
    let mut seen = Vec::new();
    while !seen.windows(wanted.len()).any(|window| window == wanted.as_bytes()) {
        let mut buffer = [0; 512];
        let n = stream.read(&mut buffer).unwrap();
        assert!(n > 0, "it ended before {wanted:?}: {:?}", String::from_utf8_lossy(&seen));
        seen.extend_from_slice(&buffer[..n]);
    }
    String::from_utf8(seen).unwrap()
}

/// What stands behind an answer's head.
fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer:?}")).1
}

impl Watchdog {
    fn ask(&self, head: &str, body: &str) -> String {
        ask(self.address, head, body)
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
    }

    /// Its exit status, and how long it took to end.
    fn ended(&mut self) -> (Option<i32>, Duration) {
        let start = Instant::now();
        (self.child.wait().unwrap().code(), start.elapsed())
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    /// Waits until the log has a text.
    fn logged(&self, text: &str) {
        let start = Instant::now();
        while !self.log().contains(text) {
            assert!(start.elapsed() < PATIENCE, "not in the log: {text}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until its metrics have a line.
    fn counted(&self, line: &str) {
        let mut text = String::new();
        let start = Instant::now();
        while !text.lines().any(|l| l == line) {
            assert!(start.elapsed() < PATIENCE, "not in the metrics: {line}\n{text}");
            std::thread::sleep(Duration::from_millis(5));
            text = ask(self.metrics, "GET /metrics", "");
        }
    }

    /// Begins a call of `sh` that runs until it is let go.
    fn waiting(&self) -> TcpStream {
        let go = self.path("go");
        let script = format!("until [ -e {} ]; do sleep 0.05; done; echo done", go.display());
        let stream = send(self.address, "GET /", &script);
        self.counted("http_requests_in_flight 1");
        stream
    }

    /// Lets that call go; it is answered.
    fn lets_go(&self, stream: TcpStream) {
        std::fs::write(self.path("go"), "").unwrap();
        assert!(answer(stream).contains("done\n"));
    }

    fn takes_no_more(&self) {
        until("no more connections are taken", || TcpStream::connect(self.address).is_err());
    }

    /// A path in its folder.
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// Writes a program into a folder.
fn script(folder: &Path, name: &str, text: &str) -> String {
    use std::os::unix::fs::PermissionsExt;
    let path = folder.join(name);
    std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path.to_str().unwrap().to_owned()
}

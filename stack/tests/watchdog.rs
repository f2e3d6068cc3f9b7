//! The watchdog as a process: what clients, the gateway and the container runtime see of it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const PATIENCE: Duration = Duration::from_secs(20);

struct Watchdog {
    child: Child,
    address: SocketAddr,
    metrics: SocketAddr,
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

/// Starts one and waits until it listens.
fn start(environment: &[(&str, &str)]) -> Watchdog {
    let watchdog = spawn(environment);
    let start = Instant::now();
    while TcpStream::connect(watchdog.address).is_err() {
        assert!(start.elapsed() < PATIENCE, "the watchdog does not listen");
        std::thread::sleep(Duration::from_millis(5));
    }
    watchdog
}

fn spawn(environment: &[(&str, &str)]) -> Watchdog {
    spawn_with(environment, Stdio::inherit())
}

fn spawn_with(environment: &[(&str, &str)], stderr: Stdio) -> Watchdog {
    let (requests, metrics) = (port(), port());
    let child = Command::new(env!("CARGO_BIN_EXE_watchdog"))
        .env("port", requests.to_string())
        .env("metrics_port", metrics.to_string())
        .env("suppress_lock", "true")
        .envs(environment.iter().copied())
        .stdout(Stdio::null())
        .stderr(stderr)
        .spawn()
        .unwrap();
    Watchdog { child, address: ([127, 0, 0, 1], requests).into(), metrics: ([127, 0, 0, 1], metrics).into() }
}

fn send(address: SocketAddr, head: &str, body: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let length = body.len();
    write!(
        stream,
        "{head} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .unwrap();
    stream
}

fn answer(mut stream: TcpStream) -> String {
    let mut text = String::new();
    // An answer that is broken off ends with what came.
    let _ = stream.read_to_string(&mut text);
    text
}

fn ask(address: SocketAddr, head: &str, body: &str) -> String {
    answer(send(address, head, body))
}

impl Watchdog {
    fn ask(&self, head: &str, body: &str) -> String {
        ask(self.address, head, body)
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
    }

    fn ended(&mut self) -> (Option<i32>, Duration) {
        let start = Instant::now();
        (self.child.wait().unwrap().code(), start.elapsed())
    }
}

#[test]
fn streaming() {
    let mut watchdog = start(&[("fprocess", "sh"), ("exec_timeout", "2s"), ("content_type", "text/x-test")]);
    let text = watchdog.ask("POST /a/b?c=d", "echo $Http_Method $Http_Path $Http_Query $Http_Content_Length");
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    assert!(
        text.contains("content-type: text/x-test\r\n") && text.contains("x-duration-seconds: 0."),
        "{text}"
    );
    assert!(text.contains("POST /a/b c=d 61\n"), "{text}");
    assert!(watchdog.ask("GET /", "exit 3").starts_with("HTTP/1.1 500"));
    assert!(watchdog.ask("GET /", "exit 0").starts_with("HTTP/1.1 200"));
    assert!(watchdog.ask("GET /", "sleep 60").starts_with("HTTP/1.1 504"));
    // Output comes as it is made.
    let mut stream = send(watchdog.address, "GET /", "echo one; sleep 1; echo two");
    let start = Instant::now();
    let mut seen = Vec::new();
    while !seen.windows(4).any(|window| window == b"one\n") {
        let mut buffer = [0; 512];
        let n = stream.read(&mut buffer).unwrap();
        assert!(n > 0);
        seen.extend_from_slice(&buffer[..n]);
    }
    assert!(start.elapsed() < Duration::from_millis(900));
    assert!(answer(stream).contains("two\n"));
    assert!(watchdog.ask("GET /_/health", "").ends_with("OK"));
    assert!(watchdog.ask("POST /_/health", "").starts_with("HTTP/1.1 405"));
    assert!(watchdog.ask("GET /_/ready", "").starts_with("HTTP/1.1 200"));
    let metrics = ask(watchdog.metrics, "GET /metrics", "");
    assert!(metrics.contains("http_requests_total{code=\"504\",method=\"GET\"} 1\n"), "{metrics}");
    // Idle: it ends at once.
    watchdog.signal(Signal::SIGTERM);
    let (status, taken) = watchdog.ended();
    assert_eq!(status, Some(0));
    assert!(taken < Duration::from_millis(500), "{taken:?}");
}

#[test]
fn a_call_inside_ends_in_peace() {
    let mut watchdog = start(&[("fprocess", "sh")]);
    let stream = send(watchdog.address, "GET /", "sleep 1; echo done");
    std::thread::sleep(Duration::from_millis(300));
    watchdog.signal(Signal::SIGTERM);
    assert!(answer(stream).contains("done\n"));
    assert_eq!(watchdog.ended().0, Some(0));
}

#[test]
fn no_more_calls_than_allowed() {
    let watchdog = start(&[("fprocess", "sh"), ("max_inflight", "1")]);
    let stream = send(watchdog.address, "GET /", "sleep 1; echo done");
    std::thread::sleep(Duration::from_millis(300));
    let refused = watchdog.ask("GET /", "echo no");
    assert!(refused.starts_with("HTTP/1.1 429"), "{refused}");
    assert!(refused.contains("x-openfaas-internal: faas-middleware\r\n"), "{refused}");
    assert!(
        refused.ends_with("Concurrent request limit exceeded. Max concurrent requests: 1\n"),
        "{refused}"
    );
    assert!(watchdog.ask("GET /_/ready", "").starts_with("HTTP/1.1 429"));
    assert!(watchdog.ask("GET /_/health", "").starts_with("HTTP/1.1 200"));
    assert!(answer(stream).contains("done\n"));
    assert!(watchdog.ask("GET /", "echo yes").contains("yes\n"));
}

#[test]
fn a_client_that_leaves_ends_its_process() {
    let folder = tempfile::tempdir().unwrap();
    let mark = folder.path().join("mark");
    let watchdog = start(&[("fprocess", "sh")]);
    let mut stream =
        send(watchdog.address, "GET /", &format!("echo begun; sleep 1; echo x > {}", mark.display()));
    let mut buffer = [0; 16];
    assert!(stream.read(&mut buffer).unwrap() > 0);
    drop(stream);
    std::thread::sleep(Duration::from_millis(1500));
    assert!(!mark.exists(), "the process went on although nobody waits for it");
}

#[test]
fn time_is_over_for_a_program_that_has_closed_its_output_too() {
    let watchdog = start(&[("fprocess", "sh"), ("exec_timeout", "1s")]);
    let start = Instant::now();
    let late = watchdog.ask("POST /", "exec >&-; sleep 30");
    assert!(late.starts_with("HTTP/1.1 504"), "{late}");
    let broken = watchdog.ask("POST /", "echo begun; exec >&-; sleep 30");
    assert!(broken.contains("begun\n") && !broken.ends_with("0\r\n\r\n"), "{broken}");
    assert!(start.elapsed() < Duration::from_secs(10));
}

/// Children of a process that have ended and that nobody has asked about.
fn zombies(parent: u32) -> Vec<String> {
    let stats = std::fs::read_dir("/proc").unwrap().flatten();
    let stats = stats.filter_map(|entry| std::fs::read_to_string(entry.path().join("stat")).ok());
    stats
        .filter(|stat| {
            let fields: Vec<_> = stat.rsplit(") ").next().unwrap().split(' ').collect();
            fields[0] == "Z" && fields[1] == parent.to_string()
        })
        .collect()
}

#[test]
fn nothing_is_left_of_a_call() {
    let folder = tempfile::tempdir().unwrap();
    let mark = folder.path().join("mark");
    let watchdog = start(&[("fprocess", "sh")]);
    // One that stays in the call's group ends with the call, one that leaves it is buried when it ends by itself.
    let stays = format!("(sleep 2; echo x > {}) >/dev/null 2>&1 & echo a", mark.display());
    assert!(watchdog.ask("POST /", &stays).contains("a\n"));
    assert!(watchdog.ask("POST /", "setsid sleep 0.3 >/dev/null 2>&1 & echo b").contains("b\n"));
    for _ in 0..10 {
        watchdog.ask("POST /", "true");
    }
    std::thread::sleep(Duration::from_millis(2500));
    assert!(!mark.exists(), "a process outlived its call");
    assert_eq!(zombies(watchdog.child.id()), Vec::<String>::new());
}

#[test]
fn calls_go_on_when_nobody_reads_the_output() {
    let mut watchdog = spawn_with(&[("fprocess", "sh")], Stdio::piped());
    let stderr = watchdog.child.stderr.take().unwrap();
    let begin = Instant::now();
    while TcpStream::connect(watchdog.address).is_err() {
        assert!(begin.elapsed() < PATIENCE, "the watchdog does not listen");
        std::thread::sleep(Duration::from_millis(5));
    }
    let much = "i=0; while [ $i -lt 600 ]; do printf '%01000d\\n' $i >&2; i=$((i+1)); done; echo done";
    assert!(watchdog.ask("POST /", much).contains("done\n"));
    assert!(watchdog.ask("POST /", "exit 3").starts_with("HTTP/1.1 500"));
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        let _ = std::io::BufReader::new(stderr).read_to_string(&mut text);
        text
    });
    std::thread::sleep(Duration::from_millis(300));
    assert!(watchdog.ask("POST /", "echo last >&2").starts_with("HTTP/1.1 200"));
    watchdog.signal(Signal::SIGTERM);
    watchdog.ended();
    let text = reader.join().unwrap();
    assert!(text.contains("lines were dropped: nobody read the output in time"), "{} bytes", text.len());
    assert!(text.ends_with("last\n"), "{} bytes", text.len());
}

/// A second watchdog is the program of the first: an HTTP server that is surely there.
#[test]
fn http() {
    let inner = port().to_string();
    let (url, program) = (format!("http://127.0.0.1:{inner}"), env!("CARGO_BIN_EXE_watchdog"));
    let script =
        format!("env -u mode port={inner} metrics_port={} fprocess=sh exec_timeout=60s {program}", port());
    let mut watchdog =
        start(&[("fprocess", &script), ("mode", "http"), ("upstream_url", &url), ("exec_timeout", "2s")]);
    // The first call waits for the program to listen.
    let text = watchdog.ask("POST /x?y=z", "echo $Http_Path $Http_Query");
    assert!(text.starts_with("HTTP/1.1 200") && text.contains("/x y=z\n"), "{text}");
    assert_eq!(text.matches("x-duration-seconds").count(), 1, "{text}");
    for _ in 0..20 {
        assert!(watchdog.ask("POST /", "echo again").contains("again\n"));
    }
    let late = watchdog.ask("POST /", "sleep 30");
    assert!(
        late.starts_with("HTTP/1.1 504") && late.contains("x-openfaas-internal: of-watchdog\r\n"),
        "{late}"
    );
    let start = Instant::now();
    let late = watchdog.ask("POST / HTTP/1.1\r\nX-Timeout: 300ms\r\nX-Rest:", "sleep 30");
    assert!(late.starts_with("HTTP/1.1 504") && start.elapsed() < Duration::from_millis(1500), "{late}");
    watchdog.signal(Signal::SIGTERM);
    assert_eq!(watchdog.ended().0, Some(0));
}

#[test]
fn the_program_of_mode_http_takes_the_watchdog_along() {
    let mut watchdog =
        spawn(&[("fprocess", "sh -c exit"), ("mode", "http"), ("upstream_url", "http://127.0.0.1:9")]);
    assert_eq!(watchdog.ended().0, Some(0));
    let mut watchdog =
        spawn(&[("fprocess", "false"), ("mode", "http"), ("upstream_url", "http://127.0.0.1:9")]);
    assert_eq!(watchdog.ended().0, Some(1));
}

#[test]
fn a_wrong_configuration_is_refused() {
    let output = Command::new(env!("CARGO_BIN_EXE_watchdog")).env_clear().output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("fprocess"));
}

//! Start, health, limits, signals, end.

use std::io::Read;
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;

use super::{PATIENCE, answer, ask, body, send, spawn, spawn_in, start, until};

#[test]
fn idle_it_ends_at_once() {
    let mut watchdog = start(&[("fprocess", "sh"), ("write_timeout", "10m"), ("exec_timeout", "10m")]);
    assert!(watchdog.ask("GET /", "echo a").contains("a\n"));
    // A connection that is kept open is not a call.
    let _idle = TcpStream::connect(watchdog.address).unwrap();
    watchdog.signal(Signal::SIGTERM);
    let (status, taken) = watchdog.ended();
    assert_eq!(status, Some(0));
    assert!(taken < PATIENCE, "{taken:?}");
    watchdog.logged("told to end; calls that run: 0");
}

#[test]
fn a_call_inside_ends_in_peace() {
    let mut watchdog = start(&[("fprocess", "sh")]);
    let stream = watchdog.waiting();
    watchdog.signal(Signal::SIGTERM);
    watchdog.takes_no_more();
    watchdog.lets_go(stream);
    assert_eq!(watchdog.ended().0, Some(0));
}

#[test]
fn a_call_that_goes_on_too_long_is_cut_off() {
    let mut watchdog = start(&[
        ("fprocess", "sh"),
        ("write_timeout", "300ms"),
        ("exec_timeout", "0"),
        ("read_timeout", "0"),
    ]);
    let pid = watchdog.path("pid");
    let script = format!("sleep 1000 & echo $! > {0}.new; mv {0}.new {0}; wait", pid.display());
    let stream = send(watchdog.address, "GET /", &script);
    until("it runs", || pid.exists());
    watchdog.signal(Signal::SIGTERM);
    assert_eq!(watchdog.ended().0, Some(0));
    let process = std::path::Path::new("/proc").join(std::fs::read_to_string(&pid).unwrap().trim());
    until("its program ends with it", || !process.exists());
    assert_eq!(answer(stream), "");
    watchdog.logged("calls that were cut off: 1");
}

#[test]
fn told_to_end_it_serves_on_for_the_interval() {
    let mut watchdog = start(&[("fprocess", "sh"), ("healthcheck_interval", "10m")]);
    until("the lock is there", || watchdog.path(".lock").exists());
    let stream = watchdog.waiting();
    watchdog.signal(Signal::SIGTERM);
    until("the lock is gone", || !watchdog.path(".lock").exists());
    assert!(watchdog.ask("GET /_/health", "").starts_with("HTTP/1.1 503"));
    assert!(watchdog.ask("GET /_/ready", "").starts_with("HTTP/1.1 503"));
    assert!(watchdog.ask("GET /", "echo on").contains("on\n"));
    // Told once more, it takes no more calls.
    watchdog.signal(Signal::SIGTERM);
    watchdog.takes_no_more();
    watchdog.lets_go(stream);
    assert_eq!(watchdog.ended().0, Some(0));
}

#[test]
fn idle_the_interval_is_not_waited_for() {
    let mut watchdog = start(&[("fprocess", "sh"), ("healthcheck_interval", "10m")]);
    watchdog.signal(Signal::SIGTERM);
    assert_eq!(watchdog.ended().0, Some(0));
    // Nor for what is left of it when the last call has ended.
    let mut watchdog = start(&[("fprocess", "sh"), ("healthcheck_interval", "10m")]);
    let stream = send(watchdog.address, "GET /", "sleep 0.5; echo done");
    watchdog.counted("http_requests_in_flight 1");
    watchdog.signal(Signal::SIGTERM);
    assert!(answer(stream).contains("done\n"));
    assert_eq!(watchdog.ended().0, Some(0));
}

#[test]
fn the_interval_ends() {
    let mut watchdog = start(&[("fprocess", "sh"), ("healthcheck_interval", "200ms")]);
    let stream = watchdog.waiting();
    watchdog.signal(Signal::SIGINT);
    watchdog.takes_no_more();
    watchdog.lets_go(stream);
    assert_eq!(watchdog.ended().0, Some(0));
}

#[test]
fn the_lock_is_the_switch() {
    let watchdog = start(&[("fprocess", "sh")]);
    let check = || {
        let mut check = Command::new(env!("CARGO_BIN_EXE_watchdog"));
        check.arg("--run-healthcheck").env("TMPDIR", watchdog.folder.path()).stderr(Stdio::null());
        check.status().unwrap().success()
    };
    until("the lock is there", || watchdog.path(".lock").exists());
    assert!(check());
    assert!(watchdog.ask("GET /_/health", "").ends_with("\r\n\r\nOK"));
    assert!(watchdog.ask("POST /_/health", "").starts_with("HTTP/1.1 405"));
    assert!(watchdog.ask("GET /_/ready", "").starts_with("HTTP/1.1 200"));
    assert!(watchdog.ask("POST /_/ready", "").starts_with("HTTP/1.1 405"));
    std::fs::remove_file(watchdog.path(".lock")).unwrap();
    assert!(!check());
    assert!(watchdog.ask("GET /_/health", "").starts_with("HTTP/1.1 503"));
    assert!(watchdog.ask("GET /_/ready", "").starts_with("HTTP/1.1 503"));
}

#[test]
fn without_a_lock_it_is_well_all_the_same() {
    let watchdog = start(&[("fprocess", "sh"), ("suppress_lock", "true")]);
    assert!(!watchdog.path(".lock").exists());
    assert!(watchdog.ask("GET /_/health", "").starts_with("HTTP/1.1 200"));
    let watchdog = start(&[("fprocess", "sh"), ("TMPDIR", "/proc/nowhere")]);
    assert!(watchdog.ask("GET /_/health", "").starts_with("HTTP/1.1 200"));
    watchdog.logged("/proc/nowhere/.lock cannot be made");
}

#[test]
fn no_more_calls_than_allowed() {
    let watchdog = start(&[("fprocess", "sh"), ("max_inflight", "1")]);
    let stream = watchdog.waiting();
    let refused = watchdog.ask("GET /", "echo no");
    assert!(refused.starts_with("HTTP/1.1 429"), "{refused}");
    assert!(refused.contains("x-openfaas-internal: faas-middleware\r\n"), "{refused}");
    assert!(refused.contains("content-type: text/plain\r\n"), "{refused}");
    assert!(refused.contains("retry-after: 1\r\n"), "{refused}");
    assert_eq!(body(&refused), "Concurrent request limit exceeded. Max concurrent requests: 1\n");
    assert!(watchdog.ask("GET /_/ready", "").starts_with("HTTP/1.1 429"));
    assert!(watchdog.ask("GET /_/health", "").starts_with("HTTP/1.1 200"));
    watchdog.lets_go(stream);
    watchdog.counted("http_requests_in_flight 0");
    assert!(watchdog.ask("GET /", "echo yes").contains("yes\n"));
    watchdog.counted("http_requests_total{code=\"429\",method=\"get\"} 1");
    watchdog.counted("http_requests_total{code=\"200\",method=\"get\"} 2");
}

#[test]
fn metrics() {
    let watchdog = start(&[("fprocess", "sh")]);
    assert!(watchdog.ask("POST /", "exit 3").starts_with("HTTP/1.1 500"));
    // Its own paths are no calls.
    watchdog.ask("GET /_/health", "");
    watchdog.counted("http_requests_total{code=\"500\",method=\"post\"} 1");
    let metrics = ask(watchdog.metrics, "GET /metrics", "");
    assert!(metrics.contains("content-type: text/plain; version=0.0.4"), "{metrics}");
    for line in [
        "# TYPE http_requests_total counter",
        "# TYPE http_request_duration_seconds histogram",
        "# TYPE http_requests_in_flight gauge",
        "http_request_duration_seconds_bucket{code=\"500\",method=\"post\",le=\"+Inf\"} 1",
        "http_request_duration_seconds_count{code=\"500\",method=\"post\"} 1",
        "http_requests_in_flight 0",
    ] {
        assert!(metrics.lines().any(|l| l == line), "{line}\n{metrics}");
    }
    assert!(!metrics.contains("code=\"200\""), "{metrics}");
    assert!(ask(watchdog.metrics, "POST /metrics", "").starts_with("HTTP/1.1 405"));
    assert!(ask(watchdog.metrics, "GET /", "").starts_with("HTTP/1.1 404"));
}

#[test]
fn a_line_for_each_call() {
    let watchdog = start(&[("fprocess", "sh"), ("log_call_id", "true")]);
    watchdog.ask("POST /a?b=c\nX-Call-Id: seven", "echo words; echo said >&2");
    watchdog.logged("watchdog: POST /a?b=c - 200 OK - ContentLength: 6B (0.");
    watchdog.logged("s) [seven]\n");
    assert!(watchdog.log().find("stderr: said") < watchdog.log().find("[seven]"), "{}", watchdog.log());
    watchdog.ask("GET /none", "exit 1");
    watchdog.logged("GET /none - 500 Internal Server Error");
    watchdog.logged("[none]");
    watchdog.ask("GET /probe\nUser-Agent: kube-probe/1.30", "true");
    watchdog.counted("http_requests_total{code=\"200\",method=\"get\"} 1");
    let mut quiet = start(&[("fprocess", "sh"), ("log_calls", "false")]);
    assert!(quiet.ask("GET /quiet", "echo a").contains("a\n"));
    quiet.signal(Signal::SIGTERM);
    quiet.ended();
    for (log, path) in [(watchdog.log(), "/probe"), (quiet.log(), "/quiet")] {
        assert!(!log.contains(path), "{log}");
    }
}

#[test]
fn calls_go_on_when_nobody_reads_the_output() {
    let folder = tempfile::tempdir().unwrap();
    let environment = [("fprocess", "sh"), ("log_calls", "false")];
    let mut watchdog = spawn_in(folder, &environment, Stdio::piped());
    let stderr = watchdog.child.stderr.take().unwrap();
    until("the watchdog listens", || TcpStream::connect(watchdog.address).is_ok());
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
    assert!(text.contains("stderr: last\n"), "{} bytes", text.len());
}

#[test]
fn a_wrong_configuration_is_refused() {
    let refused = |pairs: &[(&str, &str)], code| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_watchdog"));
        command.env_clear().env("PATH", "/bin:/usr/bin").envs(pairs.iter().copied());
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{text}");
        assert_eq!(text.lines().count(), 1, "{text}");
        text
    };
    assert!(refused(&[], 2).contains("fprocess is not set"));
    assert!(
        refused(&[("fprocess", "cat"), ("mode", "inproc")], 2).contains("mode=inproc: expected streaming, ")
    );
    assert!(refused(&[("fprocess", "no-such-program -x")], 1).contains("fprocess=no-such-program"));
    assert!(refused(&[("mode", "static"), ("static_path", "/nowhere")], 1).contains("static_path=/nowhere"));
    let watchdog = start(&[("fprocess", "cat")]);
    let taken = watchdog.address.port().to_string();
    assert!(
        refused(&[("fprocess", "cat"), ("port", &taken)], 1).contains(&format!("listen on port {taken}"))
    );
    let mut command = Command::new(env!("CARGO_BIN_EXE_watchdog"));
    let output = command.arg("--wrong").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let output = Command::new(env!("CARGO_BIN_EXE_watchdog")).arg("--version").output().unwrap();
    assert!(output.status.success() && output.stdout.starts_with(b"bothy watchdog "));
}

#[test]
fn the_program_of_mode_http_takes_the_watchdog_along() {
    for (program, status) in [("sh -c exit", 0), ("false", 1)] {
        let environment = [("fprocess", program), ("mode", "http"), ("upstream_url", "http://127.0.0.1:9")];
        assert_eq!(spawn(&environment).ended().0, Some(status));
    }
    let folder = tempfile::tempdir().unwrap();
    let killed = super::script(folder.path(), "killed", "kill -9 $$");
    let environment =
        [("fprocess", killed.as_str()), ("mode", "http"), ("upstream_url", "http://127.0.0.1:9")];
    let mut watchdog = spawn(&environment);
    assert_eq!(watchdog.ended().0, Some(137));
    watchdog.logged("the function's program ended: signal: 9");
}

#[test]
fn a_call_that_waits_for_the_program_ends_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let program = super::script(folder.path(), "program", "until [ -e go ]; do sleep 0.05; done; exit 3");
    let url = format!("http://127.0.0.1:{}", super::port());
    let script =
        super::script(folder.path(), "start", &format!("cd {} && exec {program}", folder.path().display()));
    let environment =
        [("fprocess", script.as_str()), ("mode", "http"), ("upstream_url", &url), ("exec_timeout", "10m")];
    let mut watchdog = start(&environment);
    let stream = send(watchdog.address, "GET /", "");
    watchdog.counted("http_requests_in_flight 1");
    std::fs::write(folder.path().join("go"), "").unwrap();
    let text = answer(stream);
    assert!(text.starts_with("HTTP/1.1 500") && text.contains("x-openfaas-internal: of-watchdog"), "{text}");
    assert_eq!(watchdog.ended().0, Some(3));
}

/// A second watchdog is the server that a script starts and leaves behind.
#[test]
fn a_program_that_starts_a_server_and_ends_well() {
    let folder = tempfile::tempdir().unwrap();
    let inner = super::port().to_string();
    let (url, program) = (format!("http://127.0.0.1:{inner}"), env!("CARGO_BIN_EXE_watchdog"));
    let text = format!(
        "unset mode; port={inner} metrics_port={} fprocess=sh setsid {program} & echo $! > {}/pid",
        super::port(),
        folder.path().display()
    );
    let script = super::script(folder.path(), "start", &text);
    let mut watchdog = start(&[("fprocess", &script), ("mode", "http"), ("upstream_url", &url)]);
    watchdog.logged("the function's program ended, and left others behind that go on");
    assert!(watchdog.ask("POST /", "echo words").contains("words\n"));
    let pid = std::fs::read_to_string(folder.path().join("pid")).unwrap().trim().parse().unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    assert_eq!(watchdog.ended().0, Some(0));
}

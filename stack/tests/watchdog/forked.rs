//! The modes that start the program for each call.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::time::Duration;

use super::{answer, body, connect, read_until, script, send, start, until};

#[test]
fn streaming() {
    let watchdog = start(&[("fprocess", "sh"), ("exec_timeout", "1s"), ("content_type", "text/x-test")]);
    let text =
        watchdog.ask("POST /a%20b?c=d", "echo $Http_Method $Http_Path $Http_Query $Http_Content_Length");
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    assert!(
        text.contains("content-type: text/x-test\r\n") && text.contains("x-duration-seconds: 0."),
        "{text}"
    );
    assert!(text.contains("POST /a b c=d 61\n"), "{text}");
    let failed = watchdog.ask("GET /", "exit 3");
    assert!(failed.starts_with("HTTP/1.1 500") && body(&failed) == "exit status 3\n", "{failed}");
    assert!(!failed.contains("x-openfaas-internal"), "{failed}");
    assert_eq!(body(&watchdog.ask("GET /", "kill -9 $$")), "signal 9\n");
    assert!(watchdog.ask("GET /", "exit 0").starts_with("HTTP/1.1 200"));
    let late = watchdog.ask("GET /", "sleep 60");
    assert!(late.starts_with("HTTP/1.1 504") && late.contains("x-openfaas-internal: of-watchdog"), "{late}");
    // The caller may wait for less, and not for more.
    assert!(watchdog.ask("GET /\nX-Timeout: 200ms", "sleep 60").starts_with("HTTP/1.1 504"));
    assert!(watchdog.ask("GET /\nX-Timeout: 1h", "sleep 60").starts_with("HTTP/1.1 504"));
    assert!(watchdog.ask("GET /%zz", "").starts_with("HTTP/1.1 400"));
    watchdog.counted("http_requests_total{code=\"504\",method=\"get\"} 3");
}

#[test]
fn output_comes_as_it_is_made() {
    let watchdog = start(&[("fprocess", "sh")]);
    let go = watchdog.path("go");
    let wait = format!("echo one; until [ -e {} ]; do sleep 0.05; done; echo two", go.display());
    let mut stream = send(watchdog.address, "GET /", &wait);
    read_until(&mut stream, "one\n");
    std::fs::write(go, "").unwrap();
    assert!(answer(stream).contains("two\n"));
}

#[test]
fn a_client_that_leaves_ends_its_process() {
    let watchdog = start(&[("fprocess", "sh")]);
    let pid = watchdog.path("pid");
    let wait = format!("sleep 1000 & echo $! > {}; echo begun; wait", pid.display());
    let mut stream = send(watchdog.address, "GET /", &wait);
    read_until(&mut stream, "begun\n");
    let sleep = std::fs::read_to_string(&pid).unwrap();
    assert!(std::path::Path::new("/proc").join(sleep.trim()).exists());
    drop(stream);
    // Not only it: what it has started too.
    until("the group ends", || !std::path::Path::new("/proc").join(sleep.trim()).exists());
    watchdog.counted("http_requests_in_flight 0");
    // One that leaves before the answer has begun is told as such.
    let early = send(watchdog.address, "GET /early", "sleep 1000");
    watchdog.counted("http_requests_in_flight 1");
    drop(early);
    watchdog.logged("GET /early - the caller left");
    watchdog.counted("http_requests_total{code=\"499\",method=\"get\"} 1");
}

#[test]
fn a_client_that_takes_nothing_ends_its_process() {
    let watchdog = start(&[("fprocess", "cat /dev/zero"), ("write_timeout", "300ms"), ("exec_timeout", "0")]);
    let mut stream = send(watchdog.address, "GET /", "");
    let mut some = [0; 64];
    stream.read_exact(&mut some).unwrap();
    watchdog.counted("http_requests_in_flight 0");
    drop(stream);
}

#[test]
fn a_body_that_breaks_off_does_not_look_complete() {
    let folder = tempfile::tempdir().unwrap();
    let mark = folder.path().join("mark");
    let program = script(folder.path(), "program", &format!("cat >/dev/null; echo > {}", mark.display()));
    for mode in ["streaming", "serializing", "classic"] {
        let watchdog = start(&[("fprocess", &program), ("mode", mode), ("read_timeout", "300ms")]);
        let head = "POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 100\r\n\r\nsome";
        // Who is silent is told so.
        let mut silent = connect(watchdog.address);
        silent.write_all(head.as_bytes()).unwrap();
        let text = answer(silent);
        assert!(
            text.starts_with("HTTP/1.1 408") && text.contains("sent nothing of the body for 300ms"),
            "{mode}: {text}"
        );
        // Who leaves is not there to be told.
        let mut left = connect(watchdog.address);
        left.write_all(head.as_bytes()).unwrap();
        left.shutdown(Shutdown::Write).unwrap();
        answer(left);
        watchdog.counted("http_requests_in_flight 0");
        assert!(!mark.exists(), "{mode}: the program saw an end");
        let wrong = "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nsome\r\nzz\r\n";
        let mut stream = connect(watchdog.address);
        stream.write_all(wrong.as_bytes()).unwrap();
        answer(stream);
        watchdog.counted("http_requests_in_flight 0");
        assert!(!mark.exists(), "{mode}: the program saw an end");
        assert!(watchdog.ask("POST /", "whole").starts_with("HTTP/1.1 200"), "{mode}");
        assert!(mark.exists());
        std::fs::remove_file(&mark).unwrap();
    }
}

#[test]
fn time_is_over_for_a_program_that_has_closed_its_output_too() {
    let watchdog = start(&[("fprocess", "sh"), ("exec_timeout", "1s")]);
    let late = watchdog.ask("POST /", "exec >&-; sleep 1000");
    assert!(late.starts_with("HTTP/1.1 504"), "{late}");
    let broken = watchdog.ask("POST /", "echo begun; exec >&-; sleep 1000");
    assert!(broken.contains("begun\n") && !broken.ends_with("0\r\n\r\n"), "{broken}");
}

/// Children of a process that have ended and that nobody has asked about.
pub fn zombies(parent: u32) -> Vec<String> {
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
    for mode in ["streaming", "serializing", "classic"] {
        let watchdog = start(&[("fprocess", "sh"), ("mode", mode)]);
        let mark = watchdog.path("mark");
        // One that stays in the call's group ends with the call, one that leaves it is buried when it ends by itself.
        let stays = format!("(sleep 1; echo x > {}) >/dev/null 2>&1 & echo a", mark.display());
        assert!(watchdog.ask("POST /", &stays).contains("a\n"));
        assert!(watchdog.ask("POST /", "setsid sleep 0.3 >/dev/null 2>&1 & echo b").contains("b\n"));
        for _ in 0..10 {
            watchdog.ask("POST /", "true");
        }
        std::thread::sleep(Duration::from_millis(1500));
        assert!(!mark.exists(), "a process outlived its call");
        until("nothing is left", || zombies(watchdog.child.id()).is_empty());
    }
}

#[test]
fn a_head_that_no_environment_holds() {
    let watchdog = start(&[("fprocess", "cat")]);
    let large = format!("GET /\nX-Large: {}", "x".repeat(140 << 10));
    assert!(watchdog.ask(&large, "").starts_with("HTTP/1.1 431"));
    assert!(watchdog.ask("GET /", "still").contains("still"));
}

#[test]
fn a_long_line_goes_on_in_the_next() {
    let watchdog = start(&[("fprocess", "sh"), ("log_buffer_size", "10")]);
    watchdog.ask("GET /", "echo 0123456789abc >&2");
    watchdog.logged("\nstderr: 0123456789\nstderr: abc\n");
    let plain = start(&[("fprocess", "sh"), ("prefix_logs", "false")]);
    plain.ask("GET /", "echo plain >&2");
    plain.logged("\nplain\n");
}

#[test]
fn serializing() {
    let environment =
        [("fprocess", "sh"), ("mode", "serializing"), ("exec_timeout", "1s"), ("ready_path", "/ready")];
    let watchdog = start(&environment);
    let text = watchdog.ask("POST /x", "echo $Http_Path; echo said >&2");
    assert!(text.starts_with("HTTP/1.1 200") && body(&text) == "/x\n", "{text}");
    // Its length is known.
    assert!(text.contains("content-length: 3\r\n"), "{text}");
    assert!(text.contains("content-type: application/octet-stream\r\n"), "{text}");
    watchdog.logged("stderr: said\n");
    // What it wrote before it failed is no answer.
    let failed = watchdog.ask("POST /", "echo half; exit 4");
    assert!(failed.starts_with("HTTP/1.1 500") && body(&failed) == "exit status 4\n", "{failed}");
    assert!(watchdog.ask("POST /", "sleep 1000").starts_with("HTTP/1.1 504"));
    let large = "0123456789abcdef".repeat(1 << 16);
    let watchdog = start(&[("fprocess", "cat"), ("mode", "serializing")]);
    assert!(body(&watchdog.ask("POST /", &large)) == large);
}

#[test]
fn readiness_is_the_programs_own_to_tell() {
    let folder = tempfile::tempdir().unwrap();
    let program = script(
        folder.path(),
        "program",
        "[ \"$Http_Path\" = /ready ] && echo asked && [ -e \"$TMPDIR/yes\" ]",
    );
    for mode in ["streaming", "serializing", "classic"] {
        let watchdog = start(&[("fprocess", &program), ("mode", mode), ("ready_path", "/ready")]);
        let no = watchdog.ask("GET /_/ready", "");
        if mode != "streaming" {
            assert!(no.starts_with("HTTP/1.1 500"), "{mode}: {no}");
        }
        std::fs::write(watchdog.path("yes"), "").unwrap();
        let yes = watchdog.ask("GET /_/ready", "");
        assert!(yes.starts_with("HTTP/1.1 200") && yes.contains("asked\n"), "{mode}: {yes}");
        let metrics = super::ask(watchdog.metrics, "GET /metrics", "");
        assert!(!metrics.contains("http_requests_total{"), "{mode}: {metrics}");
    }
}

#[test]
fn classic() {
    let watchdog = start(&[("fprocess", "sh"), ("mode", "classic")]);
    let text = watchdog.ask(
        "POST /a?b=c\nContent-Type: application/json",
        "echo $Http_Method $Http_Path $Http_Query $Http_ContentLength $Http_Content_Length $Http_Host; echo err >&2",
    );
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    assert!(
        text.contains("content-type: application/json\r\n") && text.contains("x-duration-seconds: 0."),
        "{text}"
    );
    // Both outputs, in the order in which they were written.
    assert_eq!(body(&text), "POST /a b=c 106 106 x\nerr\n");
    watchdog.logged("Forking fprocess.\n");
    watchdog.logged("Wrote 26 Bytes - Duration: 0.");
    assert!(!watchdog.log().contains("POST /a"), "{}", watchdog.log());
    let failed = watchdog.ask("PATCH /", "echo why; exit 5");
    assert!(failed.starts_with("HTTP/1.1 500") && body(&failed) == "exit status 5\nwhy\n", "{failed}");
    assert!(!failed.contains("x-openfaas-internal"), "{failed}");
    assert!(watchdog.ask("OPTIONS /", "echo a").starts_with("HTTP/1.1 405"));
    assert!(watchdog.ask("GET /", "echo text").contains("content-type: text/plain; charset=utf-8\r\n"));
    assert!(watchdog.ask("GET /_/ready", "").starts_with("HTTP/1.1 200"));
    let mut chunked = connect(watchdog.address);
    let head = "POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n";
    let script = "echo $Http_Content_Length $Http_Transfer_Encoding";
    write!(chunked, "{head}{:x}\r\n{script}\r\n0\r\n\r\n", script.len()).unwrap();
    assert_eq!(body(&answer(chunked)), "-1 chunked\n");
    watchdog.counted("http_requests_total{code=\"405\",method=\"options\"} 1");
}

#[test]
fn classic_by_choice() {
    let watchdog = start(&[
        ("fprocess", "sh"),
        ("mode", "classic"),
        ("combine_output", "false"),
        ("write_debug", "true"),
        ("debug_headers", "true"),
        ("cgi_headers", "false"),
        ("content_type", "text/x-own"),
        ("exec_timeout", "500ms"),
        ("max_inflight", "5"),
        ("suppress_lock", "true"),
    ]);
    let text = watchdog.ask("POST /\nContent-Type: a/b\nX-Mine: 1", "echo out $Http_Method; echo err >&2");
    assert!(text.contains("content-type: text/x-own\r\n") && body(&text) == "out\n", "{text}");
    watchdog.logged("stderr: err\n");
    watchdog.logged("watchdog: Duration: 0.");
    until("the answer is in the log too", || {
        let out = std::fs::read_to_string(watchdog.path("out")).unwrap();
        ["out\n", "[in] x-mine=1\n", "[out] content-type=text/x-own\n"].iter().all(|line| out.contains(line))
    });
    let late = watchdog.ask("POST /", "sleep 1000");
    assert!(late.starts_with("HTTP/1.1 408") && body(&late) == "Killed process.\n", "{late}");
    watchdog.logged("Killing process: sh");
}

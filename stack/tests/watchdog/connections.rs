//! Connections: what callers do with them, well or badly.

use std::io::{Read, Write};
use std::net::TcpStream;

use nix::sys::signal::Signal;

use super::server::Server;
use super::{Watchdog, answer, body, connect, forked, read_until, send, start, until};

/// Sends a request that leaves the connection open.
fn say(stream: &mut TcpStream, method: &str, body: &str) {
    let length = body.len();
    write!(stream, "{method} / HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{body}").unwrap();
}

/// A watchdog for each way to run a program, and one in front of a server that gives bodies back.
fn each(more: &[(&'static str, &str)], check: impl Fn(&str, Watchdog)) {
    for mode in ["streaming", "serializing", "classic"] {
        check(mode, start(&[&[("fprocess", "cat"), ("mode", mode)], more].concat()));
    }
    let echo = start(&[("fprocess", "cat")]);
    let url = format!("http://{}", echo.address);
    let http = [("fprocess", "sleep 1000"), ("mode", "http"), ("upstream_url", &url)];
    check("http", start(&[&http[..], more].concat()));
}

#[test]
fn one_for_many_calls() {
    each(&[], |mode, watchdog| {
        let mut stream = connect(watchdog.address);
        for n in 0..5 {
            say(&mut stream, "POST", &format!("word {n}."));
            let text = read_until(&mut stream, &format!("word {n}."));
            assert!(text.contains("HTTP/1.1 200") && !text.contains("connection: close"), "{mode}: {text}");
        }
        if mode != "classic" {
            say(&mut stream, "HEAD", "");
            say(&mut stream, "GET", "last.");
            let text = read_until(&mut stream, "last.");
            let heads = text.split_once("HTTP/1.1 200").unwrap().1;
            let (first, next) = heads.split_once("\r\n\r\n").unwrap();
            assert!(next.starts_with("HTTP/1.1 200"), "{mode}: a body after HEAD: {first}\n\n{next}");
        }
        // What the caller sends is wrong: the connection ends, and nothing else.
        stream.write_all(b"nonsense\r\n\r\n").unwrap();
        assert!(answer(stream).contains("HTTP/1.1 400"), "{mode}");
        assert!(watchdog.ask("POST /", "again").contains("again"), "{mode}");
    });
}

#[test]
fn a_body_is_asked_for_when_it_is_wanted() {
    each(&[], |mode, watchdog| {
        let mut stream = connect(watchdog.address);
        let head = "POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nExpect: 100-continue\r\n";
        write!(stream, "{head}Content-Length: 5\r\n\r\n").unwrap();
        assert_eq!(read_until(&mut stream, "\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n", "{mode}");
        stream.write_all(b"words").unwrap();
        let text = answer(stream);
        assert!(text.starts_with("HTTP/1.1 200") && text.contains("words"), "{mode}: {text}");
    });
    let watchdog = start(&[("fprocess", "sh"), ("max_inflight", "1")]);
    let _running = send(watchdog.address, "POST /", "sleep 1000");
    watchdog.counted("http_requests_in_flight 1");
    let refused = send(watchdog.address, "POST /\nExpect: 100-continue\nContent-Type: a/b", "");
    assert!(answer(refused).starts_with("HTTP/1.1 429"));
}

#[test]
fn a_head_without_a_body_is_a_call_too() {
    let watchdog = start(&[("fprocess", "sh")]);
    let mark = watchdog.path("mark");
    let text = watchdog.ask("HEAD /", &format!("echo some; sleep 0.2; echo more; echo > {}", mark.display()));
    assert!(text.starts_with("HTTP/1.1 200") && body(&text).is_empty(), "{text}");
    assert!(mark.exists(), "the program was cut off");
    assert!(watchdog.ask("HEAD /", "echo some; exit 3").starts_with("HTTP/1.1 500"));
    let watchdog = start(&[("fprocess", "echo words"), ("mode", "serializing")]);
    let text = watchdog.ask("HEAD /", "");
    assert!(text.contains("content-length: 6\r\n") && body(&text).is_empty(), "{text}");
    let server = Server::start(|mut caller| {
        while caller.head().is_some() {
            caller.write("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\nX-Mine: 1\r\n\r\n");
        }
    });
    let watchdog = server.watchdog(&[]);
    for _ in 0..3 {
        let text = watchdog.ask("HEAD /", "");
        assert!(text.contains("content-length: 1000\r\n") && body(&text).is_empty(), "{text}");
    }
}

#[test]
fn without_a_call_they_do_not_hold_up_the_end() {
    let environment = [("fprocess", "cat"), ("read_timeout", "0"), ("write_timeout", "10m")];
    let mut watchdog = start(&environment);
    let _fresh = connect(watchdog.address);
    let mut half = connect(watchdog.address);
    half.write_all(b"GET / HT").unwrap();
    let mut idle = connect(watchdog.address);
    say(&mut idle, "POST", "words");
    read_until(&mut idle, "words\r\n0\r\n\r\n");
    // What is left of a body that nobody wanted.
    let mut rest = connect(watchdog.address);
    rest.write_all(b"POST /_/health HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nsome").unwrap();
    read_until(&mut rest, "HTTP/1.1 405");
    let _metrics = connect(watchdog.metrics);
    watchdog.signal(Signal::SIGTERM);
    assert_eq!(watchdog.ended().0, Some(0));
    watchdog.logged("told to end; calls that run: 0");
}

#[test]
fn an_answer_that_is_still_being_taken_does() {
    let environment = [("fprocess", "head -c 20000000 /dev/zero"), ("mode", "serializing")];
    let mut watchdog = start(&environment);
    let mut stream = send(watchdog.address, "GET /", "");
    let text = read_until(&mut stream, "\r\n\r\n");
    assert!(text.contains("content-length: 20000000\r\n"), "{text}");
    watchdog.signal(Signal::SIGTERM);
    watchdog.takes_no_more();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    assert_eq!(body(&text).len() + rest.len(), 20_000_000);
    assert_eq!(watchdog.ended().0, Some(0));
}

/// A head is held in memory: there is a bound for it.
#[test]
fn heads_that_are_too_large() {
    let watchdog = start(&[("fprocess", "cat")]);
    let many: String = (0..150).map(|n| format!("\nX-{n}: 1")).collect();
    assert!(watchdog.ask(&format!("GET /{many}"), "").starts_with("HTTP/1.1 431"));
    let long = format!("GET /\nX-Long: {}", "x".repeat(600 << 10));
    let mut stream = connect(watchdog.address);
    // It need not be read to its end.
    let _ = write!(stream, "{}\r\n\r\n", long.replace('\n', " HTTP/1.1\r\n"));
    let text = answer(stream);
    assert!(text.starts_with("HTTP/1.1 431"), "{text}");
    assert!(watchdog.ask(&format!("GET /{}", "x".repeat(70_000)), "").starts_with("HTTP/1.1 414"));
    assert!(watchdog.ask("POST /", "still").contains("still"));
}

#[test]
fn who_leaves_ends_its_process_in_each_mode() {
    for mode in ["streaming", "serializing", "classic"] {
        let watchdog = start(&[("fprocess", "sh"), ("mode", mode), ("exec_timeout", "0")]);
        let pid = watchdog.path("pid");
        let script = format!("sleep 1000 & echo $! > {0}.new; mv {0}.new {0}; wait", pid.display());
        let stream = send(watchdog.address, "POST /", &script);
        until("it runs", || pid.exists());
        let process = std::path::Path::new("/proc").join(std::fs::read_to_string(&pid).unwrap().trim());
        assert!(process.exists());
        drop(stream);
        until("it has ended", || !process.exists());
        until("nothing is left", || forked::zombies(watchdog.child.id()).is_empty());
        watchdog.counted("http_requests_in_flight 0");
    }
}

/// While a body waits for a program that takes nothing of it, nobody reads from the connection.
#[test]
fn who_leaves_in_front_of_a_program_that_does_not_read() {
    let watchdog = start(&[("fprocess", "sleep 1000"), ("exec_timeout", "0"), ("read_timeout", "0")]);
    let stream = send(watchdog.address, "POST /", &"x".repeat(100 << 10));
    watchdog.counted("http_requests_in_flight 1");
    drop(stream);
    watchdog.counted("http_requests_in_flight 0");
    watchdog.logged("POST / - the caller left");
}

#[test]
fn time_is_over_for_a_programs_whole_group() {
    for (mode, status) in [("streaming", 504), ("serializing", 504), ("classic", 408)] {
        let watchdog = start(&[("fprocess", "sh"), ("mode", mode), ("exec_timeout", "1s")]);
        let pid = watchdog.path("pid");
        let text = watchdog.ask("POST /", &format!("sleep 1000 & echo $! > {}; wait", pid.display()));
        assert!(text.starts_with(&format!("HTTP/1.1 {status}")), "{mode}: {text}");
        let process = std::path::Path::new("/proc").join(std::fs::read_to_string(&pid).unwrap().trim());
        until("it has ended", || !process.exists());
        until("nothing is left", || forked::zombies(watchdog.child.id()).is_empty());
    }
}

/// The answer is there before the body has been sent: it arrives all the same.
#[test]
fn who_still_sends_gets_the_answer() {
    let check = |watchdog: &Watchdog, status: &str| {
        let mut stream = connect(watchdog.address);
        let large = vec![b'x'; 4 << 20];
        let head = "POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length";
        write!(stream, "{head}: {}\r\n\r\n", large.len()).unwrap();
        stream.write_all(&large).unwrap();
        let text = answer(stream);
        assert!(text.starts_with(status), "{text}");
    };
    let watchdog = start(&[("fprocess", "true")]);
    for _ in 0..5 {
        check(&watchdog, "HTTP/1.1 200");
    }
    let server = Server::start(|mut caller| {
        if caller.head().is_some() {
            caller
                .write("HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno");
        }
    });
    let watchdog = server.watchdog(&[]);
    for _ in 0..5 {
        check(&watchdog, "HTTP/1.1 413");
    }
}

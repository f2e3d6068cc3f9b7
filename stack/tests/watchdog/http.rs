//! Mode http.

use std::io::{Read, Write};
use std::sync::atomic::Ordering;
use std::sync::{Mutex, mpsc};

use nix::sys::signal::Signal;

use super::server::Server;
use super::{answer, body, connect, port, read_until, send, start};

/// A second watchdog is the program of the first: an HTTP server that is surely there.
#[test]
fn the_program_is_started_and_called() {
    let inner = port().to_string();
    let (url, program) = (format!("http://localhost:{inner}"), env!("CARGO_BIN_EXE_watchdog"));
    let script =
        format!("env -u mode port={inner} metrics_port={} fprocess=sh exec_timeout=60s {program}", port());
    let mut watchdog =
        start(&[("fprocess", &script), ("mode", "http"), ("upstream_url", &url), ("exec_timeout", "2s")]);
    // The first call waits for the program to listen.
    let text = watchdog.ask("POST /x?y=z", "echo $Http_Path $Http_Query");
    assert!(text.starts_with("HTTP/1.1 200") && text.contains("/x y=z\n"), "{text}");
    assert_eq!(text.matches("x-duration-seconds").count(), 1, "{text}");
    assert!(watchdog.ask("GET /_/ready", "").starts_with("HTTP/1.1 200"));
    // What the program says is in the log, under the name of its output.
    watchdog.logged("stderr: watchdog: POST /x?y=z - 200 OK");
    let late = watchdog.ask("POST /", "sleep 1000");
    assert!(
        late.starts_with("HTTP/1.1 504") && late.contains("x-openfaas-internal: of-watchdog\r\n"),
        "{late}"
    );
    assert!(late.contains("x-duration-seconds: 2."), "{late}");
    let late = watchdog.ask("POST /\nX-Timeout: 300ms", "sleep 1000");
    assert!(late.starts_with("HTTP/1.1 504") && late.contains("x-duration-seconds: 0."), "{late}");
    // The program is told to end too, and has the time to say so.
    watchdog.signal(Signal::SIGTERM);
    assert_eq!(watchdog.ended().0, Some(0));
    watchdog.logged("stderr: watchdog: told to end");
}

#[test]
fn nobody_listens_yet() {
    let closed = format!("http://127.0.0.1:{}", port());
    let common = [("fprocess", "sleep 1000"), ("mode", "http"), ("upstream_url", &closed)];
    let watchdog = start(&[&common[..], &[("exec_timeout", "300ms")]].concat());
    assert!(watchdog.ask("GET /_/health", "").starts_with("HTTP/1.1 200"));
    assert!(watchdog.ask("GET /_/ready", "").starts_with("HTTP/1.1 503"));
    assert!(!watchdog.ask("GET /", "").starts_with("HTTP/1.1 200"));
}

#[test]
fn connections_are_used_again_and_closed_when_idle() {
    let (closed, wait) = mpsc::channel();
    let closed = Mutex::new(closed);
    let server = Server::start(move |mut caller| {
        while let Some(head) = caller.head() {
            assert!(head.starts_with("GET /base/x?y HTTP/1.1\r\n"), "{head}");
            assert!(!head.to_lowercase().contains("connection:"), "{head}");
            caller.answer("words");
        }
        closed.lock().unwrap().send(()).unwrap();
    });
    let url = format!("http://127.0.0.1:{}/base/", server.port);
    let watchdog = server.watchdog(&[("upstream_url", &url)]);
    // It looked whether the program listens.
    for _ in 0..20 {
        let text = watchdog.ask("GET /x?y\nKeep-Alive: timeout=5", "");
        assert!(text.starts_with("HTTP/1.1 200") && body(&text) == "words", "{text}");
    }
    assert!(server.connections.load(Ordering::SeqCst) < 20, "a connection for each call");
    wait.recv_timeout(super::PATIENCE).unwrap();
}

#[test]
fn a_server_that_closes_what_it_kept_is_asked_again() {
    let server = Server::start(|mut caller| {
        // One answer, and then gone without a word.
        if caller.head().is_some() {
            caller.answer("words");
        }
    });
    let watchdog = server.watchdog(&[]);
    for _ in 0..50 {
        assert_eq!(body(&watchdog.ask("GET /", "")), "words");
    }
}

#[test]
fn old_servers() {
    let server = Server::start(|mut caller| {
        caller.head();
        caller.write("HTTP/1.0 200 OK\r\nX-Old: 1\r\n\r\nuntil I close");
    });
    let watchdog = server.watchdog(&[]);
    let text = watchdog.ask("GET /", "");
    assert!(text.starts_with("HTTP/1.1 200") && text.contains("until I close"), "{text}");
    let mut old = connect(watchdog.address);
    old.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    let text = answer(old);
    assert!(text.ends_with("\r\n\r\nuntil I close"), "{text}");
}

#[test]
fn events_are_passed_on_one_by_one() {
    let (go, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let server = Server::start(move |mut caller| {
        if caller.head().is_some() {
            caller.write("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n");
            wait.lock().unwrap().recv().unwrap();
            caller.write("data: 2\n\n");
        }
    });
    let watchdog = server.watchdog(&[]);
    let mut stream = send(watchdog.address, "GET /\nAccept: text/event-stream", "");
    read_until(&mut stream, "data: 1\n\n");
    go.send(()).unwrap();
    assert!(answer(stream).contains("data: 2\n\n"));
}

#[test]
fn lines_are_passed_on_both_ways_as_they_come() {
    let server = Server::start(|mut caller| {
        let Some(head) = caller.head() else { return };
        assert!(head.to_lowercase().contains("transfer-encoding: chunked\r\n"), "{head}");
        caller.write(
            "HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n",
        );
        // Each line is answered before the next one is sent.
        for _ in 0..3 {
            let seen = read_until(&mut caller.reader, "}\n");
            assert!(seen.contains("{\"n\":"), "{seen}");
            caller.write("9\r\n{\"ok\":1}\n\r\n");
        }
        caller.write("0\r\n\r\n");
    });
    let watchdog = server.watchdog(&[]);
    let mut stream = connect(watchdog.address);
    let head = "POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    for n in 0..3 {
        stream.write_all(format!("8\r\n{{\"n\":{n}}}\n\r\n").as_bytes()).unwrap();
        read_until(&mut stream, "{\"ok\":1}\n");
    }
    stream.write_all(b"0\r\n\r\n").unwrap();
    answer(stream);
    watchdog.logged("POST / - 200 OK - ContentLength: 27B");
}

#[test]
fn websockets() {
    let server = Server::start(|mut caller| {
        let Some(head) = caller.head() else { return };
        let head = head.to_lowercase();
        if !head.contains("upgrade: websocket\r\n") || !head.contains("connection: upgrade\r\n") {
            return caller.answer("plain");
        }
        caller.write(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello",
        );
        let mut bytes = [0; 64];
        while let Ok(n) = caller.reader.read(&mut bytes) {
            if n == 0 || caller.reader.get_mut().write_all(&bytes[..n]).is_err() {
                return;
            }
        }
    });
    let mut watchdog = server.watchdog(&[("max_inflight", "1"), ("exec_timeout", "500ms")]);
    assert_eq!(body(&watchdog.ask("GET /", "")), "plain");
    let open = || {
        let mut stream = connect(watchdog.address);
        let head = "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
        stream.write_all(head.as_bytes()).unwrap();
        let text = read_until(&mut stream, "hello");
        assert!(text.starts_with("HTTP/1.1 101"), "{text}");
        assert!(text.to_lowercase().contains("upgrade: websocket\r\n"), "{text}");
        stream
    };
    let mut stream = open();
    // It is a call as long as it is open, and has no limit in time.
    watchdog.counted("http_requests_in_flight 1");
    assert!(watchdog.ask("GET /", "").starts_with("HTTP/1.1 429"));
    std::thread::sleep(std::time::Duration::from_millis(700));
    for word in ["one", "two"] {
        stream.write_all(word.as_bytes()).unwrap();
        read_until(&mut stream, word);
    }
    drop(stream);
    watchdog.counted("http_requests_in_flight 0");
    // One that is open does not keep the watchdog from ending.
    let stream = open();
    watchdog.signal(Signal::SIGTERM);
    assert_eq!(watchdog.ended().0, Some(0));
    assert_eq!(answer(stream), "");
}

#[test]
fn a_protocol_that_nobody_asked_for() {
    let server = Server::start(|mut caller| {
        if caller.head().is_some() {
            caller.write("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: else\r\n\r\n");
            caller.closed();
        }
    });
    let watchdog = server.watchdog(&[]);
    let text = watchdog.ask("GET /", "");
    assert!(text.starts_with("HTTP/1.1 500"), "{text}");
}

#[test]
fn trailers_are_dropped() {
    let (tell, told) = mpsc::channel();
    let tell = Mutex::new(tell);
    let server = Server::start(move |mut caller| {
        if let Some(head) = caller.head() {
            let seen = head + &read_until(&mut caller.reader, "0\r\n\r\n");
            caller.write(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n\
                 5\r\nwords\r\n0\r\nX-Sum: 5\r\n\r\n",
            );
            tell.lock().unwrap().send(seen).unwrap();
        }
    });
    let watchdog = server.watchdog(&[]);
    let mut stream = connect(watchdog.address);
    stream
        .write_all(
            b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close, TE\r\nTE: trailers\r\nTrailer: X-Mine\r\n\
              Transfer-Encoding: chunked\r\n\r\n5\r\nwords\r\n0\r\nX-Mine: 5\r\n\r\n",
        )
        .unwrap();
    let text = answer(stream).to_lowercase();
    assert!(text.contains("words") && text.ends_with("0\r\n\r\n"), "{text}");
    assert!(!text.contains("x-sum") && !text.contains("trailer"), "{text}");
    let seen = told.recv_timeout(super::PATIENCE).unwrap().to_lowercase();
    assert!(seen.contains("words") && !seen.contains("x-mine") && !seen.contains("te: "), "{seen}");
}

#[test]
fn a_length_for_servers_that_need_one() {
    let server = Server::start(|mut caller| {
        while let Some(head) = caller.head() {
            let head = head.to_lowercase();
            if head.contains("transfer-encoding") || !head.contains("content-length: 10\r\n") {
                return caller.answer(&head);
            }
            let mut body = [0; 10];
            caller.reader.read_exact(&mut body).unwrap();
            caller.answer(&format!("{}!", String::from_utf8_lossy(&body)));
        }
    });
    let watchdog = server.watchdog(&[("http_buffer_req_body", "true")]);
    for end in ["0\r\n\r\n", "0\r\nX-Trailer: 1\r\n\r\n"] {
        let mut stream = connect(watchdog.address);
        let head = "POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n";
        write!(stream, "{head}5\r\nsome \r\n5\r\nwords\r\n{end}").unwrap();
        assert_eq!(body(&answer(stream)), "some words!");
    }
    assert_eq!(body(&watchdog.ask("POST /", "some words")), "some words!");
}

#[test]
fn servers_that_fail() {
    let server = Server::start(|mut caller| {
        let Some(head) = caller.head() else { return };
        if head.starts_with("GET /half ") {
            caller.write("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
        } else if head.starts_with("GET /nonsense ") {
            caller.write("nonsense\r\n\r\n");
        } else if head.starts_with("GET /slow ") {
            caller.write("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
            // Who has no patience left closes.
            assert!(caller.closed());
        }
    });
    let watchdog = server.watchdog(&[("exec_timeout", "1s")]);
    for path in ["/silent", "/nonsense"] {
        let text = watchdog.ask(&format!("GET {path}"), "");
        assert!(text.starts_with("HTTP/1.1 500"), "{path}: {text}");
        assert!(text.contains("x-openfaas-internal: of-watchdog\r\n"), "{path}: {text}");
        assert!(text.contains("x-duration-seconds: "), "{path}: {text}");
    }
    for path in ["/half", "/slow"] {
        assert_eq!(body(&watchdog.ask(&format!("GET {path}"), "")), "half");
    }
    watchdog.counted("http_requests_total{code=\"500\",method=\"get\"} 2");
    watchdog.counted("http_requests_in_flight 0");
}

#[test]
fn a_caller_that_leaves_is_gone_for_the_program_too() {
    let (tell, told) = mpsc::channel();
    let tell = Mutex::new(tell);
    let server = Server::start(move |mut caller| {
        if caller.head().is_some() {
            tell.lock().unwrap().send("asked").unwrap();
            caller.closed();
            tell.lock().unwrap().send("closed").unwrap();
        }
    });
    let watchdog = server.watchdog(&[]);
    let stream = send(watchdog.address, "GET /", "");
    assert_eq!(told.recv_timeout(super::PATIENCE), Ok("asked"));
    drop(stream);
    assert_eq!(told.recv_timeout(super::PATIENCE), Ok("closed"));
    watchdog.logged("GET / - the caller left");
}

#[test]
fn a_caller_that_is_silent() {
    let server = Server::start(|mut caller| {
        caller.head();
        caller.closed();
    });
    let watchdog = server.watchdog(&[("read_timeout", "300ms")]);
    let mut stream = connect(watchdog.address);
    let head = "POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 100\r\n\r\nsome";
    stream.write_all(head.as_bytes()).unwrap();
    let text = answer(stream);
    assert!(
        text.starts_with("HTTP/1.1 408") && text.contains("sent nothing of the body for 300ms"),
        "{text}"
    );
    // Of the head too: there is nobody to answer then.
    let mut stream = connect(watchdog.address);
    stream.write_all(b"POST / HT").unwrap();
    answer(stream);
}

#[test]
fn the_programs_own_readiness() {
    let server = Server::start(|mut caller| {
        while let Some(head) = caller.head() {
            // A body stays with the watchdog: it must not be promised to the program.
            match head.starts_with("GET /mine?x=1 HTTP/1.1\r\n") && !head.contains("content-length") {
                true => caller.write("HTTP/1.1 418 I'm a teapot\r\nContent-Length: 5\r\n\r\nwords"),
                false => caller.answer("no"),
            }
        }
    });
    let watchdog = server.watchdog(&[("ready_path", "/mine?x=1")]);
    for sent in ["", "a body"] {
        let text = watchdog.ask("GET /_/ready", sent);
        assert!(text.starts_with("HTTP/1.1 418") && body(&text) == "words", "{text}");
    }
    watchdog.counted("http_requests_in_flight 0");
}

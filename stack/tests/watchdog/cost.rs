//! What calls cost the watchdog itself.

use std::io::{Read, Write};
use std::net::Shutdown;

use super::{Watchdog, body, connect, start};

/// Bytes that are sent and come back.
const LARGE: u64 = 256 << 20;

/// How much more than at its start it may ever use meanwhile, KiB.
const MORE: u64 = 8 << 10;

/// A figure of `/proc/PID/status`, KiB.
fn figure(pid: u32, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Sends a large body, reads what comes back, and gives how much that was.
fn large(watchdog: &Watchdog, chunked: bool) -> u64 {
    let stream = connect(watchdog.address);
    let mut writer = stream.try_clone().unwrap();
    let sending = std::thread::spawn(move || {
        let piece = vec![b'x'; 1 << 20];
        let length = if chunked {
            "Transfer-Encoding: chunked".to_owned()
        } else {
            format!("Content-Length: {LARGE}")
        };
        write!(writer, "POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{length}\r\n\r\n").unwrap();
        for _ in 0..LARGE / piece.len() as u64 {
            if chunked {
                write!(writer, "{:x}\r\n", piece.len()).unwrap();
            }
            writer.write_all(&piece).unwrap();
            if chunked {
                writer.write_all(b"\r\n").unwrap();
            }
        }
        if chunked {
            writer.write_all(b"0\r\n\r\n").unwrap();
        }
    });
    let mut reader = stream;
    let (mut buffer, mut count) = (vec![0; 1 << 20], 0);
    while let Ok(n) = reader.read(&mut buffer) {
        if n == 0 {
            break;
        }
        count += buffer[..n].iter().filter(|byte| **byte == b'x').count() as u64;
    }
    sending.join().unwrap();
    let _ = reader.shutdown(Shutdown::Both);
    count
}

#[test]
fn large_bodies_take_no_memory() {
    let inner = start(&[("fprocess", "cat"), ("exec_timeout", "0")]);
    let url = format!("http://{}", inner.address);
    let outer =
        start(&[("fprocess", "sleep 1000"), ("mode", "http"), ("upstream_url", &url), ("exec_timeout", "0")]);
    let watchdogs = [&inner, &outer];
    let before = watchdogs.map(|watchdog| figure(watchdog.child.id(), "VmHWM"));
    for chunked in [false, true] {
        // The head has a few of the letter too.
        let back = large(&outer, chunked);
        assert!((LARGE..LARGE + 100).contains(&back), "{back} of {LARGE} bytes came back");
    }
    for (watchdog, before) in watchdogs.into_iter().zip(before) {
        let after = figure(watchdog.child.id(), "VmHWM");
        assert!(after <= before + MORE, "{before} KiB at the start, {after} KiB at most");
    }
}

#[test]
fn many_calls_take_no_memory() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("index.html"), "words").unwrap();
    let inner = start(&[("mode", "static"), ("static_path", folder.path().to_str().unwrap())]);
    let url = format!("http://{}", inner.address);
    let outer = start(&[("fprocess", "sleep 1000"), ("mode", "http"), ("upstream_url", &url)]);
    let call = || assert_eq!(body(&outer.ask("GET /", "")), "words");
    for _ in 0..100 {
        call();
    }
    let before = figure(outer.child.id(), "RssAnon");
    for _ in 0..1000 {
        call();
    }
    let after = figure(outer.child.id(), "RssAnon");
    assert!(after <= before + 512, "{before} KiB after 100 calls, {after} KiB after 1100");
    outer.counted("http_requests_in_flight 0");
}

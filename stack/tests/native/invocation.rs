//! What the way to a function does to a call: nothing that anybody could notice. Each is asked in HTTP/1.1 and in
//! HTTP/2 without TLS, through the gateway and our watchdog.

use std::fs;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::Method;
use hyper::body::{Frame, Incoming};
use hyper::header::{CONTENT_TYPE, LOCATION};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::line::{Line, Sent, empty};
use super::namespaces::inside;
use super::stand_in::{self, Stage};
use super::{IMAGE, PATIENCE, image, ready};
use crate::lab::Lab;

pub const PLAIN: &str = "127.0.0.1:8080";

/// The gateway and one function, `f`.
pub async fn start(lab: &mut Lab) -> std::sync::Arc<Stage> {
    image(lab, "one", "here\n");
    lab.start_containerd();
    lab.start_gateway();
    ready(lab).await;
    stand_in::deploy(lab, "f").await
}

pub fn plain() -> SocketAddr {
    PLAIN.parse().unwrap()
}

/// A body that comes when the test says so.
fn channel() -> (tokio::sync::mpsc::UnboundedSender<Frame<Bytes>>, Sent) {
    let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
    let frames = stream::unfold(receiver, async |mut receiver| Some((Ok(receiver.recv().await?), receiver)));
    (sender, StreamBody::new(Box::pin(frames)).boxed_unsync())
}

/// The next piece of a body. (The end may come as one without bytes.)
async fn piece(body: &mut Incoming) -> Option<String> {
    loop {
        let frame = tokio::time::timeout(PATIENCE, body.frame()).await.expect("no piece came")?;
        let bytes = frame.unwrap().into_data().expect("trailers came");
        if !bytes.is_empty() {
            return Some(String::from_utf8(bytes.to_vec()).unwrap());
        }
    }
}

#[test]
fn both_ways_at_once() {
    inside("invocation::both_ways_at_once", async |mut lab| {
        let stage = start(&mut lab).await;
        for version in [1, 2] {
            let mut line = Line::plain(plain(), version).await;
            for kind in ["text/event-stream", "application/x-ndjson"] {
                let headers = [("accept", kind)];
                let answer = line.send(Method::GET, "/function/f/pieces", &headers, empty()).await.unwrap();
                assert_eq!(answer.headers()[CONTENT_TYPE], kind);
                let mut body = answer.into_body();
                for number in 0..3 {
                    // The function goes on only when this piece is here.
                    assert_eq!(piece(&mut body).await, Some(format!("piece {number}\n")), "{version} {kind}");
                    stage.next.add_permits(1);
                }
                assert_eq!(piece(&mut body).await, None);
            }
            let (sender, body) = channel();
            let headers = [("trailer", "x-sum"), ("te", "trailers")];
            sender.send(Frame::data(Bytes::from("first"))).unwrap();
            let mut body =
                line.send(Method::POST, "/function/f/echo", &headers, body).await.unwrap().into_body();
            assert_eq!(piece(&mut body).await.as_deref(), Some("first"));
            for text in ["second", "third"] {
                sender.send(Frame::data(Bytes::from(text))).unwrap();
                assert_eq!(piece(&mut body).await.as_deref(), Some(text), "{version}");
            }
            let trailers = [("x-sum".parse().unwrap(), "1".parse().unwrap())];
            sender.send(Frame::trailers(trailers.into_iter().collect())).unwrap();
            drop(sender);
            assert_eq!(piece(&mut body).await, None);
            assert_eq!(stage.trailers.load(Ordering::Relaxed), 0, "the function got trailers");

            let answer = line.send(Method::GET, "/function/f/trailers", &[], empty()).await.unwrap();
            assert!(!answer.headers().contains_key("trailer"));
            let body = answer.into_body().collect().await.unwrap();
            assert_eq!(body.trailers(), None);
            assert_eq!(body.to_bytes(), "body");
        }
    });
}

#[test]
fn paths_redirects_and_headers() {
    inside("invocation::paths_redirects_and_headers", async |mut lab| {
        let stage = start(&mut lab).await;
        for version in [1, 2] {
            let mut line = Line::plain(plain(), version).await;
            for path in
                ["/", "/a%2Fb//c/../d/./%2e%2e/e%00?x=%20&y=a%2Fb&&z", "//", "/..", "/?", "/%C3%A4?%2F"]
            {
                let (status, text) = line.get(&format!("/function/f{path}")).await.unwrap();
                assert_eq!(
                    (status, text.lines().next()),
                    (200, Some(format!("GET {path}").as_str())),
                    "{version}"
                );
            }
            let (_, text) = line.get("/function/f").await.unwrap();
            assert!(text.starts_with("GET /\n"), "{text}");
            for method in
                [Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS]
            {
                let answer = line.send(method.clone(), "/function/f/m", &[], empty()).await.unwrap();
                assert_eq!(answer.status(), 200);
                let body = answer.into_body().collect().await.unwrap().to_bytes();
                let wanted = if method == Method::HEAD { String::new() } else { format!("{method} /m") };
                assert_eq!(String::from_utf8_lossy(&body).lines().next().unwrap_or_default(), wanted);
            }
            // What HTTP/2 says elsewhere, and in pieces.
            let headers = [("cookie", "a=1"), ("cookie", "b=2")];
            let answer = line.send(Method::GET, "/function/f/h", &headers, empty()).await.unwrap();
            let text = answer.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(text, "GET /h\nbothy|a=1; b=2||", "{version}");

            let before = stage.calls.load(Ordering::Relaxed);
            let answer = line.send(Method::GET, "/function/f/redirect", &[], empty()).await.unwrap();
            assert_eq!(answer.status(), 302);
            assert_eq!(answer.headers()[LOCATION], "/function/f/elsewhere?x=1");
            assert_eq!(stage.calls.load(Ordering::Relaxed), before + 1, "somebody followed");
        }
    });
}

#[test]
fn who_leaves_ends_the_call() {
    inside("invocation::who_leaves_ends_the_call", async |mut lab| {
        let stage = start(&mut lab).await;
        for version in [1, 2] {
            let mut line = Line::plain(plain(), version).await;
            let calls = stage.calls.load(Ordering::Relaxed);
            let waiting = async {
                while stage.calls.load(Ordering::Relaxed) == calls {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            tokio::select! {
                _ = line.send(Method::GET, "/function/f/hang", &[], empty()) => panic!("it hangs"),
                () = waiting => {}
            }
            if version == 1 {
                // In HTTP/1.1 a call is ended with its connection, in HTTP/2 the others of it go on.
                line = Line::plain(plain(), version).await;
            }
            stage.until_left().await;
            let mut body =
                line.send(Method::GET, "/function/f/endless", &[], empty()).await.unwrap().into_body();
            assert!(piece(&mut body).await.is_some());
            drop(body);
            if version == 1 {
                line = Line::plain(plain(), version).await;
            }
            stage.until_left().await;
            assert_eq!(line.get("/function/f/").await.unwrap().0, 200, "{version}");
        }
    });
}

/// The most memory that a process has had since this was asked for last, in bytes.
fn peak(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    // proc(5): 5 sets the peak to what is now.
    fs::write(format!("/proc/{pid}/clear_refs"), "5").unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

#[test]
fn a_gibibyte_takes_no_memory() {
    inside("invocation::a_gibibyte_takes_no_memory", async |mut lab| {
        const SIZE: usize = 1 << 30;
        const BOUND: u64 = 48 << 20;
        let _stage = start(&mut lab).await;
        let pids = ["/stack", "/watchdog"].map(|name| (name, lab.processes(name)[0]));
        for (_, pid) in pids {
            peak(pid);
        }
        for version in [1, 2] {
            let mut line = Line::plain(plain(), version).await;
            let zeroes =
                stream::iter((0..SIZE >> 16).map(|_| Ok(Frame::data(Bytes::from_static(&[0; 1 << 16])))));
            let body = StreamBody::new(zeroes).boxed_unsync();
            let begun = Instant::now();
            let answer = line.send(Method::POST, "/function/f/count", &[], body).await.unwrap();
            assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), SIZE.to_string());
            let up = begun.elapsed();
            let mut body = line
                .send(Method::GET, &format!("/function/f/zeroes?{SIZE}"), &[], empty())
                .await
                .unwrap()
                .into_body();
            let mut sum = 0;
            while let Some(frame) = body.frame().await {
                sum += frame.unwrap().data_ref().map_or(0, Bytes::len);
            }
            assert_eq!(sum, SIZE);
            println!("1 GiB in HTTP/{version}: up {up:.1?}, up and down {:.1?}", begun.elapsed());
            for (name, pid) in pids {
                let bytes = peak(pid);
                println!("  peak of {name}: {:.1} MiB", bytes as f64 / f64::from(1 << 20));
                assert!(bytes < BOUND, "{name}: {bytes} bytes");
            }
        }
    });
}

#[test]
fn one_time_for_all() {
    inside("invocation::one_time_for_all", async |mut lab| {
        let text = "version = 1\n[gateway]\ntimeout = \"3s\"\n";
        fs::write(lab.folder.join("bothy.toml"), text).unwrap();
        let stage = start(&mut lab).await;
        // The watchdog has it too, and a function's own stays.
        let env = |name: &str, own| json!({"service": name, "image": IMAGE, "envProcess": "/usr/bin/env", "envVars": own});
        for (name, own, wanted) in [
            ("short", json!({}), "exec_timeout=3000ms"),
            ("own", json!({"exec_timeout": "1m"}), "exec_timeout=1m"),
        ] {
            lab.expect(200, Method::POST, "/system/functions", &env(name, own).to_string()).await;
            let answer = lab.expect(200, Method::GET, &format!("/function/{name}"), "").await;
            assert!(answer.text.lines().any(|line| line == wanted), "{wanted}: {}", answer.text);
            assert!(answer.text.contains("write_timeout=3000ms"), "{}", answer.text);
        }
        for version in [1, 2] {
            // An answer that does not come.
            let mut line = Line::plain(plain(), version).await;
            let begun = Instant::now();
            let (status, _) = line.get("/function/f/hang").await.unwrap();
            // Whoever counts first: the gateway says 502, the watchdog 504.
            assert!([502, 504].contains(&status), "{status}");
            stage.until_left().await;
            // One that does not end.
            let headers = [("accept", "text/event-stream")];
            let answer = line.send(Method::GET, "/function/f/pieces", &headers, empty()).await.unwrap();
            let mut body = answer.into_body();
            assert!(piece(&mut body).await.is_some());
            assert!(body.frame().await.unwrap().is_err(), "it broke off, and looks as if it had ended");
            assert!((3..30).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
        }
        // One that nobody reads: in HTTP/2 the others of its connection go on, and get their answers.
        let mut line = Line::plain(plain(), 2).await;
        let unread = line.send(Method::GET, "/function/f/endless", &[], empty()).await.unwrap();
        let end = Instant::now() + PATIENCE;
        while stage.left.available_permits() == 0 {
            assert!(Instant::now() < end, "a call that nobody reads does not end");
            assert_eq!(line.get("/function/f/").await.unwrap().0, 200);
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        drop(unread);
        assert_eq!(line.get("/function/f/").await.unwrap().0, 200);
    });
}

#[test]
fn strangers_of_http2_break_nothing() {
    inside("invocation::strangers_of_http2_break_nothing", async |mut lab| {
        let stage = start(&mut lab).await;
        let gateway = lab.processes("/stack")[0];
        peak(gateway);
        // Begun and taken back at once, again and again (CVE-2023-44487).
        let mut socket = TcpStream::connect(PLAIN).await.unwrap();
        socket.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
        let path = b"/function/f/hang";
        // :method GET and :scheme http of the static table (RFC 7541, appendix A), then path and authority in letters.
        let mut head = vec![0x82, 0x86, 0x04, u8::try_from(path.len()).unwrap()];
        head.extend(path);
        head.extend([0x01, 1, b'b']);
        let frame = |kind: u8, flags: u8, stream: u32, content: &[u8]| {
            let length = u32::try_from(content.len()).unwrap().to_be_bytes();
            [&length[1..], &[kind, flags], &stream.to_be_bytes(), content].concat()
        };
        let (mut read, mut write) = socket.split();
        let flood = async {
            for stream in (1..200_000_u32).step_by(2) {
                let both = [frame(1, 5, stream, &head), frame(3, 0, stream, &8_u32.to_be_bytes())].concat();
                if write.write_all(&both).await.is_err() {
                    return;
                }
            }
        };
        let mut said = Vec::new();
        let (_, ()) = tokio::join!(tokio::time::timeout(PATIENCE, read.read_to_end(&mut said)), flood);
        // GOAWAY (7) with ENHANCE_YOUR_CALM (11).
        let calls = stage.calls.load(Ordering::Relaxed);
        println!("{calls} calls came through; peak of the gateway: {} MiB", peak(gateway) >> 20);
        let (mut rest, mut goaway) = (said.as_slice(), None);
        while let Some((head, after)) = rest.split_at_checked(9) {
            let length = usize::try_from(u32::from_be_bytes([0, head[0], head[1], head[2]])).unwrap();
            let Some((content, after)) = after.split_at_checked(length) else { break };
            if head[3] == 7 {
                goaway = Some(content[7]);
            }
            rest = after;
        }
        assert_eq!(goaway, Some(11), "the flood was not ended");
        assert!(calls < 1000, "{calls}");

        // A head that is too large; then the gateway is as it was.
        let mut line = Line::plain(plain(), 2).await;
        let large = "x".repeat(80 << 10);
        let refused = line.send(Method::GET, "/function/f/", &[("x-large", &large)], empty()).await;
        assert!(refused.is_err() || refused.is_ok_and(|answer| answer.status() == 431));
        let mut line = Line::plain(plain(), 2).await;
        assert_eq!(line.get("/function/f/").await.unwrap().0, 200);
        assert_eq!(Line::plain(plain(), 1).await.get("/function/f/").await.unwrap().0, 200);
    });
}

mod long {
    use super::*;

    #[test]
    fn silent_clients_are_let_go() {
        inside("invocation::long::silent_clients_are_let_go", async |mut lab| {
            let _stage = start(&mut lab).await;
            let beginnings: [&[u8]; 5] = [
                b"",
                b"PRI * HTTP/2.0\r\n",
                b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
                b"GET / HT",
                b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\nGET",
            ];
            let clients = beginnings.map(|beginning| async move {
                let mut socket = TcpStream::connect(PLAIN).await.unwrap();
                socket.write_all(beginning).await.unwrap();
                let mut said = Vec::new();
                let end = tokio::time::timeout(Duration::from_secs(200), socket.read_to_end(&mut said)).await;
                assert!(end.is_ok(), "{} keeps its connection", beginning.escape_ascii());
            });
            futures_util::future::join_all(clients).await;
        });
    }
}

//! What takes minutes, for `cargo bothy test --long`.

use std::time::{Duration, Instant};

use hyper::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::invocation::{plain, start};
use super::line::{Line, empty};
use super::namespaces::inside;

/// As the gateway has it: a minute, and some seconds for a call that is on its way.
const PATIENCE: Duration = Duration::from_secs(60);
const FAREWELL: Duration = Duration::from_secs(10);

#[test]
fn connections_without_a_call_are_let_go() {
    inside("long::connections_without_a_call_are_let_go", async |mut lab| {
        let _stage = start(&mut lab).await;
        let mut silent = TcpStream::connect(plain()).await.unwrap();
        let mut half = TcpStream::connect(plain()).await.unwrap();
        half.write_all(b"GET /healthz HTTP/1.1\r\nHost: x").await.unwrap();
        let mut called = TcpStream::connect(plain()).await.unwrap();
        called.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let began = Instant::now();
        let mut answer = [0; 1024];
        assert!(called.read(&mut answer).await.unwrap() > 0);
        // One that goes on calling stays.
        let mut busy = Line::plain(plain(), 1).await;
        let calls = async {
            while began.elapsed() < PATIENCE + FAREWELL * 2 {
                busy.send(Method::GET, "/healthz", &[], empty()).await.unwrap();
                tokio::time::sleep(Duration::from_secs(20)).await;
            }
        };
        let end = async |name: &str, stream: &mut TcpStream| {
            let mut rest = Vec::new();
            // Closed or reset.
            let _ = stream.read_to_end(&mut rest).await;
            let lasted = began.elapsed();
            assert!(lasted + Duration::from_secs(1) > PATIENCE, "{name}: {lasted:?}");
        };
        let ends = async {
            tokio::join!(end("silent", &mut silent), end("called", &mut called), end("half", &mut half))
        };
        let ended = tokio::time::timeout(PATIENCE + FAREWELL * 2, ends);
        let (ended, ()) = tokio::join!(ended, calls);
        ended.expect("all are let go");
    });
}

//! Calls that become something else, such as websockets.

use std::time::{Duration, Instant};

use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, UPGRADE};
use hyper::{Method, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::invocation::{plain, start};
use super::line::{Line, empty};
use super::namespaces::inside;

/// Asks to change to another protocol.
async fn upgraded(line: &mut Line) -> Response<Incoming> {
    let headers = [
        (CONNECTION.as_str(), "keep-alive, Upgrade"),
        (UPGRADE.as_str(), "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    line.send(Method::GET, "/function/f/socket", &headers, empty()).await.unwrap()
}

/// Changes to another protocol, and says something in it.
pub async fn websocket(line: &mut Line) {
    let answer = upgraded(line).await;
    assert_eq!((answer.status().as_u16(), &answer.headers()[UPGRADE]), (101, &"websocket".parse().unwrap()));
    let mut socket = TokioIo::new(hyper::upgrade::on(answer).await.unwrap());
    // A text frame of the client's (RFC 6455, section 5.7), then whatever else.
    for bytes in [&b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58"[..], &[7; 100_000]] {
        let (mut read, mut write) = tokio::io::split(&mut socket);
        let mut back = vec![0; bytes.len()];
        let (sent, got) = tokio::join!(write.write_all(bytes), read.read_exact(&mut back));
        sent.unwrap();
        got.unwrap();
        assert!(back == bytes);
    }
}

#[test]
fn websockets() {
    inside("sockets::websockets", async |mut lab| {
        let stage = start(&mut lab).await;
        let mut line = Line::plain(plain(), 1).await;
        websocket(&mut line).await;
        stage.until_left().await;
    });
}

#[test]
fn no_more_than_there_are_places_for() {
    inside("sockets::no_more_than_there_are_places_for", async |mut lab| {
        let stage = start(&mut lab).await;
        // They have no end, so there is an end to how many they are.
        let mut open = Vec::new();
        for _ in 0..256 {
            let mut line = Line::plain(plain(), 1).await;
            let answer = upgraded(&mut line).await;
            assert_eq!(answer.status().as_u16(), 101);
            open.push((hyper::upgrade::on(answer).await.unwrap(), line));
        }
        let mut line = Line::plain(plain(), 1).await;
        let refused = upgraded(&mut line).await;
        assert_eq!(refused.status().as_u16(), 503);
        let words = refused.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(words, "256 upgraded connections are open, and no more are let in.");
        assert_eq!(line.get("/function/f/").await.unwrap().0, 200);
        open.pop();
        let begun = Instant::now();
        while upgraded(&mut Line::plain(plain(), 1).await).await.status().as_u16() != 101 {
            assert!(begun.elapsed() < Duration::from_secs(10), "no place gets free");
        }
        drop(open);
        stage.until_left().await;
    });
}

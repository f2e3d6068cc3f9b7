//! Asynchronous calls: `cargo bothy bench queue`.

mod accepted;
mod completed;

use std::time::Duration;

use async_nats::jetstream::Context;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper_util::rt::TokioIo;

use crate::cost::status;
use crate::figure::Figure;
use crate::lab::Lab;
use crate::{chaos, deploy};

/// Connections that calls come over.
const CLIENTS: usize = 64;
/// What is sent with each.
const BODY: &[u8] = &[b'x'; 128];
/// The default queue's stream.
const QUEUE: &str = "OF_faas-request";

/// How often each thing is measured; the median counts.
pub const TURNS: usize = 5;
/// Calls that are drained.
pub const CALLS: usize = 20_000;
/// Calls while things are killed.
pub const KILLS: usize = 5_000;

/// Calls taken, against messages published without being synced, and with a sync for each.
pub async fn accepted(lab: &Lab, turns: usize) -> Vec<Figure> {
    deploy(lab, "void").await;
    accepted::figures(lab, turns).await
}

/// Calls made, against calls that somebody waits for; the worker's size.
pub async fn completed(lab: &mut Lab, turns: usize, calls: usize) -> Vec<Figure> {
    deploy(lab, "void").await;
    lab.start_worker();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let worker = lab.worker.as_ref().map_or(0, std::process::Child::id);
    let size = status(i32::try_from(worker).unwrap(), "VmRSS:");
    lab.kill_worker();
    let mut figures = completed::figures(lab, turns, calls).await;
    figures.push(Figure::alone("worker_rss", size, "bytes").of("queue"));
    figures
}

/// Calls while gateway, worker and NATS are killed again and again.
pub async fn kills(lab: &mut Lab, calls: usize) -> Vec<Figure> {
    lab.start_worker();
    let outcome = chaos::run(lab, calls).await;
    let figure = |name, value: usize| Figure::alone(name, value as f64, "calls").of("queue");
    vec![
        figure("accepted_while_killing", outcome.accepted),
        figure("lost", outcome.lost),
        figure("dead", outcome.dead),
        figure("duplicates", outcome.duplicates),
        Figure::alone("kills", outcome.kills as f64, "").of("queue"),
    ]
}

/// A client of the NATS server.
async fn jetstream() -> Context {
    let client = async_nats::connect("nats://127.0.0.1:4222").await.unwrap();
    async_nats::jetstream::new(client)
}

/// A connection to the gateway, in a closed loop: so many calls, or as many as fit into that time.
async fn call(path: &'static str, wanted: u16, until: impl Fn() -> bool) -> usize {
    let stream = tokio::net::TcpStream::connect("127.0.0.1:8080").await.unwrap();
    stream.set_nodelay(true).unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let mut made = 0;
    while until() {
        let body = Full::new(bytes::Bytes::from_static(BODY));
        let request = Request::post(path).header("host", "bench").body(body).unwrap();
        let answer = sender.send_request(request).await.unwrap();
        assert_eq!(answer.status(), wanted);
        answer.into_body().collect().await.unwrap();
        made += 1;
    }
    made
}

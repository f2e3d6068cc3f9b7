//! A running function under load, called directly and through the gateway by the same client.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper_util::rt::TokioIo;
use stack::containerd::LABEL_ADDRESS;

use crate::figure::{Figure, percentile};
use crate::floor::milliseconds;
use crate::lab::Lab;
use crate::{delete, deploy};

/// How long each load lasts.
const LASTS: Duration = Duration::from_secs(1);
/// How often; direct calls and those through the gateway take turns, since the host is not the same from one second to the next.
const TURNS: usize = 7;
/// What is sent and comes back.
const BODY: &[u8] = &[b'x'; 128];

/// Throughput with 16 connections, and what the gateway adds to the latency of one.
pub async fn figures(lab: &Lab) -> [Figure; 2] {
    deploy(lab, "load").await;
    let direct = Target { address: address(lab, "load").await, path: "/" };
    let gateway = Target { address: ([127, 0, 0, 1], 8080).into(), path: "/function/load" };
    let (mut ratios, mut alone, mut with) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..TURNS {
        let (least, _) = run(direct, 16).await;
        let (through, _) = run(gateway, 16).await;
        ratios.push((through / least, through, least));
        alone.extend(run(direct, 1).await.1);
        with.extend(run(gateway, 1).await.1);
    }
    ratios.sort_by(|one, other| one.0.total_cmp(&other.0));
    let (_, through, least) = ratios[TURNS / 2];
    delete(lab, "load").await;
    [
        Figure::with_floor("throughput_c16", through, "1/s", least),
        Figure::alone("added_latency_p99", percentile(with, 99) - percentile(alone, 99), "ms"),
    ]
}

/// Where a function's only instance answers.
async fn address(lab: &Lab, name: &str) -> SocketAddr {
    let containers = lab.containerd().containers_of("openfaas-fn", Some(name)).await.unwrap();
    let ip: std::net::IpAddr = containers[0].labels[LABEL_ADDRESS].parse().unwrap();
    (ip, 8080).into()
}

#[derive(Clone, Copy)]
struct Target {
    address: SocketAddr,
    path: &'static str,
}

/// Calls in a closed loop over so many connections; gives calls a second, and each one's milliseconds.
async fn run(target: Target, connections: usize) -> (f64, Vec<f64>) {
    let over = Arc::new(AtomicBool::new(false));
    let began = Instant::now();
    let clients: Vec<_> = (0..connections).map(|_| tokio::spawn(client(target, over.clone()))).collect();
    tokio::time::sleep(LASTS).await;
    over.store(true, Ordering::Relaxed);
    let mut taken = Vec::new();
    for client in clients {
        taken.extend(client.await.unwrap());
    }
    (taken.len() as f64 / began.elapsed().as_secs_f64(), taken)
}

async fn client(target: Target, over: Arc<AtomicBool>) -> Vec<f64> {
    let stream = tokio::net::TcpStream::connect(target.address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let mut taken = Vec::new();
    while !over.load(Ordering::Relaxed) {
        let request =
            Request::post(target.path).header("host", "bench").body(Full::new(Bytes::from_static(BODY)));
        let began = Instant::now();
        let answer = sender.send_request(request.unwrap()).await.unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), BODY);
        taken.push(milliseconds(began));
    }
    taken
}

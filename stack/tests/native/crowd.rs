//! Many calls, and what the gateway counts of them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::PATIENCE;
use crate::lab::Lab;

/// An answer's status, and whether it tells when to try again.
pub async fn knock(address: SocketAddr, path: &str, body: &str) -> Result<(u16, bool), String> {
    let mut stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
    let method = if body.is_empty() { "GET" } else { "POST" };
    let head = format!("{method} {path} HTTP/1.1\r\nhost: b\r\nconnection: close\r\ncontent-length");
    let request = format!("{head}: {}\r\n\r\n{body}", body.len());
    stream.write_all(request.as_bytes()).await.map_err(|error| error.to_string())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&answer).into_owned();
    let status = text.get(9..12).and_then(|status| status.parse().ok());
    Ok((status.ok_or("no answer")?, text.to_ascii_lowercase().contains("\r\nretry-after: ")))
}

/// A metric's value, if it is there.
pub async fn metric(name: &str) -> Option<f64> {
    let mut stream = TcpStream::connect("127.0.0.1:8082").await.ok()?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: b\r\nconnection: close\r\n\r\n").await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    answer.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

pub async fn until_metric(lab: &Lab, name: &str, wanted: f64) {
    let end = Instant::now() + PATIENCE;
    loop {
        let value = metric(name).await;
        if value == Some(wanted) {
            return;
        }
        assert!(Instant::now() < end, "{name} is {value:?}, not {wanted}: {}", lab.gateway_log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// So many calls at any time, until it is dropped.
pub struct Crowd {
    #[expect(dead_code, reason = "the calls end with it")]
    calls: JoinSet<()>,
}

impl Crowd {
    pub fn new(lab: &Lab, calls: usize) -> Self {
        let mut set = JoinSet::new();
        for _ in 0..calls {
            let address = lab.address();
            set.spawn(async move {
                loop {
                    let _ = knock(address, "/function/f", "sleep 1").await;
                }
            });
        }
        Self { calls: set }
    }

    /// Another one that comes so often.
    pub fn steady(lab: &Lab, pause: Duration) -> Self {
        let mut set = JoinSet::new();
        let (address, places) = (lab.address(), Arc::new(Semaphore::new(64)));
        set.spawn(async move {
            let mut pace = tokio::time::interval(pause);
            loop {
                pace.tick().await;
                let place = places.clone().acquire_owned().await.unwrap();
                tokio::spawn(async move {
                    let _ = knock(address, "/function/f", "echo").await;
                    drop(place);
                });
            }
        });
        Self { calls: set }
    }
}

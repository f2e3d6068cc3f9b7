//! The second listener: `/metrics` for Prometheus, and `/healthz`. What it tells is not for everybody, and it asks for
//! no password, as OpenFaaS's does not: functions do not reach it, and neither should strangers.

mod functions;
pub mod process;
mod requests;
pub mod text;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

pub use requests::{Request, Requests};

use super::Gateway;
use super::clock::{Clock, Ring};
use super::listen::listen;
use super::reply::{self, Body, empty};
use text::Text;

/// How long a request may take to come, and an answer to be read.
const PATIENCE: Duration = Duration::from_secs(5);

/// Most connections at a time; who comes later waits in the kernel's queue.
const CONNECTIONS: usize = 32;

/// Prometheus's text format.
const FORMAT: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// Where to listen, if anywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listen(pub Option<SocketAddr>);

impl FromStr for Listen {
    type Err = std::net::AddrParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() { Ok(Self(None)) } else { text.parse().map(|address| Self(Some(address))) }
    }
}

/// What is told, as it is now.
pub type Exposition = Arc<dyn Fn() -> String + Send + Sync>;

/// Serves for ever. A port that is taken is told once and tried again: the functions matter more.
pub async fn serve(address: SocketAddr, exposition: Exposition) {
    let listener = listen(address, "no metrics").await;
    tracing::info!("metrics at {address}");
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        // Never closed: it lives as long as this.
        let place = places.clone().acquire_owned().await;
        match listener.accept().await {
            Ok((stream, _)) => {
                let exposition = exposition.clone();
                tokio::spawn(async move {
                    connection(stream, exposition).await;
                    drop(place);
                });
            }
            // Out of descriptors or memory: whoever has some gives them back in a moment.
            Err(error) => {
                tracing::debug!("metrics: accept: {error}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, exposition: Exposition) {
    let clock = Clock::default();
    let mut time = clock.watch(Some(PATIENCE));
    let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let answer = answer(request.method(), request.uri().path(), || exposition());
        let counting = clock.begin(PATIENCE);
        std::future::ready(Ok::<_, Infallible>(answer.map(|body| counting.hold(body))))
    });
    let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    loop {
        tokio::select! {
            biased;
            // Who leaves, or does not read, is nobody's loss.
            _ = connection.as_mut() => return,
            ring = time.ring() => if ring != Ring::Over {
                return;
            },
        }
    }
}

fn answer(method: &Method, path: &str, metrics: impl FnOnce() -> String) -> Response<Body> {
    match (path, method) {
        ("/healthz", &Method::GET) => reply::text(StatusCode::OK, "OK"),
        ("/metrics", &Method::GET | &Method::HEAD) => {
            let mut response = reply::text(StatusCode::OK, metrics());
            response.headers_mut().insert(CONTENT_TYPE, FORMAT);
            response
        }
        ("/healthz" | "/metrics", _) => empty(StatusCode::METHOD_NOT_ALLOWED),
        _ => reply::text(StatusCode::NOT_FOUND, "404 page not found\n"),
    }
}

impl Gateway {
    /// All metrics as they are now.
    pub fn exposition(&self) -> String {
        let mut text = Text::default();
        functions::write(&mut text, &self.functions.all(), &self.world.usage());
        self.requests.write(&mut text);
        process::write(&mut text);
        text.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes() {
        for (method, path, status) in [
            (Method::GET, "/healthz", 200),
            (Method::HEAD, "/healthz", 405),
            (Method::POST, "/healthz", 405),
            (Method::GET, "/metrics", 200),
            (Method::POST, "/metrics", 405),
            (Method::GET, "/", 404),
            (Method::GET, "/system/functions", 404),
        ] {
            assert_eq!(answer(&method, path, String::new).status(), status, "{method} {path}");
        }
    }

    #[test]
    fn nowhere_is_a_place() {
        assert_eq!("".parse(), Ok(Listen(None)));
        assert_eq!("127.0.0.1:1".parse(), Ok(Listen(Some(([127, 0, 0, 1], 1).into()))));
        assert!("8082".parse::<Listen>().is_err());
    }
}

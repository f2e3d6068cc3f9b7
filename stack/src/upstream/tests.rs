//! A function that says what it is told to, and a client and its way to it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::StatusCode;
use hyper::client::conn::http1 as client;
use hyper::server::conn::http1 as server;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::*;

const PATIENCE: Duration = Duration::from_secs(10);

type Out = BoxBody<Bytes, hyper::Error>;

/// A function that says what it is told to, in connections that it counts.
struct Function {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
}

impl Function {
    /// What it says to the first request of a connection, to the second one and so on; then it closes it.
    async fn start(answers: &'static [&'static str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, connections) = (listener.local_addr().unwrap(), Arc::<AtomicUsize>::default());
        let count = connections.clone();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                count.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(async move {
                    for answer in answers {
                        if head(&mut stream).await.is_none() {
                            return;
                        }
                        stream.write_all(answer.as_bytes()).await.unwrap();
                    }
                });
            }
        });
        Self { address, connections }
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

/// Reads a request's head; nothing where the other side is gone.
async fn head(stream: &mut TcpStream) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    Some(())
}

/// A client and its way through us to a function.
async fn through(upstream: &Arc<Upstream>, address: SocketAddr) -> client::SendRequest<Out> {
    let (near, far) = duplex(1 << 16);
    let upstream = upstream.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let upstream = upstream.clone();
        async move {
            let sent = upstream.send(address, request.map(Outgoing::new), false).await;
            sent.map_err(|failure| io::Error::other(failure.to_string()))
        }
    });
    tokio::spawn(server::Builder::new().serve_connection(TokioIo::new(far), service));
    let (sender, connection) = client::handshake(TokioIo::new(near)).await.unwrap();
    tokio::spawn(connection);
    sender
}

/// A call of its own; nothing where it fails.
async fn call(upstream: &Arc<Upstream>, address: SocketAddr) -> Option<String> {
    let mut sender = through(upstream, address).await;
    let body = Full::default().map_err(|never| match never {}).boxed();
    let answer = async {
        let response = sender.send_request(Request::new(body)).await.ok()?;
        assert_eq!(response.status(), StatusCode::OK);
        let bytes = response.into_body().collect().await.ok()?.to_bytes();
        Some(String::from_utf8(bytes.to_vec()).unwrap())
    };
    timeout(PATIENCE, answer).await.expect("it ends")
}

fn resting(upstream: &Upstream) -> usize {
    upstream.shelf().len()
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[tokio::test]
async fn a_connection_rests_between_two_calls_and_whatever_way_its_answer_ends() {
    let trailers =
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x\r\n\r\n2\r\nok\r\n0\r\nx: y\r\n\r\n";
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
    let answers = [OK, trailers, chunked, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", OK];
    let function = Function::start(Box::leak(Box::new(answers))).await;
    let upstream = Arc::new(Upstream::default());
    for answer in ["ok", "ok", "ok", "", "ok"] {
        assert_eq!(call(&upstream, function.address).await.as_deref(), Some(answer));
        assert_eq!(function.connections(), 1);
    }
}

#[tokio::test]
async fn one_that_was_closed_while_it_rested_is_no_call() {
    let function = Function::start(&[OK]).await;
    let upstream = Arc::new(Upstream::default());
    for connections in 1..=20 {
        assert_eq!(call(&upstream, function.address).await.as_deref(), Some("ok"));
        assert_eq!(function.connections(), connections);
    }
}

#[tokio::test]
async fn who_closes_it_instead_of_an_answer_has_failed_at_once() {
    // It has the second request, and nobody knows what it did with it.
    let function = Function::start(&[OK, ""]).await;
    let upstream = Arc::new(Upstream::default());
    assert_eq!(call(&upstream, function.address).await.as_deref(), Some("ok"));
    assert_eq!(call(&upstream, function.address).await, None);
    assert_eq!(function.connections(), 1);
    assert_eq!(call(&upstream, function.address).await.as_deref(), Some("ok"));
    assert_eq!((function.connections(), resting(&upstream)), (2, 1));
}

#[tokio::test]
async fn what_comes_behind_an_answer_is_nobody_elses() {
    let two =
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
    let function = Function::start(Box::leak(Box::new([two, two]))).await;
    let upstream = Arc::new(Upstream::default());
    for connections in 1..=3 {
        assert_eq!(call(&upstream, function.address).await.as_deref(), Some("ok"));
        assert_eq!((function.connections(), resting(&upstream)), (connections, 0));
    }
}

#[tokio::test]
async fn an_answer_before_the_whole_call_came_leaves_no_connection() {
    let function = Function::start(&[OK, OK]).await;
    let upstream = Arc::new(Upstream::default());
    let mut sender = through(&upstream, function.address).await;
    let (pieces, more) = mpsc::unbounded_channel::<Bytes>();
    let body = StreamBody::new(
        futures_util::stream::unfold(more, |mut more| async { Some((more.recv().await?, more)) })
            .map(|piece| Ok::<_, hyper::Error>(Frame::data(piece))),
    );
    pieces.send(Bytes::from_static(b"half")).unwrap();
    let request = Request::builder().method("POST").body(BodyExt::boxed(body)).unwrap();
    let response = timeout(PATIENCE, sender.send_request(request)).await.unwrap().unwrap();
    let bytes = timeout(PATIENCE, response.into_body().collect()).await.unwrap().unwrap().to_bytes();
    assert_eq!((&bytes[..], resting(&upstream)), (&b"ok"[..], 0));
    assert_eq!(call(&upstream, function.address).await.as_deref(), Some("ok"));
    assert_eq!(function.connections(), 2);
    drop(pieces);
}

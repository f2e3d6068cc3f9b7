//! A function whose program is the test itself: the watchdog in its instance passes calls on to a socket that was made
//! inside the instance's network.

use std::convert::Infallible;
use std::fs::File;
use std::net::TcpListener as Listener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{ACCEPT, CONNECTION, CONTENT_TYPE, LOCATION, TRAILER, UPGRADE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::lab::Lab;
use crate::{IMAGE, PATIENCE, layout};

pub type Body = http_body_util::combinators::UnsyncBoxBody<Bytes, hyper::Error>;

/// Image of one without a watchdog.
pub const BARE: &str = "localhost/bare:latest";

/// Bytes of one piece of a large body.
const PIECE: usize = 64 << 10;

/// What the test and its function tell each other.
pub struct Stage {
    /// Each lets one more piece out of `/pieces`.
    pub next: Semaphore,
    /// Each is a call of `/hang` or `/endless` whose caller was seen to leave.
    pub left: Semaphore,
    /// Calls that came.
    pub calls: AtomicUsize,
    /// Trailers that came.
    pub trailers: AtomicUsize,
}

impl Stage {
    /// Waits until a call's caller was seen to leave.
    pub async fn until_left(&self) {
        let seen = tokio::time::timeout(PATIENCE, self.left.acquire()).await;
        seen.expect("the function did not hear that its caller left").unwrap().forget();
    }
}

/// Tells that a call ended by whoever held it.
struct Held(Arc<Stage>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.left.add_permits(1);
    }
}

/// Writes the image of one without a watchdog: all that it does is sleep. To be done before the gateway starts.
pub fn bare_image(lab: &Lab) {
    let process = json!({"Entrypoint": ["/bin/sleep", "100000"], "User": "app"});
    layout::assemble(&lab.folder.join("images/bare"), BARE, "amd64", &process, &[&layout::programs("")]);
}

/// Deploys one of that image under a name; it ends with the test.
pub async fn deploy_bare(lab: &Lab, name: &str) -> Arc<Stage> {
    begin(lab, name, &json!({"service": name, "image": BARE}).to_string(), "0.0.0.0:8080").await
}

/// Deploys one under a name; it ends with the test.
pub async fn deploy(lab: &Lab, name: &str) -> Arc<Stage> {
    let variables = json!({"mode": "http", "upstream_url": "http://127.0.0.1:9000"});
    let body =
        json!({"service": name, "image": IMAGE, "envProcess": "/bin/sleep 100000", "envVars": variables})
            .to_string();
    begin(lab, name, &body, "127.0.0.1:9000").await
}

async fn begin(lab: &Lab, name: &str, body: &str, address: &'static str) -> Arc<Stage> {
    let stage = Arc::new(Stage {
        next: Semaphore::new(0),
        left: Semaphore::new(0),
        calls: AtomicUsize::new(0),
        trailers: AtomicUsize::new(0),
    });
    let netns = lab.folder.join(format!("netns/openfaas-fn.{name}.0"));
    let begin = async {
        let listener = inside(&netns, address).await;
        tokio::spawn(serve(listener, stage.clone()));
    };
    let ((), _) = tokio::join!(begin, lab.expect(200, Method::POST, "/system/functions", body));
    stage
}

/// A socket of an instance's network, once that is there.
pub async fn inside(netns: &Path, address: &'static str) -> TcpListener {
    let end = std::time::Instant::now() + PATIENCE;
    loop {
        let path = netns.to_owned();
        // A thread that is in another network ends with it.
        let bound = std::thread::spawn(move || -> std::io::Result<Listener> {
            nix::sched::setns(File::open(path)?, nix::sched::CloneFlags::CLONE_NEWNET)?;
            Listener::bind(address)
        });
        match bound.join().unwrap() {
            Ok(listener) => {
                listener.set_nonblocking(true).unwrap();
                return TcpListener::from_std(listener).unwrap();
            }
            Err(error) => assert!(std::time::Instant::now() < end, "{}: {error}", netns.display()),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn serve(listener: TcpListener, stage: Arc<Stage>) {
    while let Ok((stream, _)) = listener.accept().await {
        let stage = stage.clone();
        let service = service_fn(move |request| answer(request, stage.clone()));
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades());
    }
}

async fn answer(mut request: Request<Incoming>, stage: Arc<Stage>) -> Result<Response<Body>, Infallible> {
    stage.calls.fetch_add(1, Ordering::Relaxed);
    let path = request.uri().path().to_owned();
    let response = Response::builder();
    Ok(match path.as_str() {
        "/pieces" => {
            let kind = request.headers()[ACCEPT].clone();
            let pieces = stream::unfold(0, move |number| {
                let stage = stage.clone();
                async move {
                    if number > 0 {
                        stage.next.acquire().await.unwrap().forget();
                    }
                    (number < 3)
                        .then(|| (Ok(Frame::data(Bytes::from(format!("piece {number}\n")))), number + 1))
                }
            });
            response.header(CONTENT_TYPE, kind).body(BodyExt::boxed_unsync(StreamBody::new(Box::pin(pieces))))
        }
        "/echo" => {
            let body = request.into_body().map_frame(move |frame| {
                if frame.is_trailers() {
                    stage.trailers.fetch_add(1, Ordering::Relaxed);
                }
                frame
            });
            response.body(body.boxed_unsync())
        }
        "/trailers" => {
            let trailers =
                [("x-sum", "1")].map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
            let frames = [Frame::data(Bytes::from("body")), Frame::trailers(trailers.into_iter().collect())];
            response
                .header(TRAILER, "x-sum")
                .body(BodyExt::boxed_unsync(StreamBody::new(stream::iter(frames.map(Ok)))))
        }
        "/hang" => {
            let _held = Held(stage);
            std::future::pending().await
        }
        "/endless" => {
            let held = Held(stage);
            let pieces = stream::repeat_with(move || {
                let _ = &held;
                Ok(Frame::data(Bytes::from_static(&[b'.'; PIECE])))
            });
            response.body(BodyExt::boxed_unsync(StreamBody::new(Box::pin(pieces))))
        }
        "/redirect" => {
            response.status(StatusCode::FOUND).header(LOCATION, "/function/f/elsewhere?x=1").body(text(""))
        }
        "/count" => {
            let (mut body, mut sum) = (request.into_body(), 0);
            while let Some(frame) = body.frame().await {
                sum += frame.map_or(0, |frame| frame.data_ref().map_or(0, Bytes::len));
            }
            response.body(text(&sum.to_string()))
        }
        "/zeroes" => {
            let count = request.uri().query().unwrap().parse::<usize>().unwrap() / PIECE;
            let pieces = stream::iter((0..count).map(|_| Ok(Frame::data(Bytes::from_static(&[0; PIECE])))));
            response.body(BodyExt::boxed_unsync(StreamBody::new(pieces)))
        }
        "/socket" => {
            let upgrade = hyper::upgrade::on(&mut request);
            tokio::spawn(async move {
                let (mut read, mut write) = tokio::io::split(TokioIo::new(upgrade.await.unwrap()));
                let _held = Held(stage);
                // An error is an end like any other.
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
            let response = response.status(StatusCode::SWITCHING_PROTOCOLS);
            response
                .header(CONNECTION, "upgrade")
                .header(UPGRADE, "websocket")
                .body(Empty::new().map_err(never).boxed_unsync())
        }
        _ => {
            let header = |name: &str| request.headers().get(name).map_or("", |value| value.to_str().unwrap());
            let lines = ["x-forwarded-host", "cookie", "transfer-encoding", "te"].map(header).join("|");
            response.body(text(&format!("{} {}\n{lines}", request.method(), request.uri())))
        }
    }
    .unwrap())
}

fn text(text: &str) -> Body {
    Full::new(Bytes::from(text.to_owned())).map_err(never).boxed_unsync()
}

fn never(never: Infallible) -> hyper::Error {
    match never {}
}

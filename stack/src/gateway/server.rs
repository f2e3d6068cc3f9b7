//! Connections: accepted, served, and let go in order.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, HeaderMap, ORIGIN};
use hyper::{Method, Request, Response, StatusCode, Uri};
use nix::sys::socket::{setsockopt, sockopt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Gateway;
use super::clock::Clock;
use super::connection::{self, Terms};
use super::reply::{Body, empty, redirect, text, unauthorized};
use super::router::{self, Act, Route, route, route_to};
use super::{machine, metrics};
use crate::key::Key;
use crate::lanes::Lanes;
use crate::network::Subnet;

/// Most connections at a time, for each port of its own: who comes later waits in the kernel's queue, and strangers do
/// not keep out the machine itself.
pub const CONNECTIONS: usize = 512;
/// The same for the queue-worker, which has a connection for each call that runs, and bounds them itself.
pub const WORKER_CONNECTIONS: usize = 8192;

/// Most calls at a time in HTTP/2, on all connections.
const STREAMS: usize = 1024;

/// How long a client may take for TLS's handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// A client that is gone without a word is noticed by questions on a connection that is silent, in seconds: after so
/// long the first, then so many, so far from each other.
const SILENT: u32 = 60;
const QUESTIONS: u32 = 4;
const BETWEEN: u32 = 15;

/// How long an answer that is there may take to be read.
const READ_PATIENCE: Duration = Duration::from_secs(60);

/// Where connections come from.
pub struct Door {
    /// The socket.
    pub listener: TcpListener,
    /// What makes TLS of them; nothing: plain HTTP.
    pub tls: Option<TlsAcceptor>,
    /// Who is served, where that is not everybody.
    pub only: Option<Neighbours>,
    /// Connections at a time.
    pub places: usize,
}

/// The machine itself and its functions; others are told of the TLS port.
#[derive(Debug, Clone, Copy)]
pub struct Neighbours {
    /// The functions' addresses.
    pub functions: Subnet,
    /// The port that others use.
    pub tls_port: u16,
}

/// Serves through any number of doors, until it is ended.
#[derive(Clone)]
pub struct Server {
    gateway: Arc<Gateway>,
    connections: TaskTracker,
    ending: CancellationToken,
    streams: Arc<Semaphore>,
    lanes: Arc<Lanes>,
}

impl Server {
    /// A server without a door.
    ///
    /// # Errors
    /// The threads for connections cannot be had.
    pub fn new(gateway: Arc<Gateway>) -> std::io::Result<Self> {
        let (connections, ending) = (TaskTracker::new(), gateway.ending.clone());
        let lanes = Arc::new(Lanes::start()?);
        Ok(Self { gateway, connections, ending, streams: Arc::new(Semaphore::new(STREAMS)), lanes })
    }

    /// Serves who comes in, until the server is ended.
    pub async fn open(self, door: Door) {
        let Door { listener, tls, only, places } = door;
        let places = Arc::new(Semaphore::new(places));
        watch_over(&listener);
        loop {
            let accepted = async {
                // Never closed: it lives as long as this.
                let place = places.clone().acquire_owned().await;
                listener.accept().await.map(|accepted| (accepted, place))
            };
            let accepted = tokio::select! {
                accepted = accepted => accepted,
                () = self.ending.cancelled() => return,
            };
            let ((stream, client), place) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of descriptors or memory: whoever has some gives them back in a moment.
                    if !matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset) {
                        tracing::error!("accept: {error}");
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                    continue;
                }
            };
            // A connection that was reset already is found out at its first read.
            let _ = stream.set_nodelay(true);
            let terms = Terms {
                gateway: self.gateway.clone(),
                streams: self.streams.clone(),
                ending: self.ending.clone(),
                only_tls: only.filter(|only| !only.include(&stream, client)).map(|only| only.tls_port),
            };
            let tls = tls.clone();
            let Ok(stream) = stream.into_std() else { continue };
            let (lane, on_lane) = self.lanes.enter();
            let serving = async move {
                let _held = (place, on_lane);
                // It moves to this thread.
                let stream = match TcpStream::from_std(stream) {
                    Ok(stream) => stream,
                    Err(error) => return tracing::error!("connection of {client}: {error}"),
                };
                match tls {
                    None => connection::serve(stream, client, terms).await,
                    Some(tls) => match tokio::time::timeout(HANDSHAKE, tls.accept(stream)).await {
                        Ok(Ok(stream)) => connection::serve(stream, client, terms).await,
                        Ok(Err(error)) => tracing::debug!("TLS with {client}: {error}"),
                        Err(_) => tracing::debug!("TLS with {client}: no handshake in {HANDSHAKE:?}"),
                    },
                }
            };
            self.connections.spawn_on(serving, lane);
        }
    }

    /// Lets nobody in any more, and waits until the calls inside have ended, at most for `drain`.
    pub async fn end(self, drain: Duration) {
        self.ending.cancel();
        self.connections.close();
        if tokio::time::timeout(drain, self.connections.wait()).await.is_err() {
            let left = self.connections.len();
            tracing::warn!("{left} connections had not ended after {} s", drain.as_secs());
        }
    }
}

impl Neighbours {
    fn include(&self, stream: &TcpStream, client: SocketAddr) -> bool {
        let address = client.ip().to_canonical();
        // Who is called at the address that it calls from is the machine.
        let itself = stream.local_addr().is_ok_and(|own| own.ip().to_canonical() == address);
        itself || address.is_loopback() || matches!(address, IpAddr::V4(v4) if self.functions.contains(v4))
    }
}

/// Connections that come in have it from their listener.
fn watch_over(listener: &TcpListener) {
    let set = setsockopt(listener, sockopt::KeepAlive, &true)
        .and_then(|()| setsockopt(listener, sockopt::TcpKeepIdle, &SILENT))
        .and_then(|()| setsockopt(listener, sockopt::TcpKeepInterval, &BETWEEN))
        .and_then(|()| setsockopt(listener, sockopt::TcpKeepCount, &QUESTIONS));
    if let Err(error) = set {
        tracing::warn!("clients that are gone without a word are not noticed: {error}");
    }
}

/// Whether a browser asks because a page told it to: it would send the password that somebody gave it for our own page, and
/// that changes nothing. Browsers say so by `Origin` whenever it is not only read (Fetch, section 3.2), and the newer ones by
/// Fetch Metadata, too. Others do not.
fn from_a_page(headers: &HeaderMap) -> bool {
    headers.contains_key(ORIGIN) || headers.contains_key("sec-fetch-site")
}

impl Gateway {
    /// Answers within a time: a function's call has its own, counted from its begin; what the gateway says itself takes
    /// as long as it takes, but must be read then.
    pub async fn timed(
        self: &Arc<Self>,
        request: Request<Incoming>,
        client: SocketAddr,
        clock: &Clock,
    ) -> Response<Body> {
        let uri = request.uri().clone();
        let path = uri.path();
        let called = self.called(&request, client).map(|key| key.to_string());
        let route = match &called {
            Some(name) => route_to(name, request.method(), path),
            None => route(request.method(), path),
        };
        let (call, lines) =
            (matches!(route, Route::Invoke(..)), matches!(route, Route::Machine | Route::Logs));
        let counted = metrics::Request::begin(request.method(), path).filter(|_| !call);
        let _inside = clock.enter();
        let answer = self.answer(request, client, route, &uri, clock).await;
        if call {
            return answer;
        }
        self.requests.end(counted, answer.status());
        // As long as somebody reads them: `logs --follow`.
        answer.map(|body| match lines {
            true => clock.pace(READ_PATIENCE, body),
            false => clock.begin(READ_PATIENCE).hold(body),
        })
    }

    async fn answer(
        self: &Arc<Self>,
        mut request: Request<Incoming>,
        client: SocketAddr,
        route: Route<'_>,
        uri: &Uri,
        clock: &Clock,
    ) -> Response<Body> {
        let path = uri.path();
        if route.is_guarded(path) {
            if !self.credentials.admit(request.headers()) {
                // A browser sends the page's password nowhere else then.
                return unauthorized(if route == Route::Page { "Functions" } else { "Restricted" });
            }
            if request.method() != Method::GET && from_a_page(request.headers()) {
                return text(StatusCode::FORBIDDEN, "no web page may change anything here: refused");
            }
        }
        let answer = match route {
            Route::Health => Ok(self.health().await),
            Route::Info => Ok(self.info()),
            Route::List => self.list(uri.query()).await,
            Route::Create => self.deploy(request, false).await,
            Route::Update => self.deploy(request, true).await,
            Route::Delete => self.delete(request).await,
            Route::Describe(name) => self.describe(name, uri.query()).await,
            Route::Scale(name) => self.scale(request, name).await,
            Route::Namespaces => self.namespaces().await,
            Route::Namespace(act, name) => self.namespace(request, act, name).await,
            Route::Secrets(act) => self.secrets(request, act).await,
            Route::Logs => self.logs.serve(uri.query()).await,
            Route::Alert => self.alert(request).await,
            Route::Machine => machine::pass_on(&self.control, request).await,
            Route::Invoke(name, rest) => {
                self.keep_password(&mut request);
                Ok(self.invoke(request, name, rest, client, clock).await)
            }
            Route::Enqueue(name, rest) => {
                if self.keep_password(&mut request) && self.cancels(request.method(), name, rest) {
                    self.cancel(name).await
                } else {
                    Ok(self.enqueue(request, name, rest, client).await)
                }
            }
            Route::Call(Act::Read, id) => self.call(id).await,
            Route::Call(_, id) => self.cancel(id).await,
            Route::DeadLetters => self.dead_letters(uri.query()).await,
            Route::DeadLetter(Act::Read, number) => self.dead_letter(number).await,
            Route::DeadLetter(_, number) => self.purge(number).await,
            Route::Replay(number) => self.replay(number).await,
            Route::Page => Ok(self.page()),
            Route::Root => Ok(redirect(StatusCode::TEMPORARY_REDIRECT, router::PAGE)),
            Route::Clean(path) => {
                let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
                Ok(redirect(StatusCode::MOVED_PERMANENTLY, &format!("{path}{query}")))
            }
            Route::Nothing(StatusCode::NOT_FOUND) => Ok(text(StatusCode::NOT_FOUND, "404 page not found\n")),
            Route::Nothing(status) => Ok(empty(status)),
        };
        answer.unwrap_or_else(Response::from)
    }
}

impl Gateway {
    /// The administrator's password is no function's business: a browser sends it to all pages of ours. Whether it was there.
    fn keep_password(&self, request: &mut Request<Incoming>) -> bool {
        let admitted =
            request.headers().contains_key(AUTHORIZATION) && self.credentials.admit(request.headers());
        if admitted {
            request.headers_mut().remove(AUTHORIZATION);
        }
        admitted
    }

    /// Whether `DELETE /async-function/NAME` names a call and no function, as OpenFaaS has it.
    fn cancels(&self, method: &Method, name: &str, rest: &str) -> bool {
        let function = Key::from_path(name).and_then(|key| self.functions.get(&key)?.document());
        method == Method::DELETE && rest.is_empty() && function.is_none()
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::socket::getsockopt;
    use tokio::net::TcpStream;

    use super::*;

    #[tokio::test]
    async fn who_is_accepted_is_probed_too() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        watch_over(&listener);
        let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        assert!(getsockopt(&stream, sockopt::KeepAlive).unwrap());
        assert_eq!(getsockopt(&stream, sockopt::TcpKeepIdle).unwrap(), SILENT);
        assert_eq!(getsockopt(&stream, sockopt::TcpKeepInterval).unwrap(), BETWEEN);
        assert_eq!(getsockopt(&stream, sockopt::TcpKeepCount).unwrap(), QUESTIONS);
    }
}

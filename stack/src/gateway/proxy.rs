//! Calls of functions: both bodies are streamed, nothing is buffered, and whoever leaves first ends the call.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::header::{CONNECTION, CONTENT_TYPE, HOST, HeaderValue, UPGRADE};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::Gateway;
use super::clock::{Clock, Counting};
use super::headers::{self, Stamp, from_http2, strip};
use super::reply::{Body, BodyError, busy, empty, proxy_error, text};
use super::target::target;
use crate::key::Key;
use crate::reconcile::{Entry, Running, State, Tally};
use crate::upstream::{Failure, Outgoing, Received, Upstream};

/// Upgraded connections (websockets) at a time: they have no time limit, and each holds two sockets and two buffers.
const TUNNELS: usize = 256;

/// Calls that may wait for all functions together; one function has fewer places.
const WAITING: usize = 1024;

/// When who is turned away may try again, in seconds: where others wait already, where it could not be started or has ended
/// too often, and where only another's leaving helps.
const RETRY_CROWDED: u64 = 1;
const RETRY_CLOSED: u64 = 5;
const RETRY_TUNNELS: u64 = 5;

/// The client towards functions.
pub struct Proxy {
    upstream: Upstream,
    limit: Duration,
    tunnels: Arc<Semaphore>,
    waiting: Semaphore,
}

impl Proxy {
    /// `limit` is the longest that a call may take, its bodies included.
    pub fn new(limit: Duration) -> Self {
        let (tunnels, waiting) = (Arc::new(Semaphore::new(TUNNELS)), Semaphore::new(WAITING));
        Self { upstream: Upstream::default(), limit, tunnels, waiting }
    }
}

impl Gateway {
    /// Passes a call on. `name` is as the path has it; `rest` is the path behind it, raw.
    pub async fn invoke(
        &self,
        request: Request<Incoming>,
        name: &str,
        rest: &str,
        client: SocketAddr,
        clock: &Clock,
    ) -> Response<Body> {
        let stamp = Stamp::new(request.headers());
        let mut counting = Some(clock.begin(self.proxy.limit));
        let mut response = self.pass_on(request, name, rest, client, &stamp, &mut counting).await;
        stamp.mark(response.headers_mut());
        match counting {
            // It is our own answer.
            Some(counting) => response.map(|body| counting.hold(body)),
            None => response,
        }
    }

    /// The function's answer takes the call's time along.
    async fn pass_on(
        &self,
        mut request: Request<Incoming>,
        name: &str,
        rest: &str,
        client: SocketAddr,
        stamp: &Stamp,
        time: &mut Option<Counting>,
    ) -> Response<Body> {
        let found = Key::from_path(name).and_then(|key| self.functions.get(&key));
        let Some(function) = found.filter(|function| function.document().is_some()) else {
            return not_found(name);
        };
        let deadline = Instant::now() + self.proxy.limit;
        let mut tally = Tally::begin(function.clone());

        let upgrade = upgrade_of(&request);
        let place = match upgrade.is_some().then(|| self.proxy.tunnels.clone().try_acquire_owned()) {
            None => None,
            Some(Ok(place)) => Some(place),
            Some(Err(_)) => {
                tally.refused(StatusCode::SERVICE_UNAVAILABLE.as_u16());
                let message = format!("{TUNNELS} upgraded connections are open, and no more are let in.");
                return busy(message, RETRY_TUNNELS);
            }
        };
        let request_type = request.headers().get(CONTENT_TYPE).cloned();
        let client_side = upgrade.is_some().then(|| hyper::upgrade::on(&mut request));
        let Some(mut request) = towards_function(request, rest, client, stamp, upgrade.as_ref()) else {
            tally.answered(StatusCode::BAD_REQUEST.as_u16());
            return text(StatusCode::BAD_REQUEST, "the path cannot be passed on");
        };
        let (running, mut response) = loop {
            let rests = || {
                matches!(function.state(), State::Idle)
                    && function.document().is_some_and(|d| d.replicas == 0)
            };
            if rests() {
                function.wake();
            }
            let entered = match function.enter(deadline - Instant::now(), &self.proxy.waiting).await {
                Entry::Inside(running) => Ok(running),
                // It waited for an update that came to nothing, or for what was scaled to none meanwhile.
                Entry::Closed if rests() && Instant::now() < deadline => continue,
                Entry::Closed => Err(("No endpoints available for", RETRY_CLOSED)),
                Entry::Crowded => Err(("Too many calls wait for", RETRY_CROWDED)),
            };
            let running = match entered {
                Ok(running) => running,
                Err((reason, retry)) => {
                    tally.refused(StatusCode::SERVICE_UNAVAILABLE.as_u16());
                    return busy(format!("{reason}: {}.", function.key.name), retry);
                }
            };
            tally.let_in();
            let endpoint = running.endpoint();
            request.headers_mut().insert(HOST, endpoint.host.clone());
            let sending = self.proxy.upstream.send(endpoint.address, request, upgrade.is_some());
            let sent = match time.as_ref() {
                Some(time) => time.within(sending).await,
                None => Some(sending.await),
            };
            match sent {
                Some(Ok(response)) => break (running, response),
                // Nothing was sent: it is another instance's call now, or the next one's.
                Some(Err(Failure::Connect(error, back))) if takes_no_connections(&error) => {
                    tracing::debug!("{}: {} takes no connections: {error}", function.key, endpoint.address);
                    function.refused(endpoint);
                    request = *back;
                }
                Some(Err(error)) => {
                    tracing::warn!("{}: {error}", function.key);
                    let status = StatusCode::INTERNAL_SERVER_ERROR;
                    tally.answered(status.as_u16());
                    return proxy_error(status, format!("Can't reach service for: {}.", function.key.name));
                }
                None => {
                    tracing::warn!("{}: no answer in {} s", function.key, self.proxy.limit.as_secs());
                    return empty(StatusCode::BAD_GATEWAY);
                }
            }
        };
        tally.answered(response.status().as_u16());
        if let (StatusCode::SWITCHING_PROTOCOLS, Some(client_side)) = (response.status(), client_side) {
            let function_side = hyper::upgrade::on(&mut response);
            tokio::spawn(tunnel(client_side, function_side, (running, tally, place)));
            return response.map(|_| empty(StatusCode::OK).into_body());
        }
        strip(response.headers_mut());
        let fallback = request_type.unwrap_or(HeaderValue::from_static("text/plain"));
        response.headers_mut().entry(CONTENT_TYPE).or_insert(fallback);
        let time = time.take();
        response.map(|body| Call { body, time, inside: (running, tally) }.boxed_unsync())
    }
}

/// A client's request as the function gets it; nothing where its path cannot be passed on.
fn towards_function(
    request: Request<Incoming>,
    rest: &str,
    client: SocketAddr,
    stamp: &Stamp,
    upgrade: Option<&HeaderValue>,
) -> Option<Request<Outgoing>> {
    let (mut parts, body) = request.into_parts();
    from_http2(&mut parts.headers, parts.uri.authority());
    headers::towards_function(&mut parts.headers, client, stamp);
    if let Some(protocol) = upgrade {
        parts.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        parts.headers.insert(UPGRADE, protocol.clone());
    }
    parts.extensions.clear();
    parts.version = hyper::Version::HTTP_11;
    parts.uri = target(rest, parts.uri.query())?;
    Some(Request::from_parts(parts, Outgoing::new(body)))
}

/// What a function's body is wrapped in: it ends with the call's time, and holds the call's place until then.
struct Call {
    body: Received,
    time: Option<Counting>,
    #[expect(dead_code, reason = "counts the call out when it is dropped")]
    inside: (Running, Tally),
}

impl hyper::body::Body for Call {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match Pin::new(&mut self.body).poll_frame(cx) {
            // Trailers stay out: what they say was not asked for (the Trailer header is stripped).
            Poll::Ready(Some(Ok(frame))) if frame.is_trailers() => Poll::Ready(None),
            Poll::Ready(frame) => Poll::Ready(frame.map(|frame| frame.map_err(BodyError::from))),
            Poll::Pending if self.time.as_ref().is_some_and(Counting::is_over) => {
                Poll::Ready(Some(Err("the call's time is over".into())))
            }
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Whether that is the fault of the other side: that we have no file descriptor left is not.
fn takes_no_connections(error: &io::Error) -> bool {
    use io::ErrorKind;
    matches!(
        error.kind(),
        ErrorKind::ConnectionRefused
            | ErrorKind::ConnectionReset
            | ErrorKind::ConnectionAborted
            | ErrorKind::HostUnreachable
            | ErrorKind::NetworkUnreachable
            | ErrorKind::TimedOut
    )
}

/// The protocol that a client wants to change to.
fn upgrade_of(request: &Request<Incoming>) -> Option<HeaderValue> {
    let connection = request.headers().get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let asked =
        connection.flat_map(|value| value.split(',')).any(|word| word.trim().eq_ignore_ascii_case("upgrade"));
    asked.then(|| request.headers().get(UPGRADE).cloned())?
}

/// There is no such function. It is the platform that says so, and not a function: whoever calls in the background tries again.
pub(super) fn not_found(name: &str) -> Response<Body> {
    let (short, full) = match Key::from_path(name) {
        Some(key) => (key.name.to_string(), key.to_string()),
        None => (name.to_owned(), name.to_owned()),
    };
    let message = format!(
        "error finding function {full}: server returned non-200 status code (404) for function, {short}, body: "
    );
    proxy_error(StatusCode::NOT_FOUND, message)
}

/// Carries the bytes of both directions until either side has enough.
async fn tunnel(
    client: hyper::upgrade::OnUpgrade,
    function: hyper::upgrade::OnUpgrade,
    inside: (Running, Tally, Option<OwnedSemaphorePermit>),
) {
    if let Ok((client, function)) = tokio::try_join!(client, function) {
        let (mut client, mut function) = (TokioIo::new(client), TokioIo::new(function));
        // An error is an end like any other.
        let _ = tokio::io::copy_bidirectional(&mut client, &mut function).await;
    }
    drop(inside);
}

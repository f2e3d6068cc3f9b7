//! Calls of functions: both bodies are streamed, nothing is buffered, and whoever leaves first ends the call.

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
use tokio::time::{Instant, Sleep, sleep_until, timeout_at};

use super::Gateway;
use super::desk::Desk;
use super::headers::{Stamp, from_http2, strip, towards_function};
use super::reply::{Body, BodyError, empty, proxy_error, text};
use super::target::target;
use super::upstream::{Failure, Received, Upstream};
use crate::key::Key;
use crate::reconcile::{Function, Running, State, Tally};

/// Upgraded connections (websockets) at a time: they have no time limit, and each holds two sockets and two buffers.
const TUNNELS: usize = 256;

/// The client towards functions.
pub struct Proxy {
    upstream: Upstream,
    limit: Duration,
    tunnels: Arc<Semaphore>,
}

impl Proxy {
    /// `limit` is the longest that a call may take, its bodies included.
    pub fn new(limit: Duration) -> Self {
        Self { upstream: Upstream::new(), limit, tunnels: Arc::new(Semaphore::new(TUNNELS)) }
    }

    /// The longest that a call may take.
    pub fn limit(&self) -> Duration {
        self.limit
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
    ) -> Response<Body> {
        let stamp = Stamp::new(request.headers());
        let mut response = self.pass_on(request, name, rest, client, &stamp).await;
        stamp.mark(response.headers_mut());
        response
    }

    async fn pass_on(
        &self,
        mut request: Request<Incoming>,
        name: &str,
        rest: &str,
        client: SocketAddr,
        stamp: &Stamp,
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
                return proxy_error(StatusCode::SERVICE_UNAVAILABLE, message);
            }
        };
        let request_type = request.headers().get(CONTENT_TYPE).cloned();
        let client_side = upgrade.is_some().then(|| hyper::upgrade::on(&mut request));
        let (mut parts, body) = request.into_parts();
        let query = parts.uri.query().map(str::to_owned);
        from_http2(&mut parts.headers, parts.uri.authority());
        towards_function(&mut parts.headers, client, stamp);
        if let Some(protocol) = &upgrade {
            parts.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
            parts.headers.insert(UPGRADE, protocol.clone());
        }
        parts.extensions.clear();
        parts.version = hyper::Version::HTTP_11;
        parts.uri = match target(rest, query.as_deref()) {
            Some(uri) => uri,
            None => {
                tally.answered(StatusCode::BAD_REQUEST.as_u16());
                return text(StatusCode::BAD_REQUEST, "the path cannot be passed on");
            }
        };
        let desk = Desk::new(body);
        let (running, mut response) = loop {
            let rests = || {
                matches!(function.state(), State::Idle)
                    && function.document().is_some_and(|d| d.replicas == 0)
            };
            if rests() {
                function.wake();
            }
            let Some(running) = function.enter(deadline - Instant::now()).await else {
                // It waited for an update that came to nothing, or for what was scaled to none meanwhile.
                if rests() && Instant::now() < deadline {
                    continue;
                }
                let message = format!("No endpoints available for: {}.", function.key.name);
                tally.refused(StatusCode::SERVICE_UNAVAILABLE.as_u16());
                return proxy_error(StatusCode::SERVICE_UNAVAILABLE, message);
            };
            tally.let_in();
            let address = running.address();
            if let Ok(host) = HeaderValue::try_from(address.to_string()) {
                parts.headers.insert(HOST, host);
            }
            let Some(body) = desk.lend() else {
                return cannot_reach(&function, &mut tally);
            };
            let request = Request::from_parts(parts.clone(), body);
            let sending = self.proxy.upstream.send(address, request, upgrade.is_some());
            match timeout_at(deadline, sending).await {
                Ok(Ok(response)) => break (running, response),
                // Nothing was sent: it is another instance's call now, or the next one's.
                Ok(Err(error)) if takes_no_connections(&error) && desk.has() => {
                    tracing::debug!("{}: {address} takes no connections", function.key);
                    function.refused(running.endpoint());
                }
                Ok(Err(error)) => {
                    tracing::warn!("{}: {error}", function.key);
                    return cannot_reach(&function, &mut tally);
                }
                Err(_) => {
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
        let deadline = Box::pin(sleep_until(deadline));
        response.map(|body| Call { body, deadline, inside: (running, tally) }.boxed())
    }
}

/// What a function's body is wrapped in: it ends with the call's time, and holds the call's place until then.
struct Call {
    body: Received,
    deadline: Pin<Box<Sleep>>,
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
            Poll::Pending if self.deadline.as_mut().poll(cx).is_ready() => {
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
fn takes_no_connections(error: &Failure) -> bool {
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<std::io::Error>() {
            use std::io::ErrorKind;
            return matches!(
                error.kind(),
                ErrorKind::ConnectionRefused
                    | ErrorKind::ConnectionReset
                    | ErrorKind::HostUnreachable
                    | ErrorKind::NetworkUnreachable
                    | ErrorKind::TimedOut
            );
        }
        cause = error.source();
    }
    false
}

/// The protocol that a client wants to change to.
fn upgrade_of(request: &Request<Incoming>) -> Option<HeaderValue> {
    let connection = request.headers().get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let asked =
        connection.flat_map(|value| value.split(',')).any(|word| word.trim().eq_ignore_ascii_case("upgrade"));
    asked.then(|| request.headers().get(UPGRADE).cloned())?
}

fn not_found(name: &str) -> Response<Body> {
    let (short, full) = match Key::from_path(name) {
        Some(key) => (key.name.to_string(), key.to_string()),
        None => (name.to_owned(), name.to_owned()),
    };
    let message = format!(
        "error finding function {full}: server returned non-200 status code (404) for function, {short}, body: "
    );
    text(StatusCode::NOT_FOUND, message)
}

fn cannot_reach(function: &Function, tally: &mut Tally) -> Response<Body> {
    let status = StatusCode::INTERNAL_SERVER_ERROR;
    tally.answered(status.as_u16());
    proxy_error(status, format!("Can't reach service for: {}.", function.key.name))
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

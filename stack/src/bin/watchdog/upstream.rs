//! Mode http: calls are passed on to the program's own server.

use std::cell::Cell;
use std::io::ErrorKind;
use std::rc::Rc;
use std::time::Duration;

use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderMap, HeaderName, HeaderValue, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE,
};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, StatusCode, Uri, Version};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use crate::body::{Body, Collected, empty, internal};
use crate::link::Link;
use crate::mode::Target;
use crate::output::say;
use crate::patience::Limited;
use crate::pool::Pool;
use crate::program::{Cut, request_status, until};
use crate::running::Place;
use crate::task;

/// Pause between tries while the program has not begun to listen.
const PAUSE: Duration = Duration::from_millis(5);

/// The longest that a program may take to begin to listen when calls have no limit.
const COLD: Duration = Duration::from_secs(60);

/// Headers that are about one connection (RFC 9110, section 7.6.1) and have no name of their own in the library.
const HOPS: [HeaderName; 2] =
    [HeaderName::from_static("keep-alive"), HeaderName::from_static("proxy-connection")];

/// The program's server and the connections to it.
pub struct Upstream {
    target: Target,
    pool: Rc<Pool>,
    /// It has taken a connection once: from then on a refusal means something.
    warm: Cell<bool>,
    /// The program has ended: nobody will begin to listen.
    gone: Cell<bool>,
}

impl Upstream {
    /// A server at an address.
    pub fn new(target: Target) -> Self {
        Self { target, pool: Rc::default(), warm: Cell::new(false), gone: Cell::new(false) }
    }

    /// Whether the program takes connections.
    pub async fn listens(&self) -> bool {
        if self.warm.get() {
            return true;
        }
        let connected = TcpStream::connect(&self.target.addresses[..]).await.is_ok();
        self.warm.set(connected);
        connected
    }

    /// The program has ended. Where it has left nobody behind, calls that wait for it to listen wait no longer.
    pub fn ended(&self, nobody: bool) {
        self.gone.set(nobody);
        self.warm.set(false);
    }

    /// Passes a call on. `kept` is held by a connection that changes its protocol, until that ends.
    pub async fn answer(
        &self,
        mut request: Request<Body>,
        deadline: Option<Instant>,
        kept: Rc<Place>,
    ) -> Response<Body> {
        let asked = wants_upgrade(request.headers()).then(|| hyper::upgrade::on(&mut request));
        let (mut parts, body) = request.into_parts();
        self.readdress(&mut parts, asked.is_some());
        let sent = self.send(parts, body, deadline.unwrap_or_else(|| Instant::now() + COLD));
        let answer = tokio::select! {
            biased;
            answer = sent => answer,
            () = until(deadline) => {
                say(&Cut::Late);
                return internal(StatusCode::GATEWAY_TIMEOUT, "");
            }
        };
        let mut response = match answer {
            Ok(response) => response,
            Err(Failure { status, reason }) => {
                say(format_args!("the function's program: {reason}"));
                return internal(status, format!("{reason}\n"));
            }
        };
        match (response.status(), asked) {
            (StatusCode::SWITCHING_PROTOCOLS, Some(client)) => {
                let server = hyper::upgrade::on(&mut response);
                task::spawn(async move {
                    if let Ok((client, server)) = tokio::try_join!(client, server) {
                        let (mut client, mut server) = (TokioIo::new(client), TokioIo::new(server));
                        // An error is an end like any other.
                        let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                    }
                    drop(kept);
                });
            }
            (StatusCode::SWITCHING_PROTOCOLS, None) => {
                let reason = "it changes the protocol although nobody asked for that\n";
                say(format_args!("the function's program: {reason}"));
                return internal(StatusCode::INTERNAL_SERVER_ERROR, reason);
            }
            _ => strip(response.headers_mut()),
        }
        // The next hop is a connection of its own, whatever the program speaks.
        *response.version_mut() = Version::HTTP_11;
        response.map(|body| Box::pin(Limited::new(body, deadline)) as Body)
    }

    /// Turns the request of the caller into ours.
    fn readdress(&self, parts: &mut Parts, upgrades: bool) {
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        let uri = match self.target.base.as_str() {
            "" => path.parse::<Uri>(),
            base => format!("{base}{path}").parse(),
        };
        // Both halves have been parts of a URI before.
        parts.uri = uri.unwrap_or_else(|_| Uri::from_static("/"));
        parts.version = Version::HTTP_11;
        parts.extensions.clear();
        if upgrades {
            parts.headers.remove(TE);
        } else {
            strip(&mut parts.headers);
        }
        // The caller was told to go on as soon as its body was asked for.
        parts.headers.remove(EXPECT);
        if !parts.headers.contains_key(HOST)
            && let Some(Ok(host)) =
                self.target.addresses.first().map(|host| HeaderValue::try_from(host.to_string()))
        {
            parts.headers.insert(HOST, host);
        }
    }

    async fn send(
        &self,
        mut parts: Parts,
        mut body: Body,
        patience: Instant,
    ) -> Result<Response<Incoming>, Failure> {
        if self.target.buffered && body.size_hint().exact().is_none() {
            let collected = Collected::read(body).await;
            let collected = collected.map_err(|problem| Failure {
                status: request_status(problem.as_ref()),
                reason: problem.to_string(),
            })?;
            parts.headers.remove(TRANSFER_ENCODING);
            let length = collected.size_hint().exact().unwrap_or_default();
            parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
            body = Box::pin(collected);
        }
        // A request that asks for nothing to be done, and that has no body, can be sent twice.
        let harmless =
            matches!(parts.method, Method::GET | Method::HEAD | Method::OPTIONS) && body.is_end_stream();
        let mut request = Request::from_parts(parts, body);
        loop {
            let (mut sender, reused) = match self.pool.take() {
                Some(sender) => (sender, true),
                None => (self.connect(patience).await?, false),
            };
            let copy = (reused && harmless).then(|| copy(&request));
            let mut refused = match sender.try_send_request(request).await {
                Ok(response) => {
                    self.pool.keep(sender);
                    return Ok(response);
                }
                Err(refused) => refused,
            };
            // The program may close a connection that was kept at the moment in which it is used again: that is no
            // answer to the call.
            request = match (reused, refused.take_message(), copy) {
                (true, Some(unsent), _) => unsent,
                (true, None, Some(copy)) if !refused.error().is_parse() => copy,
                _ => return Err(refused.into_error().into()),
            };
        }
    }

    async fn connect(&self, patience: Instant) -> Result<SendRequest<Body>, Failure> {
        let stream = loop {
            match TcpStream::connect(&self.target.addresses[..]).await {
                Ok(stream) => break stream,
                // It is being started: the first call waits for it.
                Err(error)
                    if error.kind() == ErrorKind::ConnectionRefused
                        && !self.warm.get()
                        && !self.gone.get()
                        && Instant::now() + PAUSE < patience =>
                {
                    sleep(PAUSE).await;
                }
                Err(error) => return Err(Failure::of_server(format!("connect: {error}"))),
            }
        };
        self.warm.set(true);
        // A connection that was reset already is found out at its first read.
        let _ = stream.set_nodelay(true);
        let (sender, connection) = handshake(TokioIo::new(Link::new(stream))).await?;
        task::spawn(async {
            // How it ended is told to the call on it.
            let _ = connection.with_upgrades().await;
        });
        Ok(sender)
    }
}

/// Why there is no answer of the program.
struct Failure {
    status: StatusCode,
    reason: String,
}

impl Failure {
    fn of_server(reason: String) -> Self {
        Self { status: StatusCode::INTERNAL_SERVER_ERROR, reason }
    }
}

impl From<hyper::Error> for Failure {
    fn from(error: hyper::Error) -> Self {
        // What our caller did is not the program's fault.
        if error.is_user()
            && let Some(problem) = std::error::Error::source(&error)
        {
            return Self { status: request_status(problem), reason: problem.to_string() };
        }
        Self::of_server(error.to_string())
    }
}

/// The same request, without a body.
fn copy(request: &Request<Body>) -> Request<Body> {
    let mut copy = Request::new(empty());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    copy
}

fn wants_upgrade(headers: &HeaderMap) -> bool {
    headers.contains_key(UPGRADE) && named(headers).any(|word| word.eq_ignore_ascii_case("upgrade"))
}

/// What `Connection` names.
fn named(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim)
}

/// Takes out what is about one connection only. How long the body is stays: it is the library's to say.
fn strip(headers: &mut HeaderMap) {
    let framing = [TRANSFER_ENCODING, CONTENT_LENGTH, HOST];
    let names: Vec<HeaderName> = named(headers).filter_map(|name| name.parse().ok()).collect();
    for name in names.into_iter().filter(|name| !framing.contains(name)) {
        headers.remove(name);
    }
    for name in [CONNECTION, UPGRADE, TE, TRAILER].into_iter().chain(HOPS) {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_about_one_connection() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, X-Hop"),
            ("connection", "content-length"),
            ("x-hop", "1"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers"),
            ("trailer", "x-sum"),
            ("content-length", "3"),
            ("x-stays", "1"),
        ] {
            headers.append(name, HeaderValue::from_static(value));
        }
        assert!(!wants_upgrade(&headers));
        strip(&mut headers);
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["content-length", "x-stays"]);
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(CONNECTION, HeaderValue::from_static("keep-alive, Upgrade"));
        assert!(wants_upgrade(&headers));
    }
}

//! Mode http: requests to the program's own server.

use std::cell::{Cell, RefCell};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{CONNECTION, HOST, HeaderValue, UPGRADE};
use hyper::{Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::body::{Body, Problem, internal};
use crate::output::say;

/// Who the watchdog says it is.
const WHO: &str = "of-watchdog";

/// Connections that are kept for the next call.
const IDLE: usize = 64;

/// Pause between tries while the program has not begun to listen.
const PAUSE: Duration = Duration::from_millis(5);

/// The longest that a program may take to begin to listen when calls have no limit.
const COLD: Duration = Duration::from_secs(60);

/// A readiness probe's limit.
const PROBE: Duration = Duration::from_secs(2);

type Outgoing = http_body_util::combinators::UnsyncBoxBody<Bytes, Problem>;

/// The program's server and the connections to it.
pub struct Upstream {
    address: SocketAddr,
    idle: Rc<RefCell<Vec<SendRequest<Outgoing>>>>,
    /// It has taken a connection once: from then on a refusal means something.
    warm: Cell<bool>,
}

impl Upstream {
    /// A server at an address.
    pub fn new(address: SocketAddr) -> Self {
        Self { address, idle: Rc::default(), warm: Cell::new(false) }
    }

    /// Whether the program takes connections.
    pub async fn listens(&self) -> bool {
        if self.warm.get() {
            return true;
        }
        let connected = TcpStream::connect(self.address).await.is_ok();
        self.warm.set(connected);
        connected
    }

    /// The status of a GET of the program's own readiness path.
    pub async fn status_of(&self, path: &str) -> Option<StatusCode> {
        let request = Request::get(path).header(HOST, self.address.to_string());
        let request = request.body(Empty::new().map_err(|never| match never {}).boxed_unsync()).ok()?;
        let sent = timeout(PROBE, async {
            let mut sender = self.connect(Instant::now()).await.ok()?;
            sender.send_request(request).await.ok()
        });
        sent.await.ok()?.map(|response| response.status())
    }

    /// Passes a request on. `kept` is held by a connection that changes its protocol, until that ends.
    pub async fn pass_on<T: 'static>(
        &self,
        mut request: Request<Incoming>,
        deadline: Option<Instant>,
        kept: Rc<T>,
    ) -> Response<Body> {
        let asked = wants_upgrade(&request).then(|| hyper::upgrade::on(&mut request));
        let (mut parts, body) = request.into_parts();
        let target = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        parts.uri = target.parse().unwrap_or_else(|_| Uri::from_static("/"));
        if asked.is_none() {
            parts.headers.remove(CONNECTION);
            parts.headers.remove(UPGRADE);
        }
        if !parts.headers.contains_key(HOST)
            && let Ok(host) = HeaderValue::try_from(self.address.to_string())
        {
            parts.headers.insert(HOST, host);
        }
        parts.extensions.clear();
        let request = Request::from_parts(parts, body.map_err(Problem::from).boxed_unsync());
        let sent = self.send(request, deadline.unwrap_or_else(|| Instant::now() + COLD));
        let answer = match deadline {
            Some(deadline) => match timeout_at(deadline, sent).await {
                Ok(answer) => answer,
                Err(_) => {
                    say("the call's time is over");
                    return internal(StatusCode::GATEWAY_TIMEOUT, "", WHO);
                }
            },
            None => sent.await,
        };
        let mut response = match answer {
            Ok(response) => response,
            Err(reason) => {
                say(format_args!("{}: {reason}", self.address));
                return internal(StatusCode::INTERNAL_SERVER_ERROR, format!("{reason}\n"), WHO);
            }
        };
        if let (StatusCode::SWITCHING_PROTOCOLS, Some(client)) = (response.status(), asked) {
            let server = hyper::upgrade::on(&mut response);
            tokio::task::spawn_local(async move {
                if let Ok((client, server)) = tokio::try_join!(client, server) {
                    let (mut client, mut server) = (TokioIo::new(client), TokioIo::new(server));
                    // An error is an end like any other.
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                }
                drop(kept);
            });
        } else {
            response.headers_mut().remove(CONNECTION);
        }
        response.map(|body| match deadline {
            Some(deadline) => {
                Box::pin(Limited { body, time: Box::pin(tokio::time::sleep_until(deadline)) }) as Body
            }
            None => Box::pin(body.map_err(Problem::from)) as Body,
        })
    }

    async fn send(
        &self,
        request: Request<Outgoing>,
        patience: Instant,
    ) -> Result<Response<Incoming>, String> {
        let mut request = request;
        loop {
            let (mut sender, reused) = match self.reuse() {
                Some(sender) => (sender, true),
                None => (self.connect(patience).await?, false),
            };
            match sender.try_send_request(request).await {
                Ok(response) => {
                    self.keep(sender);
                    return Ok(response);
                }
                // The program closed a connection that it had kept: the request was not sent, so it is sent again.
                Err(mut refused) => match refused.take_message().filter(|_| reused) {
                    Some(unsent) => request = unsent,
                    None => return Err(refused.into_error().to_string()),
                },
            }
        }
    }

    fn reuse(&self) -> Option<SendRequest<Outgoing>> {
        let mut idle = self.idle.borrow_mut();
        std::iter::from_fn(|| idle.pop()).find(|sender| sender.is_ready())
    }

    /// Keeps a connection as soon as the answer on it has been read.
    fn keep(&self, mut sender: SendRequest<Outgoing>) {
        let idle = self.idle.clone();
        tokio::task::spawn_local(async move {
            if sender.ready().await.is_ok() && idle.borrow().len() < IDLE {
                idle.borrow_mut().push(sender);
            }
        });
    }

    async fn connect(&self, patience: Instant) -> Result<SendRequest<Outgoing>, String> {
        let stream = loop {
            match TcpStream::connect(self.address).await {
                Ok(stream) => break stream,
                // It is being started: the first call waits for it.
                Err(error)
                    if error.kind() == ErrorKind::ConnectionRefused
                        && !self.warm.get()
                        && Instant::now() + PAUSE < patience =>
                {
                    sleep(PAUSE).await;
                }
                Err(error) => return Err(error.to_string()),
            }
        };
        self.warm.set(true);
        // A connection that was reset already is found out at its first read.
        let _ = stream.set_nodelay(true);
        let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
        tokio::task::spawn_local(connection.with_upgrades());
        Ok(sender)
    }
}

fn wants_upgrade(request: &Request<Incoming>) -> bool {
    let named = request.headers().get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    request.headers().contains_key(UPGRADE)
        && named.flat_map(|value| value.split(',')).any(|word| word.trim().eq_ignore_ascii_case("upgrade"))
}

/// An answer's body that ends with the call's time.
struct Limited {
    body: Incoming,
    time: std::pin::Pin<Box<tokio::time::Sleep>>,
}

impl hyper::body::Body for Limited {
    type Data = Bytes;
    type Error = Problem;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<hyper::body::Frame<Bytes>, Problem>>> {
        use std::task::Poll;
        match std::pin::Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(frame) => Poll::Ready(frame.map(|frame| frame.map_err(Problem::from))),
            Poll::Pending if self.time.as_mut().poll(cx).is_ready() => {
                Poll::Ready(Some(Err("the call's time is over".into())))
            }
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        self.body.size_hint()
    }
}

//! Connections towards instances, in HTTP/1.1. Each is driven by the call that uses it, in that call's own task: a call
//! wakes no other task and waits for none, and a call that is given up takes its connection along.

use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::{Connection, SendRequest, handshake};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout};

use super::lanes::{self, Lanes};

/// Connections to an instance that are kept for the next call.
const IDLE_CONNECTIONS: usize = 256;

/// How long one is kept: shorter than servers in functions keep theirs, so that no call goes into one that is about to
/// be closed from the other side.
const IDLE_TIME: Duration = Duration::from_secs(4);

/// How long an instance may take to let one in.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Nobody took the call: nothing of it was sent, and here it is.
    #[error("no connection: {0}")]
    Connect(#[source] io::Error, Box<Request<Outgoing>>),
    /// It broke off, and nobody knows how far it got.
    #[error("{0}{cause}", cause = because(.0))]
    Call(#[source] hyper::Error),
}

fn because(error: &hyper::Error) -> String {
    std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default()
}

/// The connections that rest between two calls.
pub struct Upstream(Vec<Arc<Shelf>>);

impl Upstream {
    /// Without connections. What rests for too long is closed by tasks of its own, which end with it.
    pub fn new() -> Self {
        let shelf = |_| {
            let shelf = Arc::new(Shelf::default());
            tokio::spawn(clear(Arc::downgrade(&shelf), shelf.filled.clone()));
            shelf
        };
        Self((0..Lanes::number()).map(shelf).collect())
    }

    /// That of the thread.
    fn shelf(&self) -> &Arc<Shelf> {
        #[expect(clippy::indexing_slicing, reason = "there is one for each lane")]
        &self.0[lanes::here()]
    }

    /// Sends a request over a connection that rests, or a new one. With `upgrade` the connection may become another
    /// protocol's, and is a new one.
    ///
    /// # Errors
    /// There was no connection, or no answer.
    pub async fn send(
        &self,
        address: SocketAddr,
        mut request: Request<Outgoing>,
        upgrade: bool,
    ) -> Result<Response<Received>, Failure> {
        if upgrade {
            let Line { mut sender, connection } = match connect(address).await {
                Ok(line) => *line,
                Err(error) => return Err(Failure::Connect(error, Box::new(request))),
            };
            tokio::spawn(connection.with_upgrades());
            let response = sender.send_request(request).await.map_err(Failure::Call)?;
            return Ok(response.map(|incoming| Received { incoming, drive: Drive::Nobody }));
        }
        loop {
            let rested = self.shelf().take(address);
            let is_new = rested.is_none();
            let line = match rested {
                Some(line) => Ok(line),
                None => connect(address).await,
            };
            let mut line = match line {
                Ok(line) => line,
                Err(error) => return Err(Failure::Connect(error, Box::new(request))),
            };
            let unread = request.body().watch();
            let response = match line.ask(request).await {
                Ok(response) => response,
                Err(mut error) => match error.take_message() {
                    Some(back) if is_new => {
                        let closed = io::Error::new(io::ErrorKind::ConnectionAborted, error.into_error());
                        return Err(Failure::Connect(closed, Box::new(back)));
                    }
                    // The other side closed it while it rested.
                    Some(back) => {
                        request = back;
                        continue;
                    }
                    None => return Err(Failure::Call(error.into_error())),
                },
            };
            let drive = match unread.strong_count() {
                0 => Drive::Own { line, address, shelf: self.shelf().clone() },
                // It answers before it has heard all: what is left must not depend on who reads the answer.
                _ => {
                    let Line { sender, connection } = *line;
                    let apart = tokio::spawn(async move {
                        let _sender = sender;
                        let _ = connection.await;
                    });
                    Drive::Apart(apart.abort_handle())
                }
            };
            return Ok(response.map(|incoming| Received { incoming, drive }));
        }
    }
}

async fn connect(address: SocketAddr) -> io::Result<Box<Line>> {
    let late = |_| io::Error::new(io::ErrorKind::TimedOut, "it does not let us in");
    let stream = timeout(CONNECT_PATIENCE, TcpStream::connect(address)).await.map_err(late).flatten()?;
    // A connection that was reset already is found out at its first write.
    let _ = stream.set_nodelay(true);
    let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    Ok(Box::new(Line { sender, connection }))
}

/// The body of a call.
#[derive(Debug)]
pub struct Outgoing {
    body: Incoming,
    /// There until it is dropped.
    here: Arc<()>,
}

impl Outgoing {
    /// Nothing of it was read yet.
    pub fn new(body: Incoming) -> Self {
        Self { body, here: Arc::new(()) }
    }

    /// What tells whether it is still there: somebody may read on.
    fn watch(&self) -> Weak<()> {
        Arc::downgrade(&self.here)
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A connection: it does nothing but while it is polled.
struct Line {
    sender: SendRequest<Outgoing>,
    connection: Connection<TokioIo<TcpStream>, Outgoing>,
}

impl Line {
    async fn ask(
        &mut self,
        request: Request<Outgoing>,
    ) -> Result<Response<Incoming>, TrySendError<Request<Outgoing>>> {
        let mut answer = pin!(self.sender.try_send_request(request));
        let (connection, mut over) = (&mut self.connection, false);
        poll_fn(|cx| {
            // What ended the connection is told by the answer.
            over = over || Pin::new(&mut *connection).poll(cx).is_ready();
            answer.as_mut().poll(cx)
        })
        .await
    }

    /// Whether it can take another call. What came meanwhile is looked at, so that one that was closed is known as such.
    fn is_ready(&mut self) -> bool {
        let polled = Pin::new(&mut self.connection).poll(&mut Context::from_waker(Waker::noop()));
        polled.is_pending() && self.sender.is_ready()
    }
}

/// An answer's body.
pub struct Received {
    incoming: Incoming,
    drive: Drive,
}

/// Who drives the connection that a body comes from.
enum Drive {
    /// Whoever reads the body.
    Own { line: Box<Line>, address: SocketAddr, shelf: Arc<Shelf> },
    /// A task, which ends with the body.
    Apart(AbortHandle),
    /// A task that ends by itself, or nothing is to come any more.
    Nobody,
}

impl Received {
    /// Lets the connection rest, if it can. One with a task of its own ends with this.
    fn rest(&mut self) {
        if !matches!(self.drive, Drive::Own { .. }) {
            return;
        }
        if let Drive::Own { mut line, address, shelf } = std::mem::replace(&mut self.drive, Drive::Nobody)
            && line.is_ready()
        {
            shelf.put(address, line);
        }
    }
}

impl Body for Received {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let mut polled = Pin::new(&mut self.incoming).poll_frame(cx);
        if polled.is_pending()
            && let Drive::Own { line, .. } = &mut self.drive
        {
            if Pin::new(&mut line.connection).poll(cx).is_ready() {
                self.drive = Drive::Nobody;
            }
            polled = Pin::new(&mut self.incoming).poll_frame(cx);
        }
        if matches!(polled, Poll::Ready(None)) {
            self.rest();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        match &self.drive {
            Drive::Own { .. } if self.incoming.is_end_stream() => self.rest(),
            // With it goes the connection: the function learns that nobody wants the rest.
            Drive::Own { .. } | Drive::Nobody => {}
            Drive::Apart(task) => task.abort(),
        }
    }
}

#[derive(Default)]
struct Shelf {
    lines: Mutex<HashMap<SocketAddr, Vec<Resting>>>,
    filled: Arc<Notify>,
}

struct Resting {
    line: Box<Line>,
    since: Instant,
}

impl Shelf {
    fn lines(&self) -> MutexGuard<'_, HashMap<SocketAddr, Vec<Resting>>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The one that was used last: it is the least likely to have been closed.
    fn take(&self, address: SocketAddr) -> Option<Box<Line>> {
        loop {
            let Resting { mut line, since } = self.lines().get_mut(&address)?.pop()?;
            if since.elapsed() < IDLE_TIME && line.is_ready() {
                return Some(line);
            }
        }
    }

    fn put(&self, address: SocketAddr, line: Box<Line>) {
        let mut all = self.lines();
        if all.is_empty() {
            self.filled.notify_one();
        }
        let lines = all.entry(address).or_default();
        if lines.len() < IDLE_CONNECTIONS {
            lines.push(Resting { line, since: Instant::now() });
        }
    }
}

/// Closes what has rested for too long.
async fn clear(shelf: Weak<Shelf>, filled: Arc<Notify>) {
    loop {
        filled.notified().await;
        loop {
            sleep(IDLE_TIME / 2).await;
            let Some(shelf) = shelf.upgrade() else { return };
            let mut all = shelf.lines();
            all.retain(|_, lines| {
                lines.retain(|resting| resting.since.elapsed() < IDLE_TIME);
                !lines.is_empty()
            });
            if all.is_empty() {
                break;
            }
        }
    }
}

//! Connections towards instances, in HTTP/1.1. Each is driven by the call that uses it, in that call's own task: a call
//! wakes no other task and waits for none, and a call that is given up takes its connection along.

mod line;
mod shelf;
#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::{Request, Response};
use tokio::task::AbortHandle;

use crate::lanes::{self, Lanes};
use line::{Line, connect};
use shelf::Shelf;

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

impl Default for Upstream {
    /// Without connections.
    fn default() -> Self {
        Self((0..Lanes::number()).map(|_| Shelf::new()).collect())
    }
}

impl Upstream {
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
            let (mut sender, connection) = match connect(address).await {
                Ok(connected) => connected,
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
                None => connect(address).await.map(Line::new),
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
                _ => Drive::Apart(tokio::spawn(line.end()).abort_handle()),
            };
            return Ok(response.map(|incoming| Received { incoming, drive }));
        }
    }
}

/// Why a body broke off.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// The body of a call.
#[derive(Debug)]
pub struct Outgoing {
    body: Source,
    /// There until it is dropped.
    here: Arc<()>,
}

/// Where a body comes from.
#[derive(Debug)]
enum Source {
    /// A client of ours, as it comes.
    Client(Incoming),
    /// It is there; nothing when it was given.
    Whole(Option<Bytes>),
    /// Anywhere else, with its size where that is known.
    Stream(UnsyncBoxBody<Bytes, BodyError>, Option<u64>),
}

impl Outgoing {
    /// Nothing of it was read yet.
    pub fn new(body: Incoming) -> Self {
        Self::of(Source::Client(body))
    }

    /// One that is there already.
    pub fn whole(body: Bytes) -> Self {
        Self::of(Source::Whole(Some(body).filter(|body| !body.is_empty())))
    }

    /// One that comes in pieces, of so many bytes where that is known.
    pub fn stream(body: UnsyncBoxBody<Bytes, BodyError>, bytes: Option<u64>) -> Self {
        Self::of(Source::Stream(body, bytes))
    }

    fn of(body: Source) -> Self {
        Self { body, here: Arc::new(()) }
    }

    /// What tells whether it is still there: somebody may read on.
    fn watch(&self) -> Weak<()> {
        Arc::downgrade(&self.here)
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.body {
            Source::Client(body) => {
                Pin::new(body).poll_frame(cx).map(|frame| frame.map(|frame| frame.map_err(BodyError::from)))
            }
            Source::Whole(body) => Poll::Ready(body.take().map(|body| Ok(Frame::data(body)))),
            Source::Stream(body, _) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.body {
            Source::Client(body) => body.is_end_stream(),
            Source::Whole(body) => body.is_none(),
            Source::Stream(body, _) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.body {
            Source::Client(body) => body.size_hint(),
            Source::Whole(body) => SizeHint::with_exact(body.as_ref().map_or(0, |body| body.len() as u64)),
            Source::Stream(_, bytes) => bytes.map_or_else(SizeHint::new, SizeHint::with_exact),
        }
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
            line.drive(cx);
            polled = Pin::new(&mut self.incoming).poll_frame(cx);
        }
        let over = match &polled {
            Poll::Ready(Some(Ok(frame))) => frame.is_trailers(),
            Poll::Ready(None) => true,
            _ => false,
        };
        if over {
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

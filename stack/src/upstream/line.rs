//! One connection to an instance.

use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::{Connection, SendRequest, handshake};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::coop::unconstrained;
use tokio::time::timeout;

use super::Outgoing;

/// How long an instance may take to let one in.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);

/// Takes what is to be sent.
pub type Sender = SendRequest<Outgoing>;
/// Carries it, while it is polled.
pub type Carrier = Connection<TokioIo<TcpStream>, Outgoing>;

/// A connection: it does nothing but while it is polled.
pub struct Line {
    sender: Sender,
    /// Until it has ended.
    connection: Option<Carrier>,
}

impl Line {
    /// What [`connect`] gave.
    pub fn new((sender, connection): (Sender, Carrier)) -> Box<Self> {
        Box::new(Self { sender, connection: Some(connection) })
    }

    /// Moves what there is to move. Once the connection has ended it is dropped, and with it what it owes to a call: nobody
    /// would hear of it otherwise.
    pub fn drive(&mut self, cx: &mut Context<'_>) {
        if self.connection.as_mut().is_some_and(|connection| Pin::new(connection).poll(cx).is_ready()) {
            self.connection = None;
        }
    }

    /// Sends a request and waits for the head of its answer.
    ///
    /// # Errors
    /// There is none. A request of which nothing was sent is given back.
    pub async fn ask(
        &mut self,
        request: Request<Outgoing>,
    ) -> Result<Response<Incoming>, TrySendError<Request<Outgoing>>> {
        let mut answer = pin!(self.sender.try_send_request(request));
        poll_fn(|cx| {
            self.drive(cx);
            answer.as_mut().poll(cx)
        })
        .await
    }

    /// Goes on until the connection ends.
    pub async fn end(mut self: Box<Self>) {
        if let Some(connection) = self.connection.take() {
            // What ended it was told by the answer.
            let _ = connection.await;
        }
    }

    /// Whether it can take another call. What came meanwhile is looked at, so that one that was closed is known as such.
    pub fn is_ready(&mut self) -> bool {
        // A task that has had its turn would see nothing.
        let look = pin!(unconstrained(poll_fn(|cx| {
            self.drive(cx);
            Poll::Ready(())
        })));
        let _ = look.poll(&mut Context::from_waker(Waker::noop()));
        self.connection.is_some() && self.sender.is_ready()
    }
}

/// A new one.
///
/// # Errors
/// The instance does not let us in, or not in time.
pub async fn connect(address: SocketAddr) -> io::Result<(Sender, Carrier)> {
    let late = |_| io::Error::new(io::ErrorKind::TimedOut, "it does not let us in");
    let stream = timeout(CONNECT_PATIENCE, TcpStream::connect(address)).await.map_err(late).flatten()?;
    // A connection that was reset already is found out at its first write.
    let _ = stream.set_nodelay(true);
    handshake(TokioIo::new(stream)).await.map_err(io::Error::other)
}

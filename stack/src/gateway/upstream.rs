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
use tokio::task::coop::unconstrained;
use tokio::time::{Instant, sleep, timeout};

use super::lanes::{self, Lanes};

/// Connections to an instance that are kept for the next call, on all lanes together.
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

async fn connect(address: SocketAddr) -> io::Result<(Sender, Carrier)> {
    let late = |_| io::Error::new(io::ErrorKind::TimedOut, "it does not let us in");
    let stream = timeout(CONNECT_PATIENCE, TcpStream::connect(address)).await.map_err(late).flatten()?;
    // A connection that was reset already is found out at its first write.
    let _ = stream.set_nodelay(true);
    handshake(TokioIo::new(stream)).await.map_err(io::Error::other)
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

type Sender = SendRequest<Outgoing>;
type Carrier = Connection<TokioIo<TcpStream>, Outgoing>;

/// A connection: it does nothing but while it is polled.
struct Line {
    sender: Sender,
    /// Until it has ended.
    connection: Option<Carrier>,
}

impl Line {
    fn new((sender, connection): (Sender, Carrier)) -> Box<Self> {
        Box::new(Self { sender, connection: Some(connection) })
    }

    /// Moves what there is to move. Once the connection has ended it is dropped, and with it what it owes to a call: nobody
    /// would hear of it otherwise.
    fn drive(&mut self, cx: &mut Context<'_>) {
        if self.connection.as_mut().is_some_and(|connection| Pin::new(connection).poll(cx).is_ready()) {
            self.connection = None;
        }
    }

    async fn ask(
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
    async fn end(mut self: Box<Self>) {
        if let Some(connection) = self.connection.take() {
            // What ended it was told by the answer.
            let _ = connection.await;
        }
    }

    /// Whether it can take another call. What came meanwhile is looked at, so that one that was closed is known as such.
    fn is_ready(&mut self) -> bool {
        // A task that has had its turn would see nothing.
        let look = pin!(unconstrained(poll_fn(|cx| {
            self.drive(cx);
            Poll::Ready(())
        })));
        let _ = look.poll(&mut Context::from_waker(Waker::noop()));
        self.connection.is_some() && self.sender.is_ready()
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
        if lines.len() < IDLE_CONNECTIONS / Lanes::number() {
            lines.push(Resting { line, since: Instant::now() });
        }
    }
}

impl Drop for Shelf {
    fn drop(&mut self) {
        // Who clears it ends then.
        self.filled.notify_one();
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::StreamExt;
    use http_body_util::combinators::BoxBody;
    use http_body_util::{BodyExt, Full, StreamBody};
    use hyper::StatusCode;
    use hyper::client::conn::http1 as client;
    use hyper::server::conn::http1 as server;
    use hyper::service::service_fn;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio::net::TcpListener;
    use tokio::sync::mpsc;

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
        upstream.shelf().lines().values().map(Vec::len).sum()
    }

    const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

    #[tokio::test]
    async fn a_connection_rests_between_two_calls_and_whatever_way_its_answer_ends() {
        let trailers =
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x\r\n\r\n2\r\nok\r\n0\r\nx: y\r\n\r\n";
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
        let answers = [OK, trailers, chunked, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", OK];
        let function = Function::start(Box::leak(Box::new(answers))).await;
        let upstream = Arc::new(Upstream::new());
        for answer in ["ok", "ok", "ok", "", "ok"] {
            assert_eq!(call(&upstream, function.address).await.as_deref(), Some(answer));
            assert_eq!(function.connections(), 1);
        }
    }

    #[tokio::test]
    async fn one_that_was_closed_while_it_rested_is_no_call() {
        let function = Function::start(&[OK]).await;
        let upstream = Arc::new(Upstream::new());
        for connections in 1..=20 {
            assert_eq!(call(&upstream, function.address).await.as_deref(), Some("ok"));
            assert_eq!(function.connections(), connections);
        }
    }

    #[tokio::test]
    async fn who_closes_it_instead_of_an_answer_has_failed_at_once() {
        // It has the second request, and nobody knows what it did with it.
        let function = Function::start(&[OK, ""]).await;
        let upstream = Arc::new(Upstream::new());
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
        let upstream = Arc::new(Upstream::new());
        for connections in 1..=3 {
            assert_eq!(call(&upstream, function.address).await.as_deref(), Some("ok"));
            assert_eq!((function.connections(), resting(&upstream)), (connections, 0));
        }
    }

    #[tokio::test]
    async fn an_answer_before_the_whole_call_came_leaves_no_connection() {
        let function = Function::start(&[OK, OK]).await;
        let upstream = Arc::new(Upstream::new());
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
}

//! A caller's connection.

use std::convert::Infallible;
use std::io;
use std::os::fd::AsRawFd;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::sys::socket::{self, sockopt};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Sleep, sleep};
use tokio_util::sync::CancellationToken;

use crate::answer::Watchdog;
use crate::body::Body;
use crate::patience::{Patient, Timer};
use crate::running::Running;

/// After how many seconds of silence a caller's machine is asked whether it is still there, and how often again.
const ALIVE: u32 = 15;

/// How long what a caller still sends is thrown away after the answer's end.
const LINGER: Duration = Duration::from_secs(1);

/// Which of the two ports a connection came in by.
#[derive(Debug, Clone, Copy)]
pub enum Door {
    /// Calls, health and readiness.
    Calls,
    /// Metrics.
    Metrics,
}

/// Lets the kernel find callers that are gone without a word: some connections have no limit in time. What a listener
/// is told counts for its connections.
pub fn probe_silent(listener: &TcpListener) {
    // A kernel that cannot do that lets them stay.
    let _ = socket::setsockopt(listener, sockopt::KeepAlive, &true);
    let _ = socket::setsockopt(listener, sockopt::TcpKeepIdle, &ALIVE);
    let _ = socket::setsockopt(listener, sockopt::TcpKeepInterval, &ALIVE);
}

/// Serves one connection to its end. Both ports are served by the same code: the HTTP library is a good part of this
/// program, and would be in it twice.
pub async fn serve(stream: TcpStream, watchdog: Rc<Watchdog>, door: Door, ending: CancellationToken) {
    // A connection that was reset already is found out at its first read.
    let _ = stream.set_nodelay(true);
    let socket = Arc::new(Socket { stream, blocked: AtomicBool::new(false) });
    let (limit, unread) = (watchdog.config.write_timeout, Arc::<AtomicBool>::default());
    let io =
        Io { socket: socket.clone(), unread: unread.clone(), limit, timer: Timer::default(), linger: None };
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new());
    builder.header_read_timeout(watchdog.config.read_timeout);
    let calls = Rc::<Running>::default();
    let here = calls.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let (watchdog, here) = (watchdog.clone(), here.clone());
        let (patience, unread) = (watchdog.config.read_timeout, unread.clone());
        let request = request.map(|body| Box::pin(Patient::new(body, patience, unread)) as Body);
        async move {
            Ok::<_, Infallible>(match door {
                Door::Calls => watchdog.answer(request, &here).await,
                Door::Metrics => watchdog.counts(&request),
            })
        }
    });
    let mut connection = pin!(builder.serve_connection(TokioIo::new(io), service).with_upgrades());
    let mut left = pin!(socket.left());
    // A caller that leaves in the middle is no news to anybody.
    // The connection first: a request that is there already is a call.
    tokio::select! {
        biased;
        _ = connection.as_mut() => return,
        () = left.as_mut() => return,
        () = ending.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    // Who has sent half of a head has no call, and is not waited for.
    let calls_end = std::future::poll_fn(|cx| match connection.as_mut().poll(cx) {
        Poll::Pending if calls.count() > 0 || socket.blocked.load(Ordering::Relaxed) => Poll::Pending,
        _ => Poll::Ready(()),
    });
    tokio::select! {
        () = calls_end => {}
        () = left => {}
    }
}

/// What can be seen of a connection while the HTTP library has it.
struct Socket {
    stream: TcpStream,
    /// Bytes wait for the caller to take them.
    blocked: AtomicBool,
}

impl Socket {
    /// Waits until the caller has closed. The library finds that out when it reads, which it does not while a body
    /// waits for a program that takes nothing of it.
    async fn left(&self) {
        // The other end's close is news to whoever waits for anything; nothing else is to who waits for urgent bytes,
        // which the socket is not registered for.
        while self.stream.ready(Interest::PRIORITY).await.is_ok_and(|ready| !ready.is_read_closed()) {}
    }
}

/// The connection for the HTTP library. It breaks when the caller takes nothing of an answer for so long.
struct Io {
    socket: Arc<Socket>,
    /// The caller has not come to the end of a body.
    unread: Arc<AtomicBool>,
    limit: Duration,
    timer: Timer,
    linger: Option<Pin<Box<Sleep>>>,
}

impl Io {
    /// Throws away what the caller still sends of a body that nobody wants: to close before it was read would reset the
    /// connection, and the caller might lose the answer (RFC 9112, section 9.6).
    fn discard(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.unread.load(Ordering::Relaxed) {
            return Poll::Ready(());
        }
        let linger = self.linger.get_or_insert_with(|| Box::pin(sleep(LINGER)));
        let mut bytes = [0; 8 << 10];
        while linger.as_mut().poll(cx).is_pending() {
            if ready!(self.socket.stream.poll_read_ready(cx)).is_err() {
                break;
            }
            match self.socket.stream.try_read(&mut bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(0) | Err(_) => break,
                Ok(_) => {}
            }
        }
        Poll::Ready(())
    }

    /// Tries once the kernel says that there is room, and as long as it says so.
    fn write(
        &mut self,
        cx: &mut Context<'_>,
        write: impl Fn(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        let written = loop {
            match self.socket.stream.poll_write_ready(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => break Poll::Ready(Err(error)),
                Poll::Pending => break Poll::Pending,
            }
            match write(&self.socket.stream) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => break Poll::Ready(done),
            }
        };
        self.socket.blocked.store(written.is_pending(), Ordering::Relaxed);
        if self.timer.is_over(&written, self.limit, cx) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        written
    }
}

impl AsyncRead for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(self.socket.stream.poll_read_ready(cx))?;
            match self.socket.stream.try_read_buf(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return Poll::Ready(done.map(|_| ())),
            }
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.write(cx, |stream| stream.try_write(bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.write(cx, |stream| stream.try_write_vectored(pieces))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // More than once does no harm.
        socket::shutdown(self.socket.stream.as_raw_fd(), socket::Shutdown::Write)?;
        self.discard(cx).map(Ok)
    }
}

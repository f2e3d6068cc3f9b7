//! One connection: the HTTP that its client speaks, the time of its calls, and its end.
//!
//! In HTTP/1.1 a connection carries one call at a time, and a call whose time is over takes the connection along. In
//! HTTP/2 it carries many, and one that is over ends alone.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use hyper::StatusCode;
use hyper::rt::Executor;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::Gateway;
use super::clock::{Clock, Ring};
use super::moving::Moving;
use super::reply::{busy, text};

/// Largest head of a request, and the most that is held of a body, for each connection of HTTP/1.1.
const LARGEST_HEAD_BYTES: u32 = 64 << 10;

/// A client may keep a connection so long without a call; until the whole head of its next request has come, there is none.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long a connection stays that was told of its end, for a call that was on its way.
const FAREWELL: Duration = Duration::from_secs(10);

/// How long a client may take to read that it is turned away.
const REFUSAL_PATIENCE: Duration = Duration::from_secs(10);

/// HTTP/2: calls of one connection at a time.
const STREAMS: u32 = 64;
/// What is held of the bodies that come in: of one, and of all of a connection.
const STREAM_WINDOW_BYTES: u32 = 128 << 10;
const CONNECTION_WINDOW_BYTES: u32 = 256 << 10;
/// What is held of each body that goes out.
const SENDING_BYTES: usize = 32 << 10;
/// Calls that were taken back before they were begun, and those that we ended because the client broke the rules: more
/// of them at a time, and the connection ends (CVE-2023-44487).
const RESETS: usize = 20;
const BROKEN_RULES: usize = 256;
/// A client that is gone without a word is asked so often whether it is there, and given so long to say so.
const PING: Duration = Duration::from_secs(30);
const PONG: Duration = Duration::from_secs(20);

/// When a call that found no place may try again, in seconds.
const RETRY: u64 = 1;

tokio::task_local! {
    /// What the task is that answers a request: its connection's in HTTP/1.1, its own in HTTP/2.
    static TASK: Task;
}

#[derive(Clone, Default)]
struct Task {
    clock: Clock,
    /// There was no place for it.
    crowded: bool,
}

/// What a connection may do, and by what it is ended.
#[derive(Clone)]
pub struct Terms {
    /// Who answers.
    pub gateway: Arc<Gateway>,
    /// Places for the calls of all connections of HTTP/2.
    pub streams: Arc<Semaphore>,
    /// Cancelled when the gateway stops: the calls inside are answered, then the connection is closed.
    pub ending: CancellationToken,
    /// Nothing is served, but the word that TLS is; with its port.
    pub only_tls: Option<u16>,
}

/// Serves a connection to its end.
pub async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    client: SocketAddr,
    terms: Terms,
) {
    let Terms { gateway, streams, ending, only_tls } = terms;
    let service = service_fn(move |request| {
        let gateway = gateway.clone();
        async move {
            let task = TASK.with(Clone::clone);
            let refused = match only_tls {
                Some(port) => {
                    let words = format!("plain HTTP is for this machine alone: use https, port {port}\n");
                    text(StatusCode::FORBIDDEN, words)
                }
                None if task.crowded => busy("too many calls at a time", RETRY),
                None => return Ok::<_, Infallible>(gateway.timed(request, client, &task.clock).await),
            };
            // Whoever does not read it is not kept for that.
            Ok(refused.map(|body| task.clock.begin(REFUSAL_PATIENCE).hold(body)))
        }
    });
    let task = Task::default();
    let mut time = task.clock.watch(Some(PATIENCE));
    let stream = Moving::new(stream, task.clock.clone());
    let mut builder = auto::Builder::new(Streams { connection: task.clock.clone(), places: streams });
    builder.http1().max_buf_size(LARGEST_HEAD_BYTES as usize);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(LARGEST_HEAD_BYTES)
        .max_concurrent_streams(STREAMS)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_send_buf_size(SENDING_BYTES)
        .max_pending_accept_reset_streams(RESETS)
        .max_local_error_reset_streams(BROKEN_RULES)
        .keep_alive_interval(PING)
        .keep_alive_timeout(PONG);
    // Polled only when it has something to tell: all connections share it, with one lock.
    let mut ended = FuturesUnordered::from_iter([ending.cancelled()]);
    TASK.scope(task, async move {
        let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
        tokio::pin!(connection);
        let mut warned = false;
        let served = loop {
            tokio::select! {
                // First, because what it does sets its clock.
                biased;
                served = connection.as_mut() => break served,
                Some(()) = ended.next() => connection.as_mut().graceful_shutdown(),
                ring = time.ring() => match ring {
                    Ring::Over => {}
                    Ring::Stuck => {
                        tracing::debug!("connection of {client}: its call's time is over");
                        return;
                    }
                    // First with a word, so that no call is lost that is on its way; then without.
                    Ring::Quiet => {
                        tracing::debug!("connection of {client}: no call in {} s", PATIENCE.as_secs());
                        if warned {
                            return;
                        }
                        connection.as_mut().graceful_shutdown();
                        time.wait(FAREWELL);
                        warned = true;
                    }
                },
            }
        };
        if let Err(error) = served {
            tracing::debug!("connection of {client}: {error}");
        }
    })
    .await;
}

/// Runs the calls of a connection of HTTP/2, each as a task with a clock of its own.
#[derive(Clone)]
struct Streams {
    connection: Clock,
    places: Arc<Semaphore>,
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Streams {
    fn execute(&self, stream: F) {
        let place = self.places.clone().try_acquire_owned().ok();
        let task = Task { clock: Clock::default(), crowded: place.is_none() };
        let (mut time, moving) = (task.clock.watch(None), self.connection.enter());
        tokio::spawn(TASK.scope(task, async move {
            let _held = (place, moving);
            tokio::pin!(stream);
            loop {
                tokio::select! {
                    biased;
                    () = stream.as_mut() => return,
                    ring = time.ring() => if ring == Ring::Stuck {
                        // Dropped, it is reset.
                        tracing::debug!("a call's time is over");
                        return;
                    },
                }
            }
        }));
    }
}

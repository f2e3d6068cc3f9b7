//! Connections: accepted, served, and let go in order.

use std::convert::Infallible;
use std::future::Future;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Gateway;
use super::clock::Clock;
use super::machine;
use super::reply::{Body, empty, redirect, text, unauthorized};
use super::router::{Route, route};

/// Largest head of a request, and the most that is held of a body, for each connection.
const LARGEST_HEAD_BYTES: usize = 64 << 10;

/// Most connections at a time; who comes later waits in the kernel's queue.
const CONNECTIONS: usize = 512;

/// How long an answer that is there may take to be read.
const READ_PATIENCE: Duration = Duration::from_secs(60);

/// What a call may take beyond its time, to tell its client so.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// A client that opened a connection has this long for its request's head.
const HEAD_PATIENCE: Duration = Duration::from_secs(60);

/// Serves until `stop`, then until the calls inside have ended, at most for `drain`.
pub async fn serve(
    listener: TcpListener,
    gateway: Arc<Gateway>,
    stop: impl Future<Output = ()>,
    drain: Duration,
) {
    let (connections, ending) = (TaskTracker::new(), CancellationToken::new());
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    tokio::pin!(stop);
    loop {
        let accepted = async {
            // Never closed: it lives as long as this.
            let place = places.clone().acquire_owned().await;
            listener.accept().await.map(|accepted| (accepted, place))
        };
        let accepted = tokio::select! {
            accepted = accepted => accepted,
            () = &mut stop => break,
        };
        let ((stream, client), place) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors or memory: whoever has some gives them back in a moment.
                if !matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset) {
                    tracing::error!("accept: {error}");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                continue;
            }
        };
        // A connection that was reset already is found out at its first read.
        let _ = stream.set_nodelay(true);
        let gateway = gateway.clone();
        let clock = Clock::default();
        let mut time = clock.watch();
        let service = service_fn(move |request| {
            let (gateway, clock) = (gateway.clone(), clock.clone());
            async move { Ok::<_, Infallible>(gateway.timed(request, client, &clock).await) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_PATIENCE)
            .max_buf_size(LARGEST_HEAD_BYTES)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        let ending = ending.clone();
        connections.spawn(async move {
            let _place = place;
            tokio::pin!(connection);
            let mut told = false;
            let served = loop {
                tokio::select! {
                    served = connection.as_mut() => break served,
                    // The call inside is answered, then the connection is closed.
                    () = ending.cancelled(), if !told => {
                        connection.as_mut().graceful_shutdown();
                        told = true;
                    }
                    // The client stopped reading, or the other side never ends: nothing else would end it.
                    () = time.over() => {
                        tracing::debug!("connection of {client}: its call's time is over");
                        return;
                    }
                }
            };
            if let Err(error) = served {
                tracing::debug!("connection of {client}: {error}");
            }
        });
    }
    drop(listener);
    ending.cancel();
    connections.close();
    if tokio::time::timeout(drain, connections.wait()).await.is_err() {
        tracing::warn!("{} connections had not ended after {} s", connections.len(), drain.as_secs());
    }
}

impl Gateway {
    /// Answers within a time: a function's call has its own, counted from its begin; what the gateway says itself takes
    /// as long as it takes, but must be read then.
    async fn timed(
        self: &Arc<Self>,
        request: Request<Incoming>,
        client: SocketAddr,
        clock: &Clock,
    ) -> Response<Body> {
        let route = route(request.method(), request.uri().path());
        let (call, lines) = (matches!(route, Route::Invoke(..)), route == Route::Machine);
        let counting = call.then(|| clock.begin(self.proxy.limit() + LAST_WORDS));
        let answer = self.answer(request, client).await;
        if lines {
            // As long as somebody reads them: `logs --follow`.
            return answer.map(|body| clock.pace(READ_PATIENCE, body));
        }
        let counting = counting.unwrap_or_else(|| clock.begin(READ_PATIENCE));
        answer.map(|body| counting.hold(body))
    }

    async fn answer(self: &Arc<Self>, request: Request<Incoming>, client: SocketAddr) -> Response<Body> {
        let uri = request.uri().clone();
        let path = uri.path();
        let route = route(request.method(), path);
        if route.is_guarded(path) && !self.credentials.admit(request.headers()) {
            return unauthorized();
        }
        let answer = match route {
            Route::Health => Ok(self.health().await),
            Route::Info => Ok(self.info()),
            Route::List => self.list(uri.query()),
            Route::Create => self.deploy(request, false).await,
            Route::Update => self.deploy(request, true).await,
            Route::Delete => self.delete(request).await,
            Route::Describe(name) => self.describe(name, uri.query()),
            Route::Scale(name) => self.scale(request, name).await,
            Route::Namespaces => self.namespaces().await,
            Route::Namespace(act, name) => self.namespace(request, act, name).await,
            Route::Secrets(act) => self.secrets(request, act).await,
            Route::Alert => self.alert(request).await,
            Route::Machine => machine::pass_on(&self.control, request).await,
            Route::Invoke(name, rest) => Ok(self.invoke(request, name, rest, client).await),
            Route::Root => Ok(redirect(StatusCode::TEMPORARY_REDIRECT, "/ui/")),
            Route::Clean(path) => {
                let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
                Ok(redirect(StatusCode::MOVED_PERMANENTLY, &format!("{path}{query}")))
            }
            Route::Nothing(StatusCode::NOT_FOUND) => Ok(text(StatusCode::NOT_FOUND, "404 page not found\n")),
            Route::Nothing(status) => Ok(empty(status)),
        };
        answer.unwrap_or_else(Response::from)
    }
}

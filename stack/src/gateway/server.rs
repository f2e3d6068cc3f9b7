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
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Gateway;
use super::reply::{Body, empty, redirect, text, unauthorized};
use super::router::{Route, route};

/// Largest head of a request, OpenFaaS's own limit.
const LARGEST_HEAD_BYTES: usize = 1 << 20;

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
    tokio::pin!(stop);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut stop => break,
        };
        let (stream, client) = match accepted {
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
        let service = service_fn(move |request| {
            let gateway = gateway.clone();
            async move { Ok::<_, Infallible>(gateway.answer(request, client).await) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_PATIENCE)
            .max_buf_size(LARGEST_HEAD_BYTES)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        let ending = ending.clone();
        connections.spawn(async move {
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
    async fn answer(&self, request: Request<Incoming>, client: SocketAddr) -> Response<Body> {
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

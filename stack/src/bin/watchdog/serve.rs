//! The watchdog's life: start, serve, stop.

use std::cell::Cell;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::process::ExitStatus;
use std::rc::Rc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::body::{Body, Held, internal, text};
use crate::config::{Config, Mode};
use crate::fork;
use crate::health::Health;
use crate::metrics::Metrics;
use crate::output::say;
use crate::reaper::{Program, Reaper};
use crate::upstream::Upstream;

/// How long a call took until its answer's head, in seconds.
const DURATION: HeaderName = HeaderName::from_static("x-duration-seconds");

/// A caller's own limit.
const TIMEOUT: HeaderName = HeaderName::from_static("x-timeout");

/// How long the function's program may take to end after SIGTERM.
const CHILD_GRACE: Duration = Duration::from_secs(2);

/// Everything a request may need.
struct Watchdog {
    config: Config,
    health: Health,
    metrics: Metrics,
    running: Rc<Cell<usize>>,
    upstream: Option<Upstream>,
    reaper: Rc<Reaper>,
}

/// One running call: counted out when it is dropped.
struct Place(Rc<Cell<usize>>);

impl Place {
    fn take(running: &Rc<Cell<usize>>) -> Rc<Self> {
        running.set(running.get() + 1);
        Rc::new(Self(running.clone()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// Serves until SIGTERM, or until the program of mode http ends. Gives the exit status.
pub async fn run(config: Config) -> Result<u8, String> {
    let mut terminate = signal(SignalKind::terminate()).map_err(|e| format!("signals: {e}"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|e| format!("signals: {e}"))?;
    let listen = |port: u16| async move {
        TcpListener::bind(SocketAddr::from(([0, 0, 0, 0], port)))
            .await
            .map_err(|e| format!("listen on port {port}: {e}"))
    };
    let listener = listen(config.port).await?;
    let upstream = match &config.mode {
        Mode::Http(address) => Some(Upstream::new(*address)),
        Mode::Streaming => None,
    };
    let reaper = Reaper::start()?;
    let mut program = match upstream {
        Some(_) => Some(fork::start_server(&config, &reaper)?),
        None => None,
    };
    let patience = config.write_timeout;
    let watchdog = Rc::new(Watchdog {
        health: Health::start(config.lock),
        metrics: Metrics::default(),
        running: Rc::default(),
        upstream,
        reaper,
        config,
    });
    let ending = CancellationToken::new();
    let mut connections = JoinSet::new();
    let mut metrics = JoinSet::new();
    match listen(watchdog.config.metrics_port).await {
        Ok(listener) => drop(metrics.spawn_local(serve_metrics(listener, watchdog.clone()))),
        // Somebody in the image has the port: calls matter more than counting them.
        Err(problem) => say(format_args!("no metrics: {problem}")),
    }
    say(&watchdog.config);
    let status = loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    // A connection that was reset already is found out at its first read.
                    let _ = stream.set_nodelay(true);
                    drop(connections.spawn_local(connection(stream, watchdog.clone(), ending.clone())));
                }
                // Out of descriptors: calls that end give some back.
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            },
            Some(_) = connections.join_next() => {}
            status = exited(&mut program) => break exit_code(status),
            _ = terminate.recv() => break 0,
            _ = interrupt.recv() => break 0,
        }
    };
    drop(listener);
    watchdog.health.stop();
    if program.is_some() && status != 0 {
        say(format_args!("the function's program ended with status {status}"));
    }
    // Calls inside end in their time. Connections without one end at once, and so do we when there are no others.
    ending.cancel();
    let _ = tokio::time::timeout(patience, async { while connections.join_next().await.is_some() {} }).await;
    if let Some(program) = program {
        fork::terminate(program, CHILD_GRACE).await;
    }
    Ok(status)
}

/// Waits for the program of mode http, or for ever.
async fn exited(program: &mut Option<Program>) -> ExitStatus {
    match program {
        Some(program) => program.wait().await,
        None => std::future::pending().await,
    }
}

/// A shell's way to tell a signal: 128 and its number.
fn exit_code(status: ExitStatus) -> u8 {
    use std::os::unix::process::ExitStatusExt;
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    u8::try_from(code).unwrap_or(1)
}

async fn connection(stream: tokio::net::TcpStream, watchdog: Rc<Watchdog>, ending: CancellationToken) {
    let patience = watchdog.config.read_timeout;
    let service = service_fn(move |request| {
        let watchdog = watchdog.clone();
        async move { Ok::<_, Infallible>(watchdog.answer(request).await) }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new());
    if !patience.is_zero() {
        builder.header_read_timeout(patience);
    }
    let connection = builder.serve_connection(TokioIo::new(stream), service).with_upgrades();
    tokio::pin!(connection);
    // A client that leaves in the middle is no news to anybody.
    tokio::select! {
        _ = connection.as_mut() => return,
        () = ending.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

async fn serve_metrics(listener: TcpListener, watchdog: Rc<Watchdog>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let watchdog = watchdog.clone();
        tokio::task::spawn_local(async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let watchdog = watchdog.clone();
                async move {
                    Ok::<_, Infallible>(match (request.method(), request.uri().path()) {
                        (&Method::GET, "/metrics") => {
                            text(StatusCode::OK, watchdog.metrics.render(watchdog.running.get()))
                        }
                        (_, "/metrics") => text(StatusCode::METHOD_NOT_ALLOWED, ""),
                        _ => text(StatusCode::NOT_FOUND, "404 page not found\n"),
                    })
                }
            });
            let mut builder = http1::Builder::new();
            builder.timer(TokioTimer::new()).header_read_timeout(Duration::from_secs(5));
            let _ = builder.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

impl Watchdog {
    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        match request.uri().path() {
            "/_/health" => self.told(request.method(), self.health.is_well()),
            "/_/ready" => self.ready(&request).await,
            _ => self.call(request).await,
        }
    }

    fn told(&self, method: &Method, well: bool) -> Response<Body> {
        match (method, well) {
            (&Method::GET, true) => text(StatusCode::OK, "OK"),
            (&Method::GET, false) => text(StatusCode::SERVICE_UNAVAILABLE, ""),
            _ => text(StatusCode::METHOD_NOT_ALLOWED, ""),
        }
    }

    /// Ready is more than well: there is room for a call, and the program listens.
    async fn ready(&self, request: &Request<Incoming>) -> Response<Body> {
        if request.method() != Method::GET || !self.health.is_well() {
            return self.told(request.method(), false);
        }
        if let Some(refused) = self.full() {
            return refused;
        }
        let Some(upstream) = &self.upstream else { return self.told(request.method(), true) };
        match &self.config.ready_path {
            None => self.told(request.method(), upstream.listens().await),
            Some(path) => match upstream.status_of(path).await {
                Some(status) => text(status, ""),
                None => text(StatusCode::SERVICE_UNAVAILABLE, ""),
            },
        }
    }

    fn full(&self) -> Option<Response<Body>> {
        let limit = self.config.max_inflight.filter(|limit| self.running.get() >= *limit)?;
        let message = format!("Concurrent request limit exceeded. Max concurrent requests: {limit}\n");
        Some(internal(StatusCode::TOO_MANY_REQUESTS, message, "faas-middleware"))
    }

    async fn call(&self, request: Request<Incoming>) -> Response<Body> {
        if let Some(refused) = self.full() {
            return refused;
        }
        let place = Place::take(&self.running);
        let start = Instant::now();
        let method = request.method().to_string();
        let deadline = self.limit(&request).map(|limit| start + limit);
        let mut response = match &self.upstream {
            Some(upstream) => upstream.pass_on(request, deadline, place.clone()).await,
            None => fork::run(&self.config, &self.reaper, request, deadline).await,
        };
        let taken = start.elapsed();
        self.metrics.observe(response.status().as_u16(), &method, taken);
        if let Ok(value) = HeaderValue::try_from(format!("{:.6}", taken.as_secs_f64())) {
            response.headers_mut().insert(DURATION, value);
        }
        response.map(|body| Held::wrap(body, place))
    }

    /// The call's limit: the caller's, where it is shorter than ours.
    fn limit(&self, request: &Request<Incoming>) -> Option<Duration> {
        let asked =
            request.headers().get(TIMEOUT).and_then(|value| crate::duration::parse(value.to_str().ok()?));
        match (asked.filter(|limit| !limit.is_zero()), self.config.exec_timeout) {
            (Some(asked), Some(ours)) => Some(asked.min(ours)),
            (asked, ours) => asked.or(ours),
        }
    }
}

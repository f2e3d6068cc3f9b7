//! The watchdog's life: start, serve, stop.

use std::convert::Infallible;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::rc::Rc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::answer::Watchdog;
use crate::config::Config;
use crate::function::Function;
use crate::health::Health;
use crate::output::say;
use crate::patience::Connection;
use crate::program;
use crate::reaper::{Program, Reaper};
use crate::task::{self, Task};

/// How long the function's program may take to end after SIGTERM.
const CHILD_GRACE: Duration = Duration::from_secs(2);

/// Which of the two ports a connection came in by.
#[derive(Debug, Clone, Copy)]
enum Door {
    Calls,
    Metrics,
}

/// The signals that end the watchdog.
struct Ends {
    terminate: Signal,
    interrupt: Signal,
}

impl Ends {
    fn listen() -> Result<Self, String> {
        let on = |kind| signal(kind).map_err(|e| format!("signals: {e}"));
        Ok(Self { terminate: on(SignalKind::terminate())?, interrupt: on(SignalKind::interrupt())? })
    }

    async fn told(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Serves until SIGTERM, or until the program of mode http ends. Gives the exit status.
pub async fn run(config: Config) -> Result<u8, String> {
    let mut ends = Ends::listen()?;
    let listener = listen(config.port).await?;
    let (function, mut program) = Function::start(&config, Reaper::start()?)?;
    let watchdog = Rc::new(Watchdog {
        health: Health::start(config.lock),
        metrics: Rc::default(),
        running: Rc::default(),
        function,
        config,
    });
    match listen(watchdog.config.metrics_port).await {
        Ok(listener) => {
            let watchdog = watchdog.clone();
            task::spawn(async move {
                // These connections end with the process.
                let mut connections = JoinSet::new();
                match accept(&listener, &watchdog, Door::Metrics, &CancellationToken::new(), &mut connections)
                    .await {}
            });
        }
        // Somebody in the image has the port: calls matter more than counting them.
        Err(problem) => say(format_args!("no metrics: {problem}")),
    }
    say(&watchdog.config);
    let ending = CancellationToken::new();
    let mut connections = JoinSet::new();
    let status = tokio::select! {
        never = accept(&listener, &watchdog, Door::Calls, &ending, &mut connections) => match never {},
        status = exited(&mut program) => Some(status),
        () = ends.told() => None,
    };
    watchdog.health.stop();
    let running = watchdog.running.get();
    let interval = watchdog.config.healthcheck_interval;
    match status {
        Some(status) => {
            say(format_args!("the function's program ended: {status}; calls that run: {running}"))
        }
        None => say(format_args!("told to end; calls that run: {running}")),
    }
    if status.is_none() && !interval.is_zero() {
        // Whoever sends calls here is given the time to find out that it should not. Who tells it once more to end
        // has found out.
        tokio::select! {
            never = accept(&listener, &watchdog, Door::Calls, &ending, &mut connections) => match never {},
            _ = exited(&mut program) => {}
            () = ends.told() => {}
            () = sleep(interval) => {}
        }
    }
    drop(listener);
    // Calls inside end in their time. Connections without one end at once, and so do we when there are no others.
    ending.cancel();
    let rest = async { while connections.join_next().await.is_some() {} };
    if timeout(watchdog.config.write_timeout, rest).await.is_err() {
        say(format_args!("calls that were cut off: {}", watchdog.running.get()));
    }
    if let Some(program) = program {
        program::terminate(program, CHILD_GRACE).await;
    }
    Ok(status.map_or(0, exit_code))
}

/// Both families where the kernel has both.
async fn listen(port: u16) -> Result<TcpListener, String> {
    let all: SocketAddr = (Ipv6Addr::UNSPECIFIED, port).into();
    let listener = match TcpListener::bind(all).await {
        Err(error) if error.kind() != ErrorKind::AddrInUse => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await
        }
        other => other,
    };
    listener.map_err(|e| format!("listen on port {port}: {e}"))
}

/// Takes connections, for ever.
async fn accept(
    listener: &TcpListener,
    watchdog: &Rc<Watchdog>,
    door: Door,
    ending: &CancellationToken,
    connections: &mut JoinSet<()>,
) -> Infallible {
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let task = connection(stream, watchdog.clone(), door, ending.clone());
                    drop(connections.spawn_local(Box::pin(task) as Task));
                }
                // Out of descriptors: calls that end give some back.
                Err(_) => sleep(Duration::from_millis(20)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
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
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    u8::try_from(code).unwrap_or(1)
}

/// One connection. Both ports are served by the same code: the HTTP library is a good part of this program, and would be
/// in it twice.
async fn connection(stream: TcpStream, watchdog: Rc<Watchdog>, door: Door, ending: CancellationToken) {
    // A connection that was reset already is found out at its first read.
    let _ = stream.set_nodelay(true);
    let stream = Connection::new(stream, watchdog.config.write_timeout);
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new());
    builder.header_read_timeout(watchdog.config.read_timeout);
    let service = service_fn(move |request| {
        let watchdog = watchdog.clone();
        async move {
            Ok::<_, Infallible>(match door {
                Door::Calls => watchdog.answer(request).await,
                Door::Metrics => watchdog.counts(&request),
            })
        }
    });
    let connection = builder.serve_connection(TokioIo::new(stream), service).with_upgrades();
    tokio::pin!(connection);
    // A client that leaves in the middle is no news to anybody.
    tokio::select! {
        _ = connection.as_mut() => return,
        () = ending.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

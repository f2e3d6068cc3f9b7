//! The watchdog's life: start, serve, stop.

use std::convert::Infallible;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::rc::Rc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::answer::Watchdog;
use crate::config::Config;
use crate::connection::{self, Door};
use crate::function::Function;
use crate::health::Health;
use crate::output::say;
use crate::program;
use crate::reaper::{Program, Reaper};
use crate::task::{self, Task};

/// How long the function's program may take to end after SIGTERM.
const CHILD_GRACE: Duration = Duration::from_secs(2);

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
        status = exited(&mut program, &watchdog.function) => Some(status),
        () = ends.told() => None,
    };
    watchdog.health.stop();
    let running = watchdog.running.count();
    let interval = watchdog.config.healthcheck_interval;
    match status {
        Some(status) => {
            say(format_args!("the function's program ended: {status}; calls that run: {running}"))
        }
        None => say(format_args!("told to end; calls that run: {running}")),
    }
    if status.is_none() && !interval.is_zero() {
        // Whoever sends calls here is given the time to find out that it should not. Who tells it once more to end
        // has found out. Where no call runs nobody sends any.
        tokio::select! {
            never = accept(&listener, &watchdog, Door::Calls, &ending, &mut connections) => match never {},
            _ = exited(&mut program, &watchdog.function) => {}
            () = ends.told() => {}
            () = watchdog.running.none() => {}
            () = sleep(interval) => {}
        }
    }
    drop(listener);
    // Calls inside end in their time. Connections without one end at once, and so do we when there are no others.
    ending.cancel();
    let rest = async { while connections.join_next().await.is_some() {} };
    if timeout(watchdog.config.write_timeout, rest).await.is_err() {
        say(format_args!("calls that were cut off: {}", watchdog.running.count()));
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
    let listener = listener.map_err(|e| format!("listen on port {port}: {e}"))?;
    connection::probe_silent(&listener);
    Ok(listener)
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
                    let task = connection::serve(stream, watchdog.clone(), door, ending.clone());
                    drop(connections.spawn_local(Box::pin(task) as Task));
                }
                // Out of descriptors: calls that end give some back.
                Err(_) => sleep(Duration::from_millis(20)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Waits for the end of the program of mode http, or for ever. One that ends well and leaves others behind has started a
/// server that goes on without it: theirs is the end.
async fn exited(program: &mut Option<Program>, function: &Function) -> ExitStatus {
    let Some(program) = program else { return std::future::pending().await };
    let status = program.wait().await;
    let mut orphans = program.orphans();
    if status.success() && *orphans.borrow() > 0 {
        say("the function's program ended, and left others behind that go on");
        function.ended(false);
        // Who counts them lives as long as the program's value.
        let _ = orphans.wait_for(|count| *count == 0).await;
    }
    function.ended(true);
    // What is left of its group answers nobody any more.
    program.signal(nix::sys::signal::Signal::SIGKILL);
    status
}

/// A shell's way to tell a signal: 128 and its number.
fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    u8::try_from(code).unwrap_or(1)
}

//! The function's program as a process: one for each call, or one for all in mode http.

use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::time::Duration;

use bytes::BufMut;
use http_body_util::BodyExt;
use hyper::body::Frame;
use hyper::header::CONTENT_TYPE;
use hyper::{Response, StatusCode};
use nix::sys::signal::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};

use crate::body::{Body, Problem, internal, text};
use crate::config::Config;
use crate::environment::Variable;
use crate::output::{self, ERR, OUT, say};
use crate::patience::Silent;
use crate::reaper::{Program, Reaper};
use crate::task;

/// How long the rest of a program's standard error is waited for when the program has ended: something that it left
/// behind may keep it open.
const REST: Duration = Duration::from_millis(20);

/// Whether the program can be found at all: who deploys it should hear that, and not who calls it.
pub fn check(config: &Config) -> Result<(), String> {
    let Some(name) = config.command.first() else { return Ok(()) };
    let paths = std::env::var_os("PATH").unwrap_or_else(|| "/bin:/usr/bin".into());
    let (found, place) = if name.contains('/') {
        (Path::new(name).is_file(), "the path of a program")
    } else {
        let found = std::env::split_paths(&paths).any(|folder| folder.join(name).is_file());
        (found, "a program of PATH")
    };
    if found { Ok(()) } else { Err(format!("fprocess={name}: there is no such file, expected {place}")) }
}

fn command(config: &Config) -> Command {
    let mut words = config.command.iter();
    // The configuration has refused an empty command.
    let mut command = Command::new(words.next().map_or("", String::as_str));
    command.args(words);
    command
}

/// Starts the program of mode http.
pub fn start_server(config: &Config, reaper: &Rc<Reaper>) -> Result<Program, String> {
    let mut command = command(config);
    command.stdin(Stdio::null());
    // As they are, the program's lines need nobody to carry them.
    if config.lines.prefix {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
    }
    let failed = |e: std::io::Error| format!("start {}: {e}", config.command.join(" "));
    let (program, mut child) = reaper.spawn(&mut command).map_err(failed)?;
    if let Some(out) = child.stdout.take() {
        task::spawn(output::copy(receiver(out).map_err(failed)?, "stdout", config.lines, &OUT));
    }
    if let Some(err) = child.stderr.take() {
        task::spawn(output::copy(receiver(err).map_err(failed)?, "stderr", config.lines, &ERR));
    }
    Ok(program)
}

/// Ends the program of mode http: SIGTERM, its time, SIGKILL.
pub async fn terminate(mut program: Program, grace: Duration) {
    program.signal(Signal::SIGTERM);
    // Whatever is left of its group ends with the value.
    let _ = timeout(grace, program.wait()).await;
}

/// Where a program's standard error goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Errors {
    /// Into the log.
    Logged,
    /// Where its output goes, in the order in which it wrote.
    Combined,
}

/// A program that runs for one call.
pub struct Running {
    program: Program,
    stdout: pipe::Receiver,
    feeder: Option<JoinHandle<Result<(), Broken>>>,
    errors: Option<JoinHandle<()>>,
}

/// A request's body that broke off, and the program's input: it stays open until the program is dead, because what
/// broke off must not look complete to it.
struct Broken {
    problem: Problem,
    _stdin: pipe::Sender,
}

/// Why a program's output broke off.
#[derive(Debug)]
pub enum Cut {
    /// The call's time is over.
    Late,
    /// The request's body did not come to its end.
    Request(Problem),
    /// The program failed, and how.
    Failed(String),
}

impl std::fmt::Display for Cut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Late => f.write_str("the call's time is over"),
            Self::Request(problem) => problem.fmt(f),
            Self::Failed(reason) => f.write_str(reason),
        }
    }
}

impl Cut {
    /// The answer of the modes of the of-watchdog. What the program itself did is not marked as the watchdog's: such
    /// answers are tried again whatever their status is.
    pub fn answer(&self, config: &Config) -> Response<Body> {
        say(format_args!("{}: {self}", config.command.join(" ")));
        let message = format!("{self}\n");
        match self {
            Self::Late => internal(StatusCode::GATEWAY_TIMEOUT, message),
            Self::Request(problem) => internal(request_status(problem.as_ref()), message),
            Self::Failed(_) => text(StatusCode::INTERNAL_SERVER_ERROR, message),
        }
    }
}

/// The status for a request whose body did not come to its end.
pub fn request_status(problem: &(dyn std::error::Error + 'static)) -> StatusCode {
    if Silent::is_cause(problem) { StatusCode::REQUEST_TIMEOUT } else { StatusCode::BAD_REQUEST }
}

/// The answer to a call whose path no program can be told.
pub fn bad_path() -> Response<Body> {
    internal(StatusCode::BAD_REQUEST, "the path is not encoded correctly\n")
}

/// The answer that a program wrote.
pub fn written(config: &Config, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    if let Some(value) = &config.content_type {
        response.headers_mut().insert(CONTENT_TYPE, value.clone());
    }
    response
}

/// The answer when a program could not be started.
pub fn not_started(config: &Config, error: &std::io::Error) -> Response<Body> {
    say(format_args!("{}: start: {error}", config.command.join(" ")));
    match error.kind() {
        // The kernel's limit for one variable is 128 KiB.
        ErrorKind::ArgumentListTooLong => internal(
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            "the request's head is too large for the environment of a program\n",
        ),
        _ => internal(StatusCode::INTERNAL_SERVER_ERROR, format!("start: {error}\n")),
    }
}

impl Running {
    /// Starts the program and begins to feed it.
    pub fn start(
        config: &Config,
        reaper: &Rc<Reaper>,
        variables: Vec<Variable>,
        body: Body,
        errors: Errors,
    ) -> std::io::Result<Self> {
        let mut command = command(config);
        command.envs(variables).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let combined = match errors {
            Errors::Logged => None,
            Errors::Combined => {
                let (reader, writer) = std::io::pipe()?;
                command.stdout(writer.try_clone()?).stderr(writer);
                Some(OwnedFd::from(reader))
            }
        };
        let (program, mut child) = reaper.spawn(&mut command)?;
        // It holds the pipe's end for writing, which only the program is to have.
        drop(command);
        let missing = || std::io::Error::from(ErrorKind::BrokenPipe);
        let stdout = combined.or_else(|| child.stdout.take().map(OwnedFd::from)).ok_or_else(missing)?;
        let stdin = pipe::Sender::from_owned_fd(child.stdin.take().ok_or_else(missing)?.into())?;
        let errors = match child.stderr.take() {
            Some(stderr) => {
                let copying = output::copy(receiver(stderr)?, "stderr", config.lines, &ERR);
                Some(task::spawn(copying))
            }
            None => None,
        };
        let feeder = Some(tokio::task::spawn_local(feed(body, stdin)));
        Ok(Self { program, stdout: receiver(stdout)?, feeder, errors })
    }

    /// Adds to `into` what the program writes next. Gives 0 when it has closed its output and ended well: one that
    /// closes its output goes on within its time.
    pub async fn read(&mut self, into: &mut impl BufMut, deadline: Option<Instant>) -> Result<usize, Cut> {
        let Self { program, stdout, feeder, errors } = self;
        let more = async {
            match stdout.read_buf(into).await {
                Ok(0) => end(program, errors).await.map(|()| 0).map_err(Cut::Failed),
                Ok(n) => Ok(n),
                Err(error) => Err(Cut::Failed(error.to_string())),
            }
        };
        tokio::select! {
            read = more => read,
            broken = broken(feeder) => {
                program.signal(Signal::SIGKILL);
                Err(Cut::Request(broken.problem))
            }
            () = until(deadline) => Err(Cut::Late),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // First the program, then its input.
        self.program.signal(Signal::SIGKILL);
        if let Some(feeder) = &self.feeder {
            feeder.abort();
        }
    }
}

/// Waits until the program has ended, and until what it said is on its way to the log.
async fn end(program: &mut Program, errors: &mut Option<JoinHandle<()>>) -> Result<(), String> {
    let status = program.wait().await;
    if let Some(errors) = errors.take() {
        // What it has left behind in its group ends with it.
        program.signal(Signal::SIGKILL);
        // What still writes after that has left the group; it is copied on.
        let _ = timeout(REST, errors).await;
    }
    match (status.code(), status.signal()) {
        (Some(0), _) => Ok(()),
        (Some(code), _) => Err(format!("exit status {code}")),
        (None, Some(signal)) => Err(format!("signal {signal}")),
        (None, None) => Err(status.to_string()),
    }
}

/// Waits until the request's body breaks off; for ever if it does not.
async fn broken(feeder: &mut Option<JoinHandle<Result<(), Broken>>>) -> Broken {
    if let Some(feeding) = feeder {
        let fed = feeding.await;
        *feeder = None;
        if let Ok(Err(broken)) = fed {
            return broken;
        }
    }
    std::future::pending().await
}

/// The request's body into the program. A program that does not read to the end is within its rights.
async fn feed(mut body: Body, mut stdin: pipe::Sender) -> Result<(), Broken> {
    while let Some(frame) = body.frame().await {
        match frame.map(Frame::into_data) {
            Ok(Ok(data)) => {
                if stdin.write_all(&data).await.is_err() {
                    return Ok(());
                }
            }
            Ok(Err(_)) => {}
            Err(problem) => return Err(Broken { problem, _stdin: stdin }),
        }
    }
    Ok(())
}

fn receiver(end: impl Into<OwnedFd>) -> std::io::Result<pipe::Receiver> {
    pipe::Receiver::from_owned_fd(end.into())
}

/// Waits for a call's end in time, if it has one.
pub async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

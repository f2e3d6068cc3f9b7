//! The function's program as a process: one per request in mode streaming, one for all in mode http.

use std::process::{ChildStderr, ChildStdin, ChildStdout, Command, Stdio};
use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, stream};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue, TRANSFER_ENCODING};
use hyper::{Request, Response, StatusCode};
use nix::sys::signal::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::time::{Instant, sleep_until, timeout};

use crate::body::{Body, Problem, internal};
use crate::config::Config;
use crate::output::{self, ERR, OUT, say};
use crate::reaper::{Program, Reaper};

/// Who the watchdog says it is.
const WHO: &str = "of-watchdog";

/// Bytes of output that are read at once.
const CHUNK: usize = 32 << 10;

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
    if config.prefix_logs {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
    }
    let failed = |e: std::io::Error| format!("start {}: {e}", config.command.join(" "));
    let (program, mut child) = reaper.spawn(&mut command).map_err(failed)?;
    if let Some(out) = child.stdout.take() {
        tokio::task::spawn_local(output::copy(from_stdout(out).map_err(failed)?, "stdout: ", &OUT));
    }
    if let Some(err) = child.stderr.take() {
        tokio::task::spawn_local(output::copy(from_stderr(err).map_err(failed)?, "stderr: ", &ERR));
    }
    Ok(program)
}

/// Ends the program of mode http: SIGTERM, its time, SIGKILL.
pub async fn terminate(mut program: Program, grace: Duration) {
    program.signal(Signal::SIGTERM);
    // Whatever is left of its group ends with the value.
    let _ = timeout(grace, program.wait()).await;
}

/// Runs the program for one request. The answer begins with the first output; a program that fails before it has
/// written anything gives 500.
pub async fn run(
    config: &Config,
    reaper: &Rc<Reaper>,
    request: Request<Incoming>,
    deadline: Option<Instant>,
) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let mut command = command(config);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    for (name, value) in environment(&parts) {
        command.env(name, value);
    }
    let failed = |reason: String| {
        say(format_args!("{}: {reason}", config.command.join(" ")));
        internal(StatusCode::INTERNAL_SERVER_ERROR, format!("{reason}\n"), WHO)
    };
    let (mut program, mut child) = match reaper.spawn(&mut command) {
        Ok(started) => started,
        Err(error) => return failed(format!("start: {error}")),
    };
    if let Some(stderr) = child.stderr.take().and_then(|stderr| from_stderr(stderr).ok()) {
        let prefix = if config.prefix_logs { "stderr: " } else { "" };
        tokio::task::spawn_local(output::copy(stderr, prefix, &ERR));
    }
    let stdin = child.stdin.take().and_then(|stdin| from_stdin(stdin).ok());
    let feeder = stdin.map(|stdin| tokio::task::spawn_local(feed(body, stdin)));
    let Some(mut stdout) = child.stdout.take().and_then(|stdout| from_stdout(stdout).ok()) else {
        return failed("it has no output".to_owned());
    };
    // A program that closes its output goes on within its time.
    let begin = async {
        match read(&mut stdout).await {
            Ok(Some(bytes)) => Ok(bytes),
            Ok(None) => match program.wait().await {
                status if status.success() => Ok(Bytes::new()),
                status => Err(status.to_string()),
            },
            Err(error) => Err(error.to_string()),
        }
    };
    let begun = tokio::select! {
        begun = begin => begun,
        () = until(deadline) => {
            say(format_args!("{}: its time is over", config.command.join(" ")));
            return internal(StatusCode::GATEWAY_TIMEOUT, "", WHO);
        }
    };
    let first = match begun {
        Ok(first) => first,
        Err(reason) => return failed(reason),
    };
    let rest = Rest { stdout, program, deadline, feeder: feeder.map(|task| task.abort_handle()) };
    let frames = stream::once(async { Ok(Frame::data(first)) }).chain(stream::unfold(Some(rest), Rest::next));
    let mut response = Response::new(Box::pin(StreamBody::new(frames)) as Body);
    if let Ok(value) = HeaderValue::try_from(&config.content_type) {
        response.headers_mut().insert(CONTENT_TYPE, value);
    }
    response
}

fn from_stdin(pipe: ChildStdin) -> std::io::Result<pipe::Sender> {
    pipe::Sender::from_owned_fd(pipe.into())
}

fn from_stdout(pipe: ChildStdout) -> std::io::Result<pipe::Receiver> {
    pipe::Receiver::from_owned_fd(pipe.into())
}

fn from_stderr(pipe: ChildStderr) -> std::io::Result<pipe::Receiver> {
    pipe::Receiver::from_owned_fd(pipe.into())
}

/// What is still to come of a program's output.
struct Rest {
    stdout: pipe::Receiver,
    program: Program,
    deadline: Option<Instant>,
    feeder: Option<tokio::task::AbortHandle>,
}

impl Drop for Rest {
    fn drop(&mut self) {
        if let Some(feeder) = &self.feeder {
            feeder.abort();
        }
    }
}

impl Rest {
    async fn next(rest: Option<Self>) -> Option<(Result<Frame<Bytes>, Problem>, Option<Self>)> {
        let mut rest = rest?;
        let deadline = rest.deadline;
        let Self { stdout, program, .. } = &mut rest;
        let more = async {
            let read = read(stdout).await;
            if let Ok(None) = read {
                let status = program.wait().await;
                if !status.success() {
                    say(format_args!("the function's program ended with {status}"));
                }
            }
            read
        };
        tokio::select! {
            read = more => match read {
                Ok(Some(bytes)) => Some((Ok(Frame::data(bytes)), Some(rest))),
                Ok(None) => None,
                Err(error) => Some((Err(error.into()), None)),
            },
            () = until(deadline) => Some((Err("the call's time is over".into()), None)),
        }
    }
}

async fn read(stdout: &mut pipe::Receiver) -> std::io::Result<Option<Bytes>> {
    let mut buffer = BytesMut::with_capacity(CHUNK);
    Ok((stdout.read_buf(&mut buffer).await? > 0).then(|| buffer.freeze()))
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// The request's body into the program. A program that does not read to the end is within its rights.
async fn feed(mut body: Incoming, mut stdin: pipe::Sender) {
    while let Some(Ok(frame)) = body.frame().await {
        if let Ok(data) = frame.into_data()
            && stdin.write_all(&data).await.is_err()
        {
            return;
        }
    }
}

/// The request's head as the program's environment.
fn environment(parts: &hyper::http::request::Parts) -> Vec<(String, String)> {
    let mut variables: Vec<(String, String)> = Vec::new();
    for name in parts.headers.keys() {
        let words = name.as_str().split('-').map(capitalised).collect::<Vec<_>>().join("_");
        let values: Vec<_> =
            parts.headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect();
        variables.push((format!("Http_{words}"), values.join(", ")));
    }
    variables.push(("Http_Method".to_owned(), parts.method.to_string()));
    if let Some(query) = parts.uri.query() {
        variables.push(("Http_Query".to_owned(), query.to_owned()));
    }
    variables.push(("Http_Path".to_owned(), parts.uri.path().to_owned()));
    if let Some(encoding) = parts.headers.get(TRANSFER_ENCODING).and_then(|value| value.to_str().ok()) {
        variables.push(("Http_Transfer_Encoding".to_owned(), encoding.to_owned()));
    }
    variables
}

fn capitalised(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map(|first| first.to_ascii_uppercase().to_string() + letters.as_str()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cgi() {
        let request = Request::builder()
            .method("PUT")
            .uri("/a/b?c=d")
            .header("x-call-id", "7")
            .header("accept", "a")
            .header("accept", "b")
            .body(())
            .unwrap();
        let variables = environment(&request.into_parts().0);
        let get = |name: &str| variables.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        assert_eq!(get("Http_X_Call_Id"), Some("7"));
        assert_eq!(get("Http_Accept"), Some("a, b"));
        assert_eq!(get("Http_Method"), Some("PUT"));
        assert_eq!(get("Http_Query"), Some("c=d"));
        assert_eq!(get("Http_Path"), Some("/a/b"));
    }
}

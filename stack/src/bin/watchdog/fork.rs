//! The function's program as a process: one per request in mode streaming, one for all in mode http.

use std::process::Stdio;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, stream};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue, TRANSFER_ENCODING};
use hyper::{Request, Response, StatusCode};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::{Instant, sleep_until, timeout};

use crate::body::{Body, Problem, internal};
use crate::config::Config;
use crate::output;

/// Who the watchdog says it is.
const WHO: &str = "of-watchdog";

/// Bytes of output that are read at once.
const CHUNK: usize = 32 << 10;

/// A program of its own process group, which ends when this is dropped.
struct Program {
    child: Child,
    group: Option<Pid>,
}

impl Drop for Program {
    fn drop(&mut self) {
        // Only while the leader is not reaped is its number surely ours.
        if let (Some(group), Ok(None)) = (self.group, self.child.try_wait()) {
            let _ = killpg(group, Signal::SIGKILL);
        }
    }
}

fn command(config: &Config) -> Command {
    let mut words = config.command.iter();
    // The configuration has refused an empty command.
    let mut command = Command::new(words.next().map_or("", String::as_str));
    command.args(words).process_group(0);
    command
}

fn group(child: &Child) -> Option<Pid> {
    child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw)
}

/// Starts the program of mode http.
pub fn start_server(config: &Config) -> Result<Child, String> {
    let mut command = command(config);
    command.stdin(Stdio::null());
    if config.prefix_logs {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
    }
    let mut child = command.spawn().map_err(|e| format!("start {}: {e}", config.command.join(" ")))?;
    if let Some(out) = child.stdout.take() {
        tokio::task::spawn_local(output::copy(out, "stdout: ", std::io::stdout()));
    }
    if let Some(err) = child.stderr.take() {
        tokio::task::spawn_local(output::copy(err, "stderr: ", std::io::stderr()));
    }
    Ok(child)
}

/// Ends the program of mode http: SIGTERM, its time, SIGKILL.
pub async fn terminate(child: &mut Child, grace: Duration) {
    let Some(group) = group(child) else { return };
    let _ = killpg(group, Signal::SIGTERM);
    if timeout(grace, child.wait()).await.is_err() {
        let _ = killpg(group, Signal::SIGKILL);
    }
}

/// Runs the program for one request. The answer begins with the first output; a program that fails before it has
/// written anything gives 500.
pub async fn run(config: &Config, request: Request<Incoming>, deadline: Option<Instant>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let mut command = command(config);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    for (name, value) in environment(&parts) {
        command.env(name, value);
    }
    let failed = |reason: String| {
        eprintln!("watchdog: {}: {reason}", config.command.join(" "));
        internal(StatusCode::INTERNAL_SERVER_ERROR, format!("{reason}\n"), WHO)
    };
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => return failed(format!("start: {error}")),
    };
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let mut program = Program { group: group(&child), child };
    if let Some(stderr) = stderr {
        let prefix = if config.prefix_logs { "stderr: " } else { "" };
        tokio::task::spawn_local(output::copy(stderr, prefix, std::io::stderr()));
    }
    let feeder = stdin.map(|stdin| tokio::task::spawn_local(feed(body, stdin)));
    let Some(mut stdout) = stdout else { return failed("it has no output".to_owned()) };
    let first = tokio::select! {
        first = read(&mut stdout) => first,
        () = until(deadline) => {
            eprintln!("watchdog: {}: its time is over", config.command.join(" "));
            return internal(StatusCode::GATEWAY_TIMEOUT, "", WHO);
        }
    };
    let first = match first {
        Ok(Some(bytes)) => bytes,
        Ok(None) => match program.child.wait().await {
            Ok(status) if status.success() => Bytes::new(),
            Ok(status) => return failed(status.to_string()),
            Err(error) => return failed(error.to_string()),
        },
        Err(error) => return failed(error.to_string()),
    };
    let rest = Rest { stdout, program, deadline, feeder: feeder.map(|task| task.abort_handle()) };
    let frames = stream::once(async { Ok(Frame::data(first)) }).chain(stream::unfold(Some(rest), Rest::next));
    let mut response = Response::new(Box::pin(StreamBody::new(frames)) as Body);
    if let Ok(value) = HeaderValue::try_from(&config.content_type) {
        response.headers_mut().insert(CONTENT_TYPE, value);
    }
    response
}

/// What is still to come of a program's output.
struct Rest {
    stdout: ChildStdout,
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
        tokio::select! {
            read = read(&mut rest.stdout) => match read {
                Ok(Some(bytes)) => Some((Ok(Frame::data(bytes)), Some(rest))),
                Ok(None) => {
                    if let Ok(status) = rest.program.child.wait().await && !status.success() {
                        eprintln!("watchdog: the function's program ended with {status}");
                    }
                    None
                }
                Err(error) => Some((Err(error.into()), None)),
            },
            () = until(rest.deadline) => Some((Err("the call's time is over".into()), None)),
        }
    }
}

async fn read(stdout: &mut ChildStdout) -> std::io::Result<Option<Bytes>> {
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
async fn feed(mut body: Incoming, mut stdin: ChildStdin) {
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

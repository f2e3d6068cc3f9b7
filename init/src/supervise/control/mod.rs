//! The control socket: one request of a client, lines of JSON in answer. Root only; the gateway is root.

mod config;
mod journal;
mod reports;

use std::cell::{Cell, RefCell};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use serde::Serialize;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::spawn_local;

use super::configuration::Effective;
use super::screen::Made;
use crate::board::Board;
use crate::power::Ending;
use crate::request::{LONGEST_BYTES, Request};

/// Who connects and says nothing does not stay.
const REQUEST_LIMIT: Duration = Duration::from_secs(5);
/// Who does not take one line within this time gets no more.
const STALL_LIMIT: Duration = Duration::from_secs(60);
/// How long a client that was refused may take to go.
const LINGER: Duration = Duration::from_secs(1);
/// Clients at a time; each may hold a reader of the journal.
const CLIENTS: usize = 16;

/// What answers are made of.
pub(super) struct Desk {
    /// What the supervisor knows.
    pub board: Board,
    /// Where the machine's end is asked for.
    pub wish: watch::Sender<Option<Ending>>,
    /// The configuration, once it is read.
    pub effective: Rc<RefCell<Option<Effective>>>,
    /// User and password that this device made itself.
    pub made: Made,
}

/// Answers, as long as the supervisor lives.
pub(super) async fn serve(path: PathBuf, desk: Desk) {
    let _ = fs::remove_file(&path);
    let listener = match UnixListener::bind(&path) {
        Ok(listener) => listener,
        Err(error) => {
            let text = format!("bind {}: {error}", path.display());
            return desk.board.problem("control socket", Some(text));
        }
    };
    let _ = fs::set_permissions(&path, Permissions::from_mode(0o600));
    let (desk, clients) = (Rc::new(desk), Rc::new(Cell::new(0_usize)));
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let (desk, clients) = (desk.clone(), clients.clone());
                clients.set(clients.get() + 1);
                spawn_local(async move {
                    converse(stream, &desk, clients.get() > CLIENTS).await;
                    clients.set(clients.get().saturating_sub(1));
                });
            }
            // Out of descriptors, say: not for long.
            Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    }
}

/// Why an answer breaks off.
enum Stop {
    /// Said to the client.
    Error(String),
    /// There is no client any more.
    Gone,
}

/// What a request leaves to be done after its answer.
type Outcome = Result<Option<Ending>, Stop>;

async fn converse(stream: UnixStream, desk: &Desk, full: bool) {
    let (mut reader, writer) = stream.into_split();
    let mut answer = Answer { writer };
    let outcome = if full {
        Err(Stop::Error(format!("{CLIENTS} others are being answered already; try again")))
    } else {
        match tokio::time::timeout(REQUEST_LIMIT, request(&mut reader)).await {
            Err(_) => Err(Stop::Error(format!("no request came within {} s", REQUEST_LIMIT.as_secs()))),
            Ok(Err(text)) => Err(Stop::Error(text)),
            Ok(Ok(request)) => tokio::select! {
                outcome = carry_out(desk, request, &mut answer) => outcome,
                () = gone(&mut reader) => Err(Stop::Gone),
            },
        }
    };
    match outcome {
        Ok(ending) => {
            // The answer first: soon nobody is there to give it.
            let _ = answer.line(&json!({ "done": true })).await;
            let _ = answer.writer.shutdown().await;
            if ending.is_some() {
                desk.wish.send_replace(ending);
            }
        }
        Err(Stop::Error(text)) => {
            let _ = answer.line(&json!({ "error": text })).await;
            let _ = answer.writer.shutdown().await;
            // What is left unread when a socket is closed becomes the other side's error, in place of the answer.
            let _ = tokio::time::timeout(LINGER, gone(&mut reader)).await;
        }
        Err(Stop::Gone) => {}
    }
}

/// Reads the one line.
async fn request(reader: &mut OwnedReadHalf) -> Result<Request, String> {
    let mut line = Vec::new();
    loop {
        let mut part = [0_u8; 1024];
        let length = reader.read(&mut part).await.map_err(|error| error.to_string())?;
        line.extend_from_slice(part.get(..length).unwrap_or_default());
        if let Some(end) = line.iter().position(|byte| *byte == b'\n') {
            line.truncate(end);
            return Request::parse(&line);
        }
        if length == 0 {
            return Request::parse(&line);
        }
        if line.len() > LONGEST_BYTES {
            return Err(format!("a request has at most {LONGEST_BYTES} bytes"));
        }
    }
}

/// Waits until the client closes its side. It does so only when it wants no more.
async fn gone(reader: &mut OwnedReadHalf) {
    let mut rest = [0_u8; 256];
    while let Ok(1..) = reader.read(&mut rest).await {}
}

/// The way back to the client.
struct Answer {
    writer: OwnedWriteHalf,
}

impl Answer {
    /// Sends one object.
    async fn line(&mut self, document: &impl Serialize) -> Result<(), Stop> {
        let mut bytes = serde_json::to_vec(document).map_err(|error| Stop::Error(error.to_string()))?;
        bytes.push(b'\n');
        self.bytes(&bytes).await
    }

    async fn bytes(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        match tokio::time::timeout(STALL_LIMIT, self.writer.write_all(bytes)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Stop::Gone),
        }
    }
}

async fn carry_out(desk: &Desk, request: Request, answer: &mut Answer) -> Outcome {
    match request {
        Request::Status {} => answer.line(&desk.board.status()).await?,
        Request::Services { name } => reports::services(&desk.board, name.as_deref(), answer).await?,
        Request::Plan {} => reports::plan(answer).await?,
        Request::Top { interval_ms, count } => reports::top(interval_ms, count, answer).await?,
        Request::Logs(filter) => journal::read(&filter, answer).await?,
        Request::Config { reveal } => answer.line(&config::report(desk, reveal)?).await?,
        Request::Credentials {} => answer.line(&config::credentials(desk)?).await?,
        Request::Poweroff {} => return Ok(Some(Ending::Poweroff)),
        Request::Reboot {} => return Ok(Some(Ending::Reboot)),
        Request::Reset {} => return Ok(Some(Ending::Reset)),
    }
    Ok(None)
}

/// SIGTERM asks for a power off: that is what a distribution's init, or a person, means with it.
pub(super) async fn on_sigterm(wish: watch::Sender<Option<Ending>>) {
    match signal(SignalKind::terminate()) {
        Ok(mut term) => {
            if term.recv().await.is_some() {
                wish.send_replace(Some(Ending::Poweroff));
            }
        }
        Err(error) => tracing::error!("no handler for SIGTERM: {error}"),
    }
}

#[cfg(test)]
mod tests;

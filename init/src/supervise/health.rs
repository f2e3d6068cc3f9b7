//! Whether the appliance works: all services ready, and the gateway says so itself. And status.json.

use std::io;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;

use super::STATUS;
use crate::board::{Board, GATEWAY_PORT};
use crate::file;

/// Until it works, and while it does.
const EAGER: Duration = Duration::from_millis(100);
const CALM: Duration = Duration::from_secs(5);
const LIMIT: Duration = Duration::from_secs(5);
/// One slow answer on a busy card is no failure.
const FAILURES: u32 = 3;
/// When a failure is said: not answering for a moment is how it starts.
const SAID_AFTER: Duration = Duration::from_secs(10);
/// When the gateway is taken for hung.
const HUNG_AFTER: Duration = Duration::from_secs(30);

/// Asks the gateway again and again, and notes the answer. One that is ready and does not answer for long is `unwell`.
pub(super) async fn ask(board: Board, unwell: Rc<Notify>) {
    let mut failing = Failing::default();
    loop {
        let begin = Instant::now();
        if !board.status().all_ready() {
            failing = Failing::default();
            board.change(|status| status.healthy = false);
            board.problem("health", None);
            tokio::time::sleep(EAGER).await;
            continue;
        }
        let why = match healthz(GATEWAY_PORT).await {
            Ok(200) => {
                failing = Failing::default();
                board.problem("health", None);
                board.change(|status| status.healthy = true);
                let mut changes = board.changes();
                tokio::select! {
                    () = tokio::time::sleep(CALM) => {}
                    _ = changes.changed() => {}
                }
                continue;
            }
            Ok(code) => format!("the gateway answers {code} on /healthz"),
            Err(error) => format!("the gateway does not answer on /healthz: {error}"),
        };
        let found = failing.note(begin, Instant::now());
        if found.unhealthy {
            board.change(|status| status.healthy = false);
        }
        if found.said {
            board.problem("health", Some(why));
        }
        if found.hung {
            tracing::error!("the gateway is taken for hung and starts again");
            unwell.notify_waiters();
            failing = Failing::default();
        }
        tokio::time::sleep(EAGER).await;
    }
}

/// Failures in a row.
#[derive(Debug, Default)]
struct Failing {
    since: Option<Instant>,
    count: u32,
}

/// What they mean.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    unhealthy: bool,
    said: bool,
    hung: bool,
}

impl Failing {
    /// Adds one that was asked at `begin` and is known `now`.
    fn note(&mut self, begin: Instant, now: Instant) -> Found {
        self.count = self.count.saturating_add(1);
        let lasts = now.saturating_duration_since(*self.since.get_or_insert(begin));
        Found {
            unhealthy: self.count >= FAILURES || lasts >= SAID_AFTER,
            said: lasts >= SAID_AFTER,
            hung: lasts >= HUNG_AFTER,
        }
    }
}

/// `GET /healthz`; gives the status code. HTTP/1.0: one answer, then the end.
async fn healthz(port: u16) -> io::Result<u16> {
    let ask = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.write_all(b"GET /healthz HTTP/1.0\r\nHost: localhost\r\nUser-Agent: init\r\n\r\n").await?;
        let mut head = Vec::new();
        stream.take(512).read_to_end(&mut head).await?;
        code(&head).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
    };
    tokio::time::timeout(LIMIT, ask).await?
}

fn code(head: &[u8]) -> Option<u16> {
    let line = head.split(|byte| *byte == b'\r').next()?;
    let line = std::str::from_utf8(line).ok()?.strip_prefix("HTTP/1.")?;
    line.split(' ').nth(1)?.parse().ok()
}

/// Writes status.json at each change. It names problems, which may quote a line of the configuration: for root alone.
pub(super) async fn write_status(board: Board) {
    let mut changes = board.changes();
    loop {
        let bytes = serde_json::to_vec_pretty(&board.status()).unwrap_or_default();
        if let Err(error) = file::replace(Path::new(STATUS), &bytes, 0o600) {
            tracing::warn!("{error}");
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_status_line() {
        assert_eq!(code(b"HTTP/1.1 200 OK\r\nx"), Some(200));
        assert_eq!(code(b"HTTP/1.0 503\r\n"), Some(503));
        assert_eq!(code(b"SSH-2.0"), None);
        assert_eq!(code(b""), None);
    }

    #[test]
    fn a_hung_gateway_is_said_then_started_again() {
        let mut failing = Failing::default();
        let begin = Instant::now();
        let mut note = |from: u64, to: u64| {
            let found = failing.note(begin + Duration::from_secs(from), begin + Duration::from_secs(to));
            (found.unhealthy, found.said, found.hung)
        };
        assert_eq!(note(0, 5), (false, false, false));
        assert_eq!(note(5, 10), (true, true, false));
        assert_eq!(note(24, 29), (true, true, false));
        assert_eq!(note(29, 34), (true, true, true));
        // Quick refusals count by number.
        let mut failing = Failing::default();
        let counts: Vec<_> = (0..4).map(|_| failing.note(begin, begin).unhealthy).collect();
        assert_eq!(counts, [false, false, true, true]);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn asks_a_real_port() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut buffer = [0; 256];
            let length = stream.read(&mut buffer).await.unwrap();
            assert!(buffer[..length].starts_with(b"GET /healthz HTTP/1.0\r\n"));
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nOK").await.unwrap();
        };
        let (answer, ()) = tokio::join!(healthz(port), serve);
        assert_eq!(answer.unwrap(), 200);
        drop(listener);
        assert!(healthz(port).await.is_err());
    }
}

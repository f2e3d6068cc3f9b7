//! Whether the appliance works: all services ready, and the gateway says so itself. And status.json.

use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::STATUS;
use crate::board::{Board, GATEWAY_PORT};
use crate::file;

/// Until it works, and while it does.
const EAGER: Duration = Duration::from_millis(100);
const CALM: Duration = Duration::from_secs(5);
const LIMIT: Duration = Duration::from_secs(5);
/// One slow answer on a busy card is no failure.
const FAILURES: u32 = 3;

/// Asks the gateway again and again, and notes the answer.
pub(super) async fn ask(board: Board) {
    let mut failures = 0;
    loop {
        let services = board.status().all_ready();
        let answer = if services { healthz(GATEWAY_PORT).await } else { Ok(0) };
        let healthy = services && matches!(answer, Ok(200));
        failures = if healthy { 0 } else { failures + 1 };
        if healthy || failures >= FAILURES || !services {
            board.change(|status| status.healthy = healthy);
        }
        let problem = match answer {
            Ok(200 | 0) => None,
            _ if failures < FAILURES => None,
            Ok(code) => Some(format!("the gateway answers {code} on /healthz")),
            Err(error) => Some(format!("the gateway does not answer on /healthz: {error}")),
        };
        // Ready, but not answering for a moment, is how it starts.
        if problem.is_none() || failures > 50 {
            board.problem("health", problem);
        }
        if healthy {
            let mut changes = board.changes();
            tokio::select! {
                () = tokio::time::sleep(CALM) => {}
                _ = changes.changed() => {}
            }
        } else {
            tokio::time::sleep(EAGER).await;
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

/// Writes status.json at each change.
pub(super) async fn write_status(board: Board) {
    let mut changes = board.changes();
    loop {
        let bytes = serde_json::to_vec_pretty(&board.status()).unwrap_or_default();
        if let Err(error) = file::replace(Path::new(STATUS), &bytes, 0o644) {
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

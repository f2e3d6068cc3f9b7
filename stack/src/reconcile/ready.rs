//! Whether an instance answers: `/_/ready`, else `/_/health`, else that its port is open.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Empty;
use hyper::header::HOST;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use crate::error::{Error, Result};

/// One probe may take this long: a machine that starts many functions is slow.
const PROBE: Duration = Duration::from_secs(5);

/// Pauses between probes: a refused connection costs nothing, so look often at first.
const SHORTEST: Duration = Duration::from_millis(3);
const LONGEST: Duration = Duration::from_millis(100);

/// What makes an instance a ready one.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wanted<'a> {
    /// Path that is asked for; nothing: the usual ones.
    pub path: Option<&'a str>,
    /// How often in a row it must say so after the first time.
    pub again: u32,
    /// The pause between two times.
    pub period: Duration,
}

/// Waits until an instance is ready to answer.
pub async fn wait(address: SocketAddr, wanted: Wanted<'_>, patience: Duration) -> Result<()> {
    let Wanted { path, again, period } = wanted;
    let start = Instant::now();
    let (mut pause, mut left) = (SHORTEST, again);
    loop {
        let last = match timeout(PROBE, ask(address, path)).await {
            Ok(Ok(())) if left == 0 => return Ok(()),
            // However long that takes: it is patience for one that is not ready.
            Ok(Ok(())) => {
                left -= 1;
                sleep(period).await;
                continue;
            }
            Ok(Err(reason)) => reason,
            Err(_) => "it accepts connections and does not answer".to_owned(),
        };
        left = again;
        if start.elapsed() + pause >= patience {
            return Err(Error::NotReady { seconds: patience.as_secs(), last });
        }
        sleep(pause).await;
        pause = (pause * 5 / 4).min(LONGEST);
    }
}

/// Asks once.
pub async fn ask(address: SocketAddr, path: Option<&str>) -> Result<(), String> {
    if let Some(path) = path {
        return match get(address, path).await? {
            status if status.is_success() => Ok(()),
            status => Err(format!("{path} says {}", status.as_u16())),
        };
    }
    for path in ["/_/ready", "/_/health"] {
        match get(address, path).await? {
            status if status.is_success() => return Ok(()),
            // Busy is alive.
            StatusCode::TOO_MANY_REQUESTS => return Ok(()),
            StatusCode::SERVICE_UNAVAILABLE => return Err(format!("{path} says 503")),
            // Anything else: it knows no such path.
            _ => {}
        }
    }
    Ok(())
}

async fn get(address: SocketAddr, path: &str) -> Result<StatusCode, String> {
    let stream = TcpStream::connect(address).await.map_err(|e| format!("port {}: {e}", address.port()))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
    let connection = tokio::spawn(connection);
    let request = Request::builder().method(Method::GET).uri(path).header(HOST, address.to_string());
    let request = request.body(Empty::<Bytes>::new()).map_err(|e| e.to_string())?;
    let answer = sender.send_request(request).await;
    connection.abort();
    match answer {
        Ok(answer) => Ok(answer.status()),
        // It took the connection and speaks no HTTP/1 to us: its port is open, which is all we can ask.
        Err(error) if error.is_parse() => Ok(StatusCode::NOT_FOUND),
        Err(error) => Err(format!("{path}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    async fn server(ready: &'static str, health: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut buffer = [0; 1024];
                let n = stream.read(&mut buffer).await.unwrap();
                let status = if buffer[..n].starts_with(b"GET /_/ready") { ready } else { health };
                let text = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
                stream.write_all(text.as_bytes()).await.unwrap();
            }
        });
        address
    }

    #[tokio::test]
    async fn the_ladder() {
        let short = Duration::from_millis(200);
        for (ready, health, wanted) in [
            ("200 OK", "503 Unavailable", true),
            ("429 Busy", "503 Unavailable", true),
            ("404 None", "200 OK", true),
            ("404 None", "404 None", true),
            ("404 None", "503 Unavailable", false),
            ("503 Unavailable", "200 OK", false),
        ] {
            let address = server(ready, health).await;
            assert_eq!(wait(address, Wanted::default(), short).await.is_ok(), wanted, "{ready} {health}");
        }
        // A path of the function's own must say so itself.
        let address = server("404 None", "200 OK").await;
        let at = |path| Wanted { path: Some(path), ..Wanted::default() };
        assert!(wait(address, at("/up"), short).await.is_ok());
        let error = wait(address, at("/_/ready"), short).await.unwrap_err().to_string();
        assert!(error.contains("/_/ready says 404"), "{error}");
    }

    #[tokio::test]
    async fn more_than_once() {
        let address = server("200 OK", "200 OK").await;
        let (short, began) = (Duration::from_millis(50), Instant::now());
        let often = |again| Wanted { path: None, again, period: short };
        assert!(wait(address, often(3), Duration::from_secs(10)).await.is_ok());
        assert!(began.elapsed() >= short * 3);
        assert!(wait(address, often(3), short).await.is_ok(), "it is ready, and that takes time to be sure");
        let never = server("503 Unavailable", "200 OK").await;
        assert!(wait(never, often(1), short * 4).await.is_err());
    }

    #[tokio::test]
    async fn a_closed_port_is_not_ready() {
        let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let error =
            wait(address, Wanted::default(), Duration::from_millis(50)).await.unwrap_err().to_string();
        assert!(error.contains("port"), "{error}");
    }
}

//! Waiting for a service to be ready.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::{TcpStream, UnixDatagram};

use super::declaration::Ready;

/// Pause between two tries of a port.
const AGAIN: Duration = Duration::from_millis(50);

/// A service's readiness, set up before its process starts.
#[derive(Debug)]
pub(crate) struct Probe {
    ready: Ready,
    notify: Option<(UnixDatagram, PathBuf)>,
}

impl Probe {
    /// Makes what is needed; the notify socket lies at `path`.
    pub(crate) fn new(ready: Ready, path: &Path) -> io::Result<Self> {
        let notify = match ready {
            Ready::Notify => {
                if let Some(folder) = path.parent() {
                    std::fs::create_dir_all(folder)?;
                }
                let _ = std::fs::remove_file(path);
                Some((UnixDatagram::bind(path)?, path.to_owned()))
            }
            Ready::Tcp(_) => None,
        };
        Ok(Self { ready, notify })
    }

    /// The value of `$NOTIFY_SOCKET`.
    pub(crate) fn socket(&self) -> Option<&Path> {
        self.notify.as_ref().map(|(_, path)| path.as_path())
    }

    /// Waits until the service is ready.
    pub(crate) async fn wait(&self) {
        match (&self.notify, self.ready) {
            (Some((socket, _)), _) => while !next(socket).await {},
            (None, Ready::Tcp(port)) => {
                while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
                    tokio::time::sleep(AGAIN).await;
                }
            }
            (None, Ready::Notify) => std::future::pending().await,
        }
    }

    /// Takes messages that nobody needs any more, so that the sender does not wait for room. Never ends.
    pub(crate) async fn drain(&self) {
        match &self.notify {
            Some((socket, _)) => loop {
                next(socket).await;
            },
            None => std::future::pending().await,
        }
    }
}

/// Takes one message; whether it says ready. Descriptors that come along (journald stores its streams) are closed by
/// the kernel, as nothing here makes room for them.
async fn next(socket: &UnixDatagram) -> bool {
    let mut buffer = [0_u8; 4096];
    match socket.recv(&mut buffer).await {
        Ok(length) => {
            let bytes = buffer.get(..length).unwrap_or_default();
            bytes.split(|byte| *byte == b'\n').any(|line| line == b"READY=1")
        }
        Err(_) => {
            tokio::time::sleep(AGAIN).await;
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn notify_waits_for_ready() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify/x");
        let probe = Probe::new(Ready::Notify, &path).unwrap();
        assert_eq!(probe.socket(), Some(path.as_path()));
        let sender = std::os::unix::net::UnixDatagram::unbound().unwrap();
        sender.send_to(b"STATUS=loading\nNOTREADY=1", &path).unwrap();
        assert!(tokio::time::timeout(Duration::from_millis(50), probe.wait()).await.is_err());
        sender.send_to(b"READY=1\nSTATUS=serving", &path).unwrap();
        probe.wait().await;
    }

    #[tokio::test(flavor = "current_thread")]
    async fn tcp_waits_for_the_port() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let probe = Probe::new(Ready::Tcp(port), Path::new("/nonexistent")).unwrap();
        probe.wait().await;
        drop(listener);
        assert!(tokio::time::timeout(Duration::from_millis(120), probe.wait()).await.is_err());
    }
}

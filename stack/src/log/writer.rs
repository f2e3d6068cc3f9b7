//! The one way out: journald's native socket.

use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use tokio::net::UnixDatagram;

use super::queue::Queue;

/// Pause between two tries to reach a journald that is away.
const PAUSE: Duration = Duration::from_millis(100);

/// Writes entry after entry, for ever. One that journald did not take is kept until it does.
pub async fn run(queue: Rc<Queue>, path: PathBuf) {
    let mut journal = None;
    loop {
        let entry = queue.next().await;
        loop {
            if journal.is_none() {
                journal = connect(&path);
            }
            let Some(socket) = &journal else {
                tokio::time::sleep(PAUSE).await;
                continue;
            };
            match socket.send(&entry).await {
                Ok(_) => break queue.written(),
                // It would never fit: go on with the next one.
                Err(error) if error.raw_os_error() == Some(nix::libc::EMSGSIZE) => {
                    tracing::error!("an entry of {} bytes is too long for the journal", entry.len());
                    break queue.written();
                }
                // A dead or new journald; this socket goes to the one before.
                Err(_) => {
                    journal = None;
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}

/// Connected, so that waiting for room means room at journald's end.
fn connect(path: &PathBuf) -> Option<UnixDatagram> {
    let socket = UnixDatagram::unbound().ok()?;
    socket.connect(path).ok()?;
    Some(socket)
}

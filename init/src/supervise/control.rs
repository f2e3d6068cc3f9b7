//! The socket of `bothyctl`: one word in, one line out. Root only.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::spawn_local;

use crate::board::Board;
use crate::power::Ending;

/// Where it lies.
pub(crate) const SOCKET: &str = "/run/bothy/control";
/// Who connects and says nothing does not stay.
const LIMIT: Duration = Duration::from_secs(5);

/// Answers, as long as the supervisor lives.
pub(super) async fn serve(path: PathBuf, wish: watch::Sender<Option<Ending>>, board: Board) {
    let _ = fs::remove_file(&path);
    let listener = match UnixListener::bind(&path) {
        Ok(listener) => listener,
        Err(error) => {
            return board.problem("control socket", Some(format!("bind {}: {error}", path.display())));
        }
    };
    let _ = fs::set_permissions(&path, Permissions::from_mode(0o600));
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let wish = wish.clone();
                spawn_local(async move {
                    let _ = tokio::time::timeout(LIMIT, answer(stream, wish)).await;
                });
            }
            // Out of descriptors, say: not for long.
            Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    }
}

async fn answer(mut stream: UnixStream, wish: watch::Sender<Option<Ending>>) {
    let mut buffer = [0_u8; 64];
    let length = stream.read(&mut buffer).await.unwrap_or(0);
    let word = String::from_utf8_lossy(buffer.get(..length).unwrap_or_default()).trim().to_owned();
    match Ending::from_word(&word) {
        Some(ending) => {
            // The answer first: soon nobody is there to give it.
            let _ = stream.write_all(b"ok\n").await;
            let _ = stream.shutdown().await;
            wish.send_replace(Some(ending));
        }
        None => {
            let _ = stream.write_all(b"error: known words are poweroff and reboot\n").await;
        }
    }
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
mod tests {
    use super::*;

    #[test]
    fn one_word_in_one_line_out() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, async {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("control");
            let wish = watch::Sender::new(None);
            spawn_local(serve(path.clone(), wish.clone(), Board::new()));
            while !path.exists() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            let ask = async |word: &str| {
                let mut stream = UnixStream::connect(&path).await.unwrap();
                stream.write_all(word.as_bytes()).await.unwrap();
                let mut text = String::new();
                stream.read_to_string(&mut text).await.unwrap();
                text
            };
            assert!(ask("dance").await.starts_with("error:"));
            assert_eq!(*wish.borrow(), None);
            assert_eq!(ask("reboot\n").await, "ok\n");
            let mut seen = wish.subscribe();
            seen.wait_for(|wish| *wish == Some(Ending::Reboot)).await.unwrap();
        });
    }
}

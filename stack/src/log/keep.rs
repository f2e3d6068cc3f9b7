//! What the supervisor keeps for us: the FIFOs, which we get back at our next start (`FDSTORE=1`, sd_notify(3)).
//!
//! A task of its own sends, in order: while no supervisor lives nobody reads, and the readers must not wait for one.

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use tokio::io::Interest;
use tokio::net::UnixDatagram;
use tokio::sync::mpsc;

/// Pause between two tries to reach the supervisor.
const PAUSE: Duration = Duration::from_millis(100);
/// Tries for one message. What is not kept is lost only if we die too.
const TRIES: usize = 100;

/// The way to the supervisor.
pub struct Keeper(Option<mpsc::UnboundedSender<Message>>);

struct Message {
    text: String,
    fd: Option<OwnedFd>,
}

impl Keeper {
    /// Tells whoever listens at that socket, if anybody; has to be made in a `LocalSet`.
    pub fn start(socket: Option<PathBuf>) -> Self {
        Self(socket.map(|socket| {
            let (sender, messages) = mpsc::unbounded_channel();
            tokio::task::spawn_local(carry(socket, messages));
            sender
        }))
    }

    /// The socket of our own supervisor.
    pub fn socket() -> Option<PathBuf> {
        std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()).map(PathBuf::from)
    }

    /// Wants a descriptor back at the next start, under that name.
    pub fn keep(&self, name: &str, fd: BorrowedFd) {
        match fd.try_clone_to_owned() {
            Ok(fd) => self.send(Message { text: format!("FDSTORE=1\nFDNAME={name}"), fd: Some(fd) }),
            Err(error) => tracing::warn!("{name} is not kept over a restart: {error}"),
        }
    }

    /// Wants nothing of that name any more.
    pub fn forget(&self, name: &str) {
        self.send(Message { text: format!("FDSTOREREMOVE=1\nFDNAME={name}"), fd: None });
    }

    fn send(&self, message: Message) {
        if let Some(sender) = &self.0 {
            // Its task lives as long as we do.
            let _ = sender.send(message);
        }
    }
}

async fn carry(path: PathBuf, mut messages: mpsc::UnboundedReceiver<Message>) {
    let mut socket = None;
    while let Some(message) = messages.recv().await {
        let mut last = None;
        for _ in 0..TRIES {
            match deliver(&mut socket, &path, &message).await {
                Ok(()) => {
                    last = None;
                    break;
                }
                Err(error) => {
                    (socket, last) = (None, Some(error));
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
        if let Some(error) = last {
            tracing::warn!("the supervisor was not told {:?}: {error}", message.text);
        }
    }
}

async fn deliver(socket: &mut Option<UnixDatagram>, path: &Path, message: &Message) -> io::Result<()> {
    let socket = match socket {
        Some(socket) => socket,
        None => {
            let fresh = UnixDatagram::unbound()?;
            // Connected, so that waiting for room means room at the supervisor's end.
            fresh.connect(path)?;
            socket.insert(fresh)
        }
    };
    let descriptors: Vec<_> = message.fd.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&descriptors)];
    let control = if descriptors.is_empty() { &rights[..0] } else { &rights };
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    let send = || {
        let text = [IoSlice::new(message.text.as_bytes())];
        sendmsg::<()>(socket.as_raw_fd(), &text, control, flags, None).map_err(io::Error::from)
    };
    socket.async_io(Interest::WRITABLE, send).await.map(drop)
}

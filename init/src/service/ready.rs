//! Waiting for a service to be ready.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use tokio::io::Interest;
use tokio::net::{TcpStream, UnixDatagram};

use super::declaration::Ready;
use super::store::Store;

/// Pause between two tries of a port.
const AGAIN: Duration = Duration::from_millis(50);

/// A service's readiness, set up before its process starts.
#[derive(Debug)]
pub(crate) struct Probe {
    ready: Ready,
    notify: Option<(UnixDatagram, PathBuf)>,
    stored: Rc<Store>,
}

impl Probe {
    /// Makes what is needed; the notify socket lies at `path`, and what the service wants back goes to `stored`.
    pub(crate) fn new(ready: Ready, path: &Path, stored: Rc<Store>) -> io::Result<Self> {
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
        Ok(Self { ready, notify, stored })
    }

    /// The value of `$NOTIFY_SOCKET`.
    pub(crate) fn socket(&self) -> Option<&Path> {
        self.notify.as_ref().map(|(_, path)| path.as_path())
    }

    /// Waits until the service is ready.
    pub(crate) async fn wait(&self) {
        match (&self.notify, self.ready) {
            (Some((socket, _)), _) => while !next(socket, &self.stored).await {},
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
                next(socket, &self.stored).await;
            },
            None => std::future::pending().await,
        }
    }
}

/// Takes one message; whether it says ready.
async fn next(socket: &UnixDatagram, stored: &Store) -> bool {
    match socket.async_io(Interest::READABLE, || receive(socket)).await {
        Ok((bytes, descriptors)) => {
            let says = |word: &[u8]| bytes.split(|byte| *byte == b'\n').any(|line| line == word);
            if says(b"FDSTORE=1") {
                stored.keep(descriptors);
            }
            says(b"READY=1")
        }
        Err(_) => {
            tokio::time::sleep(AGAIN).await;
            false
        }
    }
}

/// A message and the descriptors that came with it.
fn receive(socket: &UnixDatagram) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut bytes = vec![0; 4096];
    // The kernel closes what has no room here.
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(16))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let length = recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, flags)?.bytes;
    bytes.truncate(length);
    let rights = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    Ok((bytes, rights.flatten().collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn notify_waits_for_ready() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify/x");
        let probe = Probe::new(Ready::Notify, &path, Rc::default()).unwrap();
        assert_eq!(probe.socket(), Some(path.as_path()));
        let sender = std::os::unix::net::UnixDatagram::unbound().unwrap();
        sender.send_to(b"STATUS=loading\nNOTREADY=1", &path).unwrap();
        assert!(tokio::time::timeout(Duration::from_millis(50), probe.wait()).await.is_err());
        sender.send_to(b"READY=1\nSTATUS=serving", &path).unwrap();
        probe.wait().await;
    }

    #[tokio::test(flavor = "current_thread")]
    async fn descriptors_are_kept_when_asked_for() {
        use std::io::{IoSlice, Read, Write};
        use std::os::fd::AsFd;

        use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify/journald");
        let stored = Rc::new(Store::default());
        let probe = Probe::new(Ready::Notify, &path, stored.clone()).unwrap();
        let sender = std::os::unix::net::UnixDatagram::unbound().unwrap();
        sender.connect(&path).unwrap();
        let (stream, mut other) = std::os::unix::net::UnixStream::pair().unwrap();
        let send = |text: &[u8]| {
            let descriptors = [stream.as_fd()];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            assert!(control.push(SendAncillaryMessage::ScmRights(&descriptors)));
            sendmsg(&sender, &[IoSlice::new(text)], &mut control, SendFlags::empty()).unwrap();
        };
        send(b"FDSTORE=1\nFDNAME=stream");
        send(b"STATUS=descriptors for nothing");
        sender.send(b"READY=1").unwrap();
        probe.wait().await;
        assert_eq!(stored.numbers().len(), 1);
        // The service's own copy goes with it; the stream lives on.
        drop(stream);
        other.write_all(b"last words").unwrap();
        drop(other);
        let copy = format!("/proc/self/fd/{}", stored.numbers()[0]);
        assert!(std::fs::read_link(copy).unwrap().to_string_lossy().starts_with("socket:"));
        // SAFETY: the store keeps it open meanwhile.
        let kept = unsafe { std::os::fd::BorrowedFd::borrow_raw(stored.numbers()[0]) };
        let mut text = String::new();
        std::os::unix::net::UnixStream::from(kept.try_clone_to_owned().unwrap())
            .read_to_string(&mut text)
            .unwrap();
        assert_eq!(text, "last words");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn tcp_waits_for_the_port() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let probe = Probe::new(Ready::Tcp(port), Path::new("/nonexistent"), Rc::default()).unwrap();
        probe.wait().await;
        drop(listener);
        assert!(tokio::time::timeout(Duration::from_millis(120), probe.wait()).await.is_err());
    }
}

//! Waiting for a service to be ready.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram as StdDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use tokio::io::Interest;
use tokio::net::UnixDatagram;

use super::declaration::{Probe, Ready};
use super::probe::Asked;
use super::store::{NOTIFY, Store, Wish, wish};

/// Pause between two questions; a command costs a process each time.
const AGAIN: Duration = Duration::from_millis(50);
const COMMAND_AGAIN: Duration = Duration::from_millis(500);
/// How long one answer may take.
const LIMIT: Duration = Duration::from_secs(5);

/// A service's readiness, set up before its process starts.
#[derive(Debug)]
pub(super) struct Readiness {
    service: &'static str,
    ready: Ready,
    notify: Option<(UnixDatagram, PathBuf)>,
    store: Store,
}

impl Readiness {
    /// For a service's new process; the notify socket lies at `path`. It is a new one, so that nothing in it is of
    /// the process before, and it is kept: what is sent while no supervisor lives waits in it.
    pub(super) fn fresh(service: &'static str, ready: Ready, path: &Path, store: Store) -> io::Result<Self> {
        let notify = match ready {
            Ready::Notify => {
                if let Some(folder) = path.parent() {
                    std::fs::create_dir_all(folder)?;
                }
                let _ = std::fs::remove_file(path);
                store.forget(service, NOTIFY);
                let socket = UnixDatagram::bind(path)?;
                let copy = socket.into_std()?;
                store.keep(service, NOTIFY, copy.try_clone()?.into());
                Some((UnixDatagram::from_std(copy)?, path.to_owned()))
            }
            Ready::Probe(_) => None,
        };
        Ok(Self { service, ready, notify, store })
    }

    /// For a process that an earlier supervisor started; `None`: its notify socket went with that one.
    pub(super) fn adopted(service: &'static str, ready: Ready, path: &Path, store: Store) -> Option<Self> {
        let notify = match ready {
            Ready::Notify => {
                let socket = StdDatagram::from(store.named(service, NOTIFY)?);
                Some((UnixDatagram::from_std(socket).ok()?, path.to_owned()))
            }
            Ready::Probe(_) => None,
        };
        Some(Self { service, ready, notify, store })
    }

    /// The value of `$NOTIFY_SOCKET`.
    pub(super) fn socket(&self) -> Option<&Path> {
        self.notify.as_ref().map(|(_, path)| path.as_path())
    }

    /// Waits until the service is ready; its notice of something (`X_NOTICE=`) goes to `says`.
    pub(super) async fn wait(&self, asked: &Asked<'_>, says: &impl Fn(&str)) {
        match (&self.notify, self.ready) {
            (Some((socket, _)), _) => while !self.next(socket, says).await {},
            (None, Ready::Probe(probe)) => {
                let pause = if matches!(probe, Probe::Exec(_)) { COMMAND_AGAIN } else { AGAIN };
                while asked.ask(probe, LIMIT).await.is_err() {
                    tokio::time::sleep(pause).await;
                }
            }
            (None, Ready::Notify) => std::future::pending().await,
        }
    }

    /// Takes messages of one that is ready: the sender must not wait for room. Never ends.
    pub(super) async fn drain(&self, says: &impl Fn(&str)) {
        match &self.notify {
            Some((socket, _)) => loop {
                self.next(socket, says).await;
            },
            None => std::future::pending().await,
        }
    }

    /// Takes one message, and does what it says about descriptors; whether it says ready.
    async fn next(&self, socket: &UnixDatagram, says: &impl Fn(&str)) -> bool {
        let Ok((bytes, descriptors)) = socket.async_io(Interest::READABLE, || receive(socket)).await else {
            tokio::time::sleep(AGAIN).await;
            return false;
        };
        let text = String::from_utf8_lossy(&bytes);
        match wish(&text) {
            Some(Wish::Keep(name)) => {
                descriptors.into_iter().for_each(|fd| self.store.keep(self.service, name, fd));
            }
            Some(Wish::Forget(name)) => self.store.forget(self.service, name),
            None => {}
        }
        text.lines().filter_map(|line| line.strip_prefix("X_NOTICE=")).for_each(says);
        text.lines().any(|line| line == "READY=1")
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
    use crate::service::{Reaped, SERVICES};

    async fn wait(readiness: &Readiness) -> Vec<String> {
        let (reaped, journal) = (Reaped::default(), Path::new("/nonexistent"));
        let said = std::cell::RefCell::<Vec<String>>::default();
        let asked = Asked { declaration: &SERVICES[0], group: None, journal, reaped: &reaped };
        readiness.wait(&asked, &|text: &str| said.borrow_mut().push(text.to_owned())).await;
        said.into_inner()
    }

    #[tokio::test(flavor = "current_thread")]
    async fn notify_waits_for_ready() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify/x");
        let probe = Readiness::fresh("x", Ready::Notify, &path, Store::default()).unwrap();
        assert_eq!(probe.socket(), Some(path.as_path()));
        let sender = std::os::unix::net::UnixDatagram::unbound().unwrap();
        sender.send_to(b"STATUS=loading\nNOTREADY=1", &path).unwrap();
        assert!(tokio::time::timeout(Duration::from_millis(50), wait(&probe)).await.is_err());
        sender.send_to(b"READY=1\nSTATUS=serving\nX_NOTICE=one ended", &path).unwrap();
        assert_eq!(wait(&probe).await, ["one ended"]);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_word_waits_for_the_next_supervisor() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify/x");
        let store = Store::default();
        assert!(Readiness::adopted("x", Ready::Notify, &path, store.clone()).is_none());
        drop(Readiness::fresh("x", Ready::Notify, &path, store.clone()).unwrap());
        let sender = std::os::unix::net::UnixDatagram::unbound().unwrap();
        sender.send_to(b"READY=1", &path).unwrap();
        wait(&Readiness::adopted("x", Ready::Notify, &path, store.clone()).unwrap()).await;
        // The word of a process that is gone is not its successor's.
        sender.send_to(b"READY=1", &path).unwrap();
        let probe = Readiness::fresh("x", Ready::Notify, &path, store).unwrap();
        assert!(tokio::time::timeout(Duration::from_millis(50), wait(&probe)).await.is_err());
    }

    #[tokio::test(flavor = "current_thread")]
    async fn descriptors_are_kept_when_asked_for() {
        use std::io::{IoSlice, Read, Write};
        use std::os::fd::AsFd;

        use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify/journald");
        let store = Store::default();
        let probe = Readiness::fresh("journald", Ready::Notify, &path, store.clone()).unwrap();
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
        wait(&probe).await;
        let names: Vec<_> = store.handed("journald").into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["stream"]);
        // The service's own copy goes with it; the stream lives on.
        drop(stream);
        other.write_all(b"last words").unwrap();
        drop(other);
        let kept = store.named("journald", "stream").unwrap();
        let mut text = String::new();
        std::os::unix::net::UnixStream::from(kept).read_to_string(&mut text).unwrap();
        assert_eq!(text, "last words");
        sender.send(b"FDSTOREREMOVE=1\nFDNAME=stream\nREADY=1").unwrap();
        wait(&probe).await;
        assert!(store.handed("journald").is_empty());
    }

    #[tokio::test(flavor = "current_thread")]
    async fn tcp_waits_for_the_port() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let probe = Readiness::fresh(
            "x",
            Ready::Probe(Probe::Tcp(port)),
            Path::new("/nonexistent"),
            Store::default(),
        )
        .unwrap();
        wait(&probe).await;
        drop(listener);
        assert!(tokio::time::timeout(Duration::from_millis(120), wait(&probe)).await.is_err());
    }
}

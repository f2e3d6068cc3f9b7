//! The supervisor's end of the socket to PID 1.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::rc::Rc;

use tokio::io::unix::AsyncFd;
use tokio::sync::watch;

use crate::descriptor::readable;
use crate::link::{self, ToPid1, ToSupervisor};
use crate::power::Ending;
use crate::service::Reaped;

/// The socket.
#[derive(Debug, Clone)]
pub(super) struct Link(Rc<AsyncFd<OwnedFd>>);

impl Link {
    /// Takes the descriptor that PID 1 left; `None` when somebody else started us.
    pub(super) fn take() -> Option<Self> {
        let number: i32 = std::env::var(link::VARIABLE).ok()?.parse().ok()?;
        if number != link::FD {
            return None;
        }
        // SAFETY: PID 1 opened it for us and nothing else here owns it: this runs once, before anything opens files.
        let fd = unsafe { OwnedFd::from_raw_fd(number) };
        // Our children must not keep it.
        // SAFETY: plain call on a descriptor that is ours.
        if unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
            std::mem::forget(fd);
            return None;
        }
        readable(fd).ok().map(|fd| Self(Rc::new(fd)))
    }

    fn post(&self, packet: ToPid1) {
        if let Err(error) = link::post(self.0.get_ref(), &packet.encode()) {
            tracing::error!("pid 1 does not take {packet:?}: {error}");
        }
    }

    pub(super) fn stopping(&self, ending: Ending) {
        self.post(ToPid1::Stopping(ending));
    }

    pub(super) fn end(&self, ending: Ending) {
        self.post(ToPid1::End(ending));
    }

    /// Takes what PID 1 says, as long as it is there.
    pub(super) async fn listen(self, reaped: Reaped, wish: watch::Sender<Option<Ending>>) {
        loop {
            let Ok(mut ready) = self.0.readable().await else { return };
            let packet = match link::take(self.0.get_ref()) {
                Ok(Some(packet)) => packet,
                Ok(None) => return,
                Err(_) => {
                    ready.clear_ready();
                    continue;
                }
            };
            match ToSupervisor::decode(&packet) {
                Some(ToSupervisor::Reaped(report)) => {
                    reaped.report(report.who, report.status);
                    self.post(ToPid1::Ack(report.seq));
                }
                Some(ToSupervisor::Request(ending)) => {
                    wish.send_replace(Some(ending));
                }
                None => tracing::warn!("a packet of pid 1 that is not known here: {packet}"),
            }
        }
    }
}

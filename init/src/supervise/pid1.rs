//! The supervisor's end of the socket to PID 1.

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;

use crate::descriptor::readable;
use crate::link::{self, Packet, ToPid1, ToSupervisor};
use crate::power::Ending;
use crate::service::Reaped;

/// How long PID 1, which never waits for anything, may take to read what fills the socket.
const ROOM_LIMIT: Timespec = Timespec { tv_sec: 2, tv_nsec: 0 };
/// How long an answer may take, and how often it is asked for.
const ANSWER_LIMIT: Duration = Duration::from_secs(1);
const QUESTIONS: u32 = 5;

/// The socket.
#[derive(Debug, Clone)]
pub(super) struct Link {
    socket: Rc<AsyncFd<OwnedFd>>,
    /// What came while an answer was waited for.
    early: Rc<RefCell<Vec<ToSupervisor>>>,
}

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
        readable(fd).ok().map(|fd| Self { socket: Rc::new(fd), early: Rc::default() })
    }

    /// Sends a packet, with a descriptor or without.
    pub(super) fn post(&self, packet: &ToPid1, fd: Option<BorrowedFd>) {
        let socket = self.socket.get_ref();
        let mut sent = link::post(socket, &packet.encode(), fd);
        if sent.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
            let _ = poll(&mut [PollFd::new(socket, PollFlags::OUT)], Some(&ROOM_LIMIT));
            sent = link::post(socket, &packet.encode(), fd);
        }
        if let Err(error) = sent {
            tracing::error!("pid 1 does not take {packet:?}: {error}");
        }
    }

    /// All that PID 1 keeps for us, by name. To be called before anything is stored and before [`Link::listen`].
    pub(super) async fn fetch(&self) -> Vec<(String, OwnedFd)> {
        let mut kept = Vec::new();
        let mut questions = 0;
        while questions < QUESTIONS {
            self.post(&ToPid1::Fetch(kept.len()), None);
            match tokio::time::timeout(ANSWER_LIMIT, self.answer(kept.len())).await {
                Ok(Some(found)) => {
                    kept.push(found);
                    questions = 0;
                }
                Ok(None) => return kept,
                Err(_) => questions += 1,
            }
        }
        tracing::error!(
            "pid 1 does not say what it keeps: asked {QUESTIONS} times for number {}",
            kept.len()
        );
        kept
    }

    /// The answer to the question for a descriptor; what else comes waits for [`Link::listen`].
    async fn answer(&self, wanted: usize) -> Option<(String, OwnedFd)> {
        loop {
            let packet = self.next().await?;
            match (ToSupervisor::decode(&packet.text), packet.fd) {
                (Some(ToSupervisor::Stored(place, name)), Some(fd)) if place == wanted => {
                    return Some((name, fd));
                }
                // To a question that was asked twice.
                (Some(ToSupervisor::Stored(..)), _) => {}
                (Some(ToSupervisor::StoredEnd), _) => return None,
                (Some(other), _) => self.early.borrow_mut().push(other),
                (None, _) => unknown(&packet.text),
            }
        }
    }

    /// The next packet; `None` when PID 1 is gone.
    async fn next(&self) -> Option<Packet> {
        loop {
            let mut ready = self.socket.readable().await.ok()?;
            match link::take(self.socket.get_ref()) {
                Ok(packet) => return packet,
                Err(_) => ready.clear_ready(),
            }
        }
    }

    pub(super) fn stopping(&self, ending: Ending) {
        self.post(&ToPid1::Stopping(ending), None);
    }

    pub(super) fn end(&self, ending: Ending) {
        self.post(&ToPid1::End(ending), None);
    }

    /// Takes what PID 1 says, as long as it is there.
    pub(super) async fn listen(self, reaped: Reaped, wish: watch::Sender<Option<Ending>>) {
        for packet in self.early.take() {
            self.obey(packet, &reaped, &wish);
        }
        while let Some(packet) = self.next().await {
            match ToSupervisor::decode(&packet.text) {
                Some(known) => self.obey(known, &reaped, &wish),
                None => unknown(&packet.text),
            }
        }
    }

    fn obey(&self, packet: ToSupervisor, reaped: &Reaped, wish: &watch::Sender<Option<Ending>>) {
        match packet {
            ToSupervisor::Reaped(report) => {
                reaped.report(report.who, report.status);
                self.post(&ToPid1::Ack(report.seq), None);
            }
            ToSupervisor::Request(ending) => {
                wish.send_replace(Some(ending));
            }
            // Late answers to questions that were asked twice.
            ToSupervisor::Stored(..) | ToSupervisor::StoredEnd => {}
        }
    }
}

fn unknown(text: &str) {
    tracing::warn!("a packet of pid 1 that is not known here: {text}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::Report;
    use crate::process::Identity;
    use crate::shelf::Shelf;

    /// PID 1's side, as its keeper answers.
    fn serve(end: &OwnedFd, shelf: &mut Shelf) -> Vec<String> {
        let mut said = Vec::new();
        while let Ok(Some(packet)) = link::take(end) {
            said.push(packet.text.clone());
            match (ToPid1::decode(&packet.text), packet.fd) {
                (Some(ToPid1::Store(name)), Some(fd)) => assert!(shelf.put(&name, fd)),
                (Some(ToPid1::Fetch(place)), _) => match shelf.at(place) {
                    Some((name, fd)) => {
                        let answer = ToSupervisor::Stored(place, name.to_owned()).encode();
                        link::post(end, &answer, Some(fd)).unwrap();
                    }
                    None => link::post(end, &ToSupervisor::StoredEnd.encode(), None).unwrap(),
                },
                _ => {}
            }
        }
        said
    }

    #[tokio::test(flavor = "current_thread")]
    async fn everything_is_fetched_and_what_comes_between_is_not_lost() {
        let (mine, theirs) = link::pair().unwrap();
        let link = Link { socket: Rc::new(readable(theirs).unwrap()), early: Rc::default() };
        let mut shelf = Shelf::default();
        let one = std::fs::File::open("/dev/null").unwrap();
        for number in 0..300 {
            link.post(&ToPid1::Store(format!("log/{number}")), Some(std::os::fd::AsFd::as_fd(&one)));
        }
        assert_eq!(serve(&mine, &mut shelf).len(), 300);
        let report = Report { seq: 1, who: Identity { pid: 7, started: 70 }, status: 256 };
        link::post(&mine, &ToSupervisor::Reaped(report).encode(), None).unwrap();
        let answering = async {
            loop {
                serve(&mine, &mut shelf);
                tokio::task::yield_now().await;
            }
        };
        let kept = tokio::select! {
            kept = link.fetch() => kept,
            () = answering => unreachable!(),
        };
        let names: Vec<_> = kept.into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, (0..300).map(|number| format!("log/{number}")).collect::<Vec<_>>());
        assert_eq!(link.early.take(), [ToSupervisor::Reaped(report)]);
    }
}

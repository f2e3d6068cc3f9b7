//! Descriptors that a service wants back after its next start (`FDSTORE=1`, sd_notify(3)): journald's open streams.
//! They live as long as this process; journald alone may crash without a line lost.

use std::cell::RefCell;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// More streams than services write; a service that stores without end must not use up our descriptors.
const MOST: usize = 256;

/// What a service gave.
#[derive(Debug, Default)]
pub(crate) struct Store(RefCell<Vec<OwnedFd>>);

impl Store {
    /// Takes descriptors; too many are closed. Those whose other side is gone go too: the service, which lives as it
    /// has just spoken, reads what is left in them from its own copy.
    pub(super) fn keep(&self, fresh: impl IntoIterator<Item = OwnedFd>) {
        let mut kept = self.0.borrow_mut();
        kept.retain(|fd| !is_hung_up(fd));
        let room = MOST.saturating_sub(kept.len());
        kept.extend(fresh.into_iter().take(room));
    }

    /// Their numbers, for the service's next process.
    pub(super) fn numbers(&self) -> Vec<RawFd> {
        self.0.borrow().iter().map(AsRawFd::as_raw_fd).collect()
    }
}

fn is_hung_up(fd: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(fd, PollFlags::empty())];
    let asked = poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
    asked.is_ok() && fds.iter().any(|fd| fd.revents().intersects(PollFlags::HUP | PollFlags::ERR))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn keeps_what_lives_and_no_more_than_it_may() {
        let store = Store::default();
        let (one, end) = UnixStream::pair().unwrap();
        store.keep([OwnedFd::from(one)]);
        assert_eq!(store.numbers().len(), 1);
        drop(end);
        let (two, _end) = UnixStream::pair().unwrap();
        let number = two.as_raw_fd();
        store.keep([OwnedFd::from(two.try_clone().unwrap())]);
        assert_eq!(store.numbers().len(), 1);
        assert_ne!(store.numbers(), [number]);
        store.keep((0..2 * MOST).map(|_| OwnedFd::from(two.try_clone().unwrap())));
        assert_eq!(store.numbers().len(), MOST);
    }
}

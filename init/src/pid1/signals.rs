//! The signals of PID 1, as something to read.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Signals that PID 1 reads; all others are not for it.
const SIGNALS: [i32; 7] =
    [libc::SIGCHLD, libc::SIGTERM, libc::SIGINT, libc::SIGUSR1, libc::SIGUSR2, libc::SIGPWR, libc::SIGHUP];

/// Blocks [`SIGNALS`] and makes them readable. Done before anything starts: a signal without a handler is lost here.
pub(super) fn block() -> Option<OwnedFd> {
    // SAFETY: an empty set is filled by the C library; the descriptor is fresh.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in SIGNALS {
            libc::sigaddset(&raw mut set, signal);
        }
        libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
        let raw = libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
        (raw >= 0).then(|| OwnedFd::from_raw_fd(raw))
    }
}

/// The next one that waits.
pub(super) fn next(fd: &OwnedFd) -> Option<i32> {
    // SAFETY: all zeroes is a valid record, and read fills no more than its size.
    unsafe {
        let mut info: libc::signalfd_siginfo = std::mem::zeroed();
        let size = size_of_val(&info);
        let got = libc::read(fd.as_raw_fd(), (&raw mut info).cast(), size);
        (got == size as isize).then_some(info.ssi_signo as i32)
    }
}

//! Descriptors that whoever started us left: the protocol of sd_listen_fds_with_names(3).

use std::env;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use nix::libc;

/// The first number.
const FIRST: RawFd = 3;

/// Takes them, by name. To be called once, before anything else opens files.
pub fn take() -> Vec<(String, OwnedFd)> {
    let said = |name| env::var(name).unwrap_or_default();
    if said("LISTEN_PID") != std::process::id().to_string() {
        // Another process's, whose environment came down to us.
        return Vec::new();
    }
    let names = said("LISTEN_FDNAMES");
    let mut names = names.split(':');
    let count: RawFd = said("LISTEN_FDS").parse().unwrap_or(0);
    let numbers = FIRST..FIRST.saturating_add(count);
    let named = numbers.map(|number| (names.next().unwrap_or("unknown").to_owned(), number));
    named.filter_map(|(name, number)| Some((name, own(number)?))).collect()
}

/// Takes one that is open, and keeps it from our children.
fn own(number: RawFd) -> Option<OwnedFd> {
    // SAFETY: a plain call, which fails on what is not open.
    if unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
        tracing::warn!("descriptor {number} was promised and is not open");
        return None;
    }
    // SAFETY: it is open, and ours alone by the protocol.
    Some(unsafe { OwnedFd::from_raw_fd(number) })
}

//! Descriptors in the event loop.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Registers something that owns its descriptor, for reading.
pub(crate) fn readable<T: AsRawFd + Into<OwnedFd>>(inner: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: a type that becomes an OwnedFd owns a valid descriptor, and AsyncFd keeps it from being replaced.
    unsafe { AsyncFd::register_with_interest(inner, Interest::READABLE) }.map_err(io::Error::from)
}

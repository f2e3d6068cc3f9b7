//! Telling the supervisor how it goes: the protocol of sd_notify(3).

use std::env;
use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg};

/// Sends a state such as `READY=1`. Without `$NOTIFY_SOCKET` nobody waits for it; a lost message is only logged,
/// because the service itself is well.
pub fn notify(state: &str) {
    let Some(name) = env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else { return };
    let name = name.to_string_lossy();
    let address = match name.strip_prefix('@') {
        Some(hidden) => SocketAddr::from_abstract_name(hidden),
        None => SocketAddr::from_pathname(name.as_ref()),
    };
    let sent = address.and_then(|address| {
        let socket = UnixDatagram::unbound()?;
        // A supervisor that does not read must not stop us.
        socket.set_nonblocking(true)?;
        socket.send_to_addr(state.as_bytes(), &address)
    });
    if let Err(error) = sent {
        tracing::warn!("notify {name} of {state}: {error}");
    }
}

/// The same with a descriptor: `FDSTORE=1` asks for it to be kept for the next start, under the name in `FDNAME=`.
pub fn notify_with(state: &str, descriptor: BorrowedFd<'_>) {
    let Some(name) = env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else { return };
    let name = name.to_string_lossy();
    let send = || -> io::Result<()> {
        let address = match name.strip_prefix('@') {
            Some(hidden) => UnixAddr::new_abstract(hidden.as_bytes())?,
            None => UnixAddr::new(name.as_ref())?,
        };
        let socket = UnixDatagram::unbound()?;
        let (bytes, descriptors) = ([IoSlice::new(state.as_bytes())], [descriptor.as_raw_fd()]);
        let control = [ControlMessage::ScmRights(&descriptors)];
        sendmsg(socket.as_raw_fd(), &bytes, &control, MsgFlags::empty(), Some(&address))?;
        Ok(())
    };
    if let Err(error) = send() {
        tracing::warn!("notify {name} of {state}: {error}");
    }
}

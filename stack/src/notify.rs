//! Telling the supervisor how it goes: the protocol of sd_notify(3).

use std::env;
use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg};

/// How long a supervisor may take to make room for a message. One that hangs must not stop us.
const PATIENCE: Duration = Duration::from_secs(1);

/// Sends a state such as `READY=1`. Without `$NOTIFY_SOCKET` nobody waits for it; a lost message is only logged,
/// because the service itself is well.
pub fn notify(state: &str) {
    tell(state, None);
}

/// The same with a descriptor: `FDSTORE=1` asks for it to be kept for the next start, under the name in `FDNAME=`.
pub fn notify_with(state: &str, descriptor: BorrowedFd<'_>) {
    tell(state, Some(descriptor));
}

fn tell(state: &str, descriptor: Option<BorrowedFd<'_>>) {
    let Some(name) = env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else { return };
    let name = name.to_string_lossy();
    if let Err(error) = send(&name, state, descriptor) {
        tracing::warn!("notify {name} of {state}: {error}");
    }
}

fn send(name: &str, state: &str, descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let address = match name.strip_prefix('@') {
        Some(hidden) => UnixAddr::new_abstract(hidden.as_bytes())?,
        None => UnixAddr::new(name)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(PATIENCE))?;
    let descriptors: Vec<_> = descriptor.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&descriptors)];
    let control = if descriptors.is_empty() { &[][..] } else { &rights[..] };
    sendmsg(
        socket.as_raw_fd(),
        &[IoSlice::new(state.as_bytes())],
        control,
        MsgFlags::empty(),
        Some(&address),
    )?;
    Ok(())
}

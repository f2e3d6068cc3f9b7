//! The kernel's device events, and the devices that were there before we listened.
//!
//! Open the [`Listener`] first, then walk: a device that appears in between is then seen twice, never missed
//! (Documentation/ABI/testing/sysfs-uevent; skarnet's mdevd met the other order's race).

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::error::{Error, Result};

/// Receive buffer: a hub full of devices must not overflow it while modules load.
static BUFFER_BYTES: libc::c_int = 2 << 20;

/// One event.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Uevent {
    /// `add`, `remove`, `change`, `bind`…
    pub action: String,
    /// `block`, `net`, `input`…
    pub subsystem: String,
    /// What modules.alias knows the device by.
    pub modalias: Option<String>,
}

impl Uevent {
    /// Reads the kernel's format: `ACTION@PATH`, then `KEY=value`, each ended by NUL. udev's own ("libudev") is none.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let mut parts = bytes.split(|byte| *byte == 0).filter_map(|part| std::str::from_utf8(part).ok());
        let (action, _) = parts.next()?.split_once('@')?;
        let mut event = Self { action: action.to_owned(), ..Self::default() };
        for (key, value) in parts.filter_map(|part| part.split_once('=')) {
            match key {
                "SUBSYSTEM" => event.subsystem = value.to_owned(),
                "MODALIAS" => event.modalias = Some(value.to_owned()),
                _ => {}
            }
        }
        Some(event)
    }
}

/// A socket on which the kernel tells of devices.
#[derive(Debug)]
pub(crate) struct Listener(OwnedFd);

impl Listener {
    /// Joins the kernel's group.
    pub(crate) fn open() -> Result<Self> {
        let failed = |act| move |source| Error::Socket { act, name: "kobject uevents".to_owned(), source };
        let flags = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: plain call; the result is checked.
        let raw = unsafe { libc::socket(libc::AF_NETLINK, flags, libc::NETLINK_KOBJECT_UEVENT) };
        if raw < 0 {
            return Err(failed("open")(io::Error::last_os_error()));
        }
        // SAFETY: a fresh descriptor that nobody else owns.
        let fd = unsafe { OwnedFd::from_raw_fd(raw) };
        // SAFETY: the pointer is to a live integer of the given size. Failure only leaves the default size.
        unsafe {
            let size = (&raw const BUFFER_BYTES).cast();
            libc::setsockopt(raw, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, size, 4);
        }
        // SAFETY: all zeroes is a valid sockaddr_nl.
        let mut address: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
        address.nl_family = libc::AF_NETLINK as u16;
        address.nl_groups = 1;
        let length = size_of_val(&address) as libc::socklen_t;
        // SAFETY: address and length belong together.
        if unsafe { libc::bind(raw, (&raw const address).cast(), length) } < 0 {
            return Err(failed("bind")(io::Error::last_os_error()));
        }
        Ok(Self(fd))
    }

    /// Waits up to `limit` for events and gives all that are there. The second value says that some were lost:
    /// what is wanted must then be looked up.
    pub(crate) fn wait(&self, limit: Duration) -> (Vec<Uevent>, bool) {
        let limit = Timespec { tv_sec: limit.as_secs() as i64, tv_nsec: limit.subsec_nanos().into() };
        let mut fds = [PollFd::new(&self.0, PollFlags::IN)];
        let _ = poll(&mut fds, Some(&limit));
        let (mut events, mut lost) = (Vec::new(), false);
        loop {
            let mut buffer = [0_u8; 8192];
            // SAFETY: all zeroes is a valid sockaddr_nl.
            let mut sender: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
            let mut length = size_of_val(&sender) as libc::socklen_t;
            // SAFETY: buffer and sender are live and of the sizes given.
            let got = unsafe {
                let (data, from) = (buffer.as_mut_ptr().cast(), (&raw mut sender).cast());
                libc::recvfrom(self.0.as_raw_fd(), data, buffer.len(), 0, from, &raw mut length)
            };
            if got < 0 {
                match io::Error::last_os_error().raw_os_error() {
                    Some(libc::ENOBUFS) => lost = true,
                    Some(libc::EINTR) => {}
                    _ => return (events, lost),
                }
                continue;
            }
            // Port 0 is the kernel; any process may send to the group.
            if sender.nl_pid == 0 {
                events.extend(buffer.get(..got as usize).and_then(Uevent::parse));
            }
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// What modules.alias may know of the devices that are there: `MODALIAS` of every `uevent` file below
/// `/sys/devices`. (Not the `modalias` files: MDIO buses have none.)
pub(crate) fn modaliases(devices: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    walk(devices, &mut found);
    found
}

fn walk(folder: &Path, found: &mut BTreeSet<String>) {
    if let Ok(text) = fs::read_to_string(folder.join("uevent")) {
        found.extend(text.lines().filter_map(|line| line.strip_prefix("MODALIAS=")).map(str::to_owned));
    }
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        // Links lead out of the tree and in circles.
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            walk(&entry.path(), found);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_the_kernels_format() {
        let bytes = b"add@/devices/pci0000:00/0000:00:02.0/virtio0\0ACTION=add\0SUBSYSTEM=virtio\0MODALIAS=virtio:d00000002v00001AF4\0SEQNUM=1\0";
        let event = Uevent::parse(bytes).unwrap();
        assert_eq!((event.action.as_str(), event.subsystem.as_str()), ("add", "virtio"));
        assert_eq!(event.modalias.as_deref(), Some("virtio:d00000002v00001AF4"));
        assert_eq!(Uevent::parse(b"libudev\0\xfe\xed\xca\xfe"), None);
        assert_eq!(Uevent::parse(b""), None);
    }

    #[test]
    fn walks_without_following_links() {
        let root = tempfile::tempdir().unwrap();
        let device = root.path().join("pci0/virtio0");
        fs::create_dir_all(&device).unwrap();
        fs::write(device.join("uevent"), "DRIVER=x\nMODALIAS=virtio:d1\n").unwrap();
        std::os::unix::fs::symlink(root.path(), device.join("subsystem")).unwrap();
        assert_eq!(modaliases(root.path()).into_iter().collect::<Vec<_>>(), ["virtio:d1"]);
    }
}

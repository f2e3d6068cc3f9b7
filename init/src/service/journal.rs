//! journald's sockets, made before journald is: nobody waits for it, nothing is lost while it starts or restarts.
//!
//! journald takes them by sd_listen_fds(3), as it does from systemd, and tells them apart by kind and path.

use std::fs::{self, Permissions};
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::net::sockopt;

use crate::error::{Error, Result};

/// As systemd's own units have it: a burst of lines must not be lost.
const BUFFER_BYTES: usize = 8 << 20;

/// The sockets. They stay open here, so that a journald that died is missed by nobody until it is back.
#[derive(Debug)]
pub(crate) struct JournalSockets([OwnedFd; 3]);

impl JournalSockets {
    /// Binds `socket`, `stdout` and `dev-log` in a folder.
    pub(crate) fn bind(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder).map_err(Error::write(folder))?;
        let fresh = |name: &str| {
            let path = folder.join(name);
            let _ = fs::remove_file(&path);
            path
        };
        let failed = |path: &Path| {
            let name = path.display().to_string();
            move |source| Error::Socket { act: "bind", name, source }
        };
        let datagram = |name: &str| {
            let path = fresh(name);
            UnixDatagram::bind(&path).map(OwnedFd::from).map_err(failed(&path)).map(|fd| (fd, path))
        };
        let native = datagram("socket")?;
        let syslog = datagram("dev-log")?;
        let path = fresh("stdout");
        let stdout = UnixListener::bind(&path).map(OwnedFd::from).map_err(failed(&path))?;
        for (fd, path) in [&native, &syslog, &(stdout.try_clone().map_err(failed(&path))?, path)] {
            fs::set_permissions(path, Permissions::from_mode(0o666)).map_err(Error::write(path))?;
            // Lines that come before journald is there must carry their sender too.
            let _ = sockopt::set_socket_passcred(fd, true);
            let _ = sockopt::set_socket_recv_buffer_size_force(fd, BUFFER_BYTES);
        }
        Ok(Self([native.0, stdout, syslog.0]))
    }

    /// Their numbers, for the process that becomes journald.
    pub(crate) fn numbers(&self) -> Vec<RawFd> {
        self.0.iter().map(AsRawFd::as_raw_fd).collect()
    }
}

/// A stream for a service's output: what it writes are lines of the journal, under its name.
pub(crate) fn stream(folder: &Path, name: &str) -> Option<OwnedFd> {
    let path: PathBuf = folder.join("stdout");
    let mut stream = UnixStream::connect(path).ok()?;
    // Identifier, unit, priority, level prefixes understood, no forwarding to syslog, kmsg or console
    // (systemd's stdout protocol, src/journal/journald-stream.c).
    stream.write_all(format!("{name}\n\n6\n1\n0\n0\n0\n").as_bytes()).ok()?;
    let _ = stream.shutdown(std::net::Shutdown::Read);
    Some(stream.into())
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn a_stream_before_journald_waits_with_its_lines() {
        let folder = tempfile::tempdir().unwrap();
        let sockets = JournalSockets::bind(folder.path()).unwrap();
        assert_eq!(sockets.numbers().len(), 3);
        let mut out = fs::File::from(stream(folder.path(), "nats").unwrap());
        out.write_all(b"hello\n").unwrap();
        drop(out);
        let listener = UnixListener::from(sockets.0[1].try_clone().unwrap());
        let mut text = String::new();
        listener.accept().unwrap().0.read_to_string(&mut text).unwrap();
        assert_eq!(text, "nats\n\n6\n1\n0\n0\n0\nhello\n");
        // A second supervisor binds anew over what is there.
        JournalSockets::bind(folder.path()).unwrap();
    }

    #[test]
    fn no_journald_no_stream() {
        assert!(stream(Path::new("/nonexistent"), "x").is_none());
    }
}

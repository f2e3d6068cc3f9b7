//! Listening sockets, bound before the service that serves them is there and kept when it goes: who connects waits
//! for it and is never refused. The service takes them by sd_listen_fds(3).

use std::fs::{self, Permissions};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::Path;

use rustix::net::{listen, sockopt};

use crate::error::{Error, Result};

/// As systemd's own units have it: a burst of lines must not be lost.
const BUFFER_BYTES: usize = 8 << 20;
/// Connections that wait while nobody accepts; the kernel cuts it to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// A listening socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Socket {
    /// Its name for the service: `LISTEN_FDNAMES`.
    pub name: &'static str,
    /// Where it is bound.
    pub at: At,
}

/// Where a socket is bound. Unix sockets are everybody's to write to, and tell who wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum At {
    /// TCP at this address.
    Tcp(SocketAddr),
    /// A unix socket for connections.
    Stream(&'static str),
    /// A unix socket for datagrams.
    Datagram(&'static str),
}

impl Socket {
    /// Binds it. What lies at a unix socket's path is another one's that is dead, and goes.
    pub(crate) fn bind(&self) -> Result<OwnedFd> {
        match self.at {
            At::Tcp(address) => {
                let failed = |source| Error::Socket { act: "bind", name: address.to_string(), source };
                let fd = OwnedFd::from(TcpListener::bind(address).map_err(failed)?);
                listen(&fd, BACKLOG).map_err(|errno| failed(errno.into()))?;
                Ok(fd)
            }
            At::Stream(path) => unix(Path::new(path), |path| UnixListener::bind(path).map(OwnedFd::from)),
            At::Datagram(path) => unix(Path::new(path), |path| UnixDatagram::bind(path).map(OwnedFd::from)),
        }
    }
}

fn unix(path: &Path, bind: impl Fn(&Path) -> std::io::Result<OwnedFd>) -> Result<OwnedFd> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(Error::write(folder))?;
    }
    let _ = fs::remove_file(path);
    let name = path.display().to_string();
    let fd = bind(path).map_err(|source| Error::Socket { act: "bind", name, source })?;
    fs::set_permissions(path, Permissions::from_mode(0o666)).map_err(Error::write(path))?;
    // Lines that come before journald is there must carry their sender too.
    let _ = sockopt::set_socket_passcred(fd.as_fd(), true);
    let _ = sockopt::set_socket_recv_buffer_size_force(fd.as_fd(), BUFFER_BYTES);
    Ok(fd)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;

    use super::*;

    #[test]
    fn who_connects_early_waits() {
        let socket = Socket { name: "http", at: At::Tcp("127.0.0.1:0".parse().unwrap()) };
        let fd = socket.bind().unwrap();
        let listener = TcpListener::from(fd);
        let address = listener.local_addr().unwrap();
        // More than a listener of the usual size would take.
        let waiting: Vec<_> = (0..200).map(|_| TcpStream::connect(address).unwrap()).collect();
        (&waiting[0]).write_all(b"early").unwrap();
        let mut text = [0; 5];
        listener.accept().unwrap().0.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"early");
        let taken = Socket { name: "http", at: At::Tcp(address) };
        let error = taken.bind().unwrap_err().to_string();
        assert!(error.starts_with(&format!("bind {address}: ")), "{error}");
    }

    #[test]
    fn a_unix_socket_takes_the_place_of_a_dead_one() {
        let folder = tempfile::tempdir().unwrap();
        let path: &'static str = folder.path().join("x/socket").display().to_string().leak();
        for _ in 0..2 {
            let fd = Socket { name: "native", at: At::Datagram(path) }.bind().unwrap();
            assert!(sockopt::socket_passcred(&fd).unwrap());
            assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o666);
        }
        let listener = UnixListener::from(Socket { name: "stdout", at: At::Stream(path) }.bind().unwrap());
        std::os::unix::net::UnixStream::connect(path).unwrap();
        listener.accept().unwrap();
    }
}

//! The TLS port's socket. Where it listens is the configuration's to say, so the gateway binds it itself and leaves it
//! with the supervisor: the next gateway finds it open, and nobody is refused meanwhile.

use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};

use tokio::net::TcpListener;

use super::super::listen::listen;
use crate::notify::{notify, notify_with};

/// The socket's name among those that are handed over.
pub const SOCKET: &str = "https";

/// Where TLS is listened for.
pub struct Port {
    address: SocketAddr,
    /// An earlier gateway's socket.
    handed: Option<TcpListener>,
}

impl Port {
    /// Takes the earlier gateway's socket, if it is of the same address. Another one is closed, here and where it is
    /// kept: who connects to it would wait for ever.
    pub fn new(address: SocketAddr, handed: Option<OwnedFd>) -> Self {
        let taken = handed.and_then(|socket| super::super::taken(socket).ok());
        let fits = |listener: &TcpListener| listener.local_addr().is_ok_and(|found| found == address);
        let handed = taken.filter(fits);
        if handed.is_none() {
            forget();
        }
        Self { address, handed }
    }

    /// Binds it, as soon as that is possible.
    pub async fn open(self) -> TcpListener {
        if let Some(listener) = self.handed {
            return listener;
        }
        let listener = listen(self.address, "no TLS").await;
        notify_with(&format!("FDSTORE=1\nFDNAME={SOCKET}"), listener.as_fd());
        listener
    }
}

/// Lets go of what an earlier gateway has left.
pub fn forget() {
    notify(&format!("FDSTOREREMOVE=1\nFDNAME={SOCKET}"));
}

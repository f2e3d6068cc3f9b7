//! One FIFO.

use std::cell::Cell;
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::rc::Rc;

use tokio::net::unix::pipe::{OpenOptions, Receiver};
use tokio::sync::Notify;

use super::entry::Source;
use super::lines::Lines;
use super::queue::Queue;
use super::remark;
use crate::error::{Error, Result};

/// Read at once: the whole of a FIFO, which holds 64 KiB unless told otherwise (pipe(7)).
const CHUNK: usize = 64 << 10;

/// Opens a FIFO without waiting for anybody. Opened for writing too it never ends: its function may be restarted, and
/// while somebody holds it no writer gets SIGPIPE. (What is no FIFO is refused by tokio.)
pub fn open(path: &Path) -> Result<Receiver> {
    OpenOptions::new()
        .read_write(true)
        .open_receiver(path)
        .map_err(|source| Error::Read { path: path.to_owned(), source })
}

/// Goes on with one that was opened before.
pub fn reopen(fd: OwnedFd) -> Result<Receiver> {
    Receiver::from_owned_fd(fd).map_err(|source| Error::Read { path: "a kept fifo".into(), source })
}

/// How a reader is told to end.
#[derive(Default)]
pub struct End {
    told: Notify,
    at_once: Cell<bool>,
}

impl End {
    /// The FIFO's name is gone: what is in it is read out.
    pub fn when_empty(&self) {
        self.told.notify_one();
    }

    /// The service ends: what is in the FIFO is left to its next life.
    pub fn at_once(&self) {
        self.at_once.set(true);
        self.told.notify_one();
    }
}

/// Reads until it is told to end; whether there is nothing more to come. A line that has not ended by then is passed
/// on as it is.
pub async fn run(fifo: Receiver, source: Source, queue: Rc<Queue>, end: Rc<End>) -> bool {
    let mut buffer = vec![0; CHUNK];
    let mut lines = Lines::default();
    let give = |line: &[u8], continued: bool| {
        let (own, remark) = remark::split(line);
        if let Some(own) = own {
            queue.push(&source, source.entry(own, continued));
        }
        if let Some(remark) = remark {
            queue.push(&source, source.remark(remark));
        }
    };
    let mut ending = false;
    loop {
        if !ending {
            let readable = tokio::select! {
                readable = fifo.readable() => readable,
                () = end.told.notified() => {
                    ending = true;
                    continue;
                }
            };
            if let Err(error) = readable {
                tracing::error!("output of {}: {error}", source.identifier);
                break;
            }
        }
        if end.at_once.get() {
            break;
        }
        let read = match ending {
            // tokio believes a pipe to be empty until it has heard of it, which may be later than we are told to end.
            true => nix::unistd::read(&fifo, &mut buffer).map_err(std::io::Error::from),
            false => fifo.try_read(&mut buffer),
        };
        match read {
            Ok(0) => break,
            Ok(n) => lines.push(buffer.get(..n).unwrap_or_default(), give),
            Err(error) if error.kind() == ErrorKind::WouldBlock && ending => break,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(error) => {
                tracing::error!("output of {}: {error}", source.identifier);
                break;
            }
        }
        // A function that never stops writing must not be the only one read.
        tokio::task::yield_now().await;
    }
    lines.finish(give);
    !end.at_once.get()
}

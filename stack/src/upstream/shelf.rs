//! The connections that rest between two calls.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use super::line::Line;
use crate::lanes::Lanes;

/// Connections to an instance that are kept for the next call, on all lanes together.
const IDLE_CONNECTIONS: usize = 256;

/// How long one is kept: shorter than servers in functions keep theirs, so that no call goes into one that is about to
/// be closed from the other side.
const IDLE_TIME: Duration = Duration::from_secs(4);

/// Those that one thread has.
#[derive(Default)]
pub struct Shelf {
    lines: Mutex<HashMap<SocketAddr, Vec<Resting>>>,
    filled: Arc<Notify>,
}

struct Resting {
    line: Box<Line>,
    since: Instant,
}

impl Shelf {
    /// An empty one. What rests for too long is closed by a task of its own, which ends with it.
    pub fn new() -> Arc<Self> {
        let shelf = Arc::new(Self::default());
        tokio::spawn(clear(Arc::downgrade(&shelf), shelf.filled.clone()));
        shelf
    }

    fn lines(&self) -> MutexGuard<'_, HashMap<SocketAddr, Vec<Resting>>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The one that was used last: it is the least likely to have been closed.
    pub fn take(&self, address: SocketAddr) -> Option<Box<Line>> {
        loop {
            let Resting { mut line, since } = self.lines().get_mut(&address)?.pop()?;
            if since.elapsed() < IDLE_TIME && line.is_ready() {
                return Some(line);
            }
        }
    }

    /// Keeps one for the next call, where there are not too many.
    pub fn put(&self, address: SocketAddr, line: Box<Line>) {
        let mut all = self.lines();
        if all.is_empty() {
            self.filled.notify_one();
        }
        let lines = all.entry(address).or_default();
        if lines.len() < IDLE_CONNECTIONS / Lanes::number() {
            lines.push(Resting { line, since: Instant::now() });
        }
    }
}

#[cfg(test)]
impl Shelf {
    /// How many rest.
    pub fn len(&self) -> usize {
        self.lines().values().map(Vec::len).sum()
    }
}

impl Drop for Shelf {
    fn drop(&mut self) {
        // Who clears it ends then.
        self.filled.notify_one();
    }
}

/// Closes what has rested for too long.
async fn clear(shelf: Weak<Shelf>, filled: Arc<Notify>) {
    loop {
        filled.notified().await;
        loop {
            sleep(IDLE_TIME / 2).await;
            let Some(shelf) = shelf.upgrade() else { return };
            let mut all = shelf.lines();
            all.retain(|_, lines| {
                lines.retain(|resting| resting.since.elapsed() < IDLE_TIME);
                !lines.is_empty()
            });
            if all.is_empty() {
                break;
            }
        }
    }
}

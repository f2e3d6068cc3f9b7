//! The way into an instance, and the calls that are behind it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::time::Duration;

use hyper::header::HeaderValue;
use tokio::sync::Notify;

/// Where an instance answers, and how many calls it has.
#[derive(Debug)]
pub struct Endpoint {
    /// Its address.
    pub address: SocketAddr,
    /// The same as calls have it in their `Host`.
    pub host: HeaderValue,
    calls: AtomicUsize,
    idle: Notify,
    closed: AtomicBool,
    /// Bits of why nobody is let in for a while.
    silence: AtomicU8,
}

/// Why nobody is let into an instance for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Silence {
    /// It takes no connections.
    Deaf = 1,
    /// It says that it is not ready.
    Unready = 2,
}

/// A call that an instance has; dropped when it ends.
#[derive(Debug)]
pub struct Running(Arc<Endpoint>);

impl Running {
    /// Where the call goes.
    pub fn address(&self) -> SocketAddr {
        self.0.address
    }

    /// The same with what else is known about it.
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.0
    }
}

impl Endpoint {
    /// Without calls.
    pub fn new(address: SocketAddr) -> Self {
        // An address has no letter that a header cannot have.
        let host = HeaderValue::try_from(address.to_string()).unwrap_or(HeaderValue::from_static(""));
        Self {
            address,
            host,
            calls: AtomicUsize::new(0),
            idle: Notify::new(),
            closed: AtomicBool::new(false),
            silence: AtomicU8::new(0),
        }
    }

    /// Nobody will be let in any more.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    /// Whether that is so.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Nobody is let in until the reason is gone. Whether it is a new one.
    pub fn silence(&self, reason: Silence) -> bool {
        self.silence.fetch_or(reason as u8, Ordering::AcqRel) & reason as u8 == 0
    }

    /// A reason is gone. Whether that was the last.
    pub fn speak(&self, reason: Silence) -> bool {
        let before = self.silence.fetch_and(!(reason as u8), Ordering::AcqRel);
        before & !(reason as u8) == 0
    }

    /// Whatever the reasons were, they are gone.
    pub fn speak_freely(&self) {
        self.silence.store(0, Ordering::Release);
    }

    /// How many calls it has.
    pub fn calls(&self) -> usize {
        self.calls.load(Ordering::Acquire)
    }

    /// Counts a call in.
    pub fn enter(self: &Arc<Self>) -> Running {
        self.calls.fetch_add(1, Ordering::AcqRel);
        Running(self.clone())
    }

    /// Waits until no call is left, at most so long.
    pub async fn drained(&self, patience: Duration) {
        let _ = tokio::time::timeout(patience, self.idle()).await;
    }

    /// Waits until no call is left.
    pub async fn idle(&self) {
        loop {
            let notified = self.idle.notified();
            if self.calls() == 0 {
                return;
            }
            notified.await;
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.0.calls.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.idle.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_endpoint_is_drained_when_its_last_call_ends() {
        let endpoint = Arc::new(Endpoint::new(([10, 62, 0, 2], 8080).into()));
        endpoint.drained(Duration::from_secs(5)).await;
        let (one, two) = (endpoint.enter(), endpoint.enter());
        let waiting = tokio::spawn({
            let endpoint = endpoint.clone();
            async move { endpoint.drained(Duration::from_secs(60)).await }
        });
        drop(one);
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(two);
        waiting.await.unwrap();
    }
}

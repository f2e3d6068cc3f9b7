//! A call's body, which can be offered to more than one instance as long as none has read of it.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};

/// Where a call's body lies until an instance begins to read it. What was lent and not read comes back.
#[derive(Clone)]
pub struct Desk(Arc<Mutex<Option<Incoming>>>);

impl Desk {
    /// With a body.
    pub fn new(body: Incoming) -> Self {
        Self(Arc::new(Mutex::new(Some(body))))
    }

    fn place(&self) -> MutexGuard<'_, Option<Incoming>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it is there.
    pub fn has(&self) -> bool {
        self.place().is_some()
    }

    /// Gives it out; nothing where that has been done, and it has not come back.
    pub fn lend(&self) -> Option<Lent> {
        let body = self.place().take()?;
        Some(Lent { body: Some(body), desk: Some(self.clone()), here: Arc::new(()) })
    }
}

/// A body that was given out.
pub struct Lent {
    /// There until it is dropped.
    body: Option<Incoming>,
    /// There until it is read.
    desk: Option<Desk>,
    here: Arc<()>,
}

impl Lent {
    /// What tells whether it is still there: somebody may read on.
    pub fn watch(&self) -> Weak<()> {
        Arc::downgrade(&self.here)
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(desk) = self.desk.take() {
            *desk.place() = self.body.take();
        }
    }
}

impl Body for Lent {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        self.desk = None;
        match &mut self.body {
            Some(body) => Pin::new(body).poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map(Body::size_hint).unwrap_or_default()
    }
}

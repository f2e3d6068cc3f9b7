//! Callers that stop in the middle: what they hold of the watchdog is limited in time.
//!
//! Only silence counts. A slow caller that goes on is no fault, whatever the size of what it sends or takes.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep, sleep, sleep_until};

use crate::body::Problem;

/// A timer that runs while somebody is waited for.
#[derive(Default)]
pub struct Timer(Option<Pin<Box<Sleep>>>);

impl Timer {
    /// Whether the time is over for what gave this result.
    pub fn is_over<T>(&mut self, result: &Poll<T>, limit: Duration, cx: &mut Context<'_>) -> bool {
        match result {
            Poll::Ready(_) => {
                self.0 = None;
                false
            }
            Poll::Pending => {
                self.0.get_or_insert_with(|| Box::pin(sleep(limit))).as_mut().poll(cx).is_ready()
            }
        }
    }
}

/// The caller sent nothing for so long.
#[derive(Debug)]
pub struct Silent(Duration);

impl std::fmt::Display for Silent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the caller sent nothing of the body for {:?}", self.0)
    }
}

impl std::error::Error for Silent {}

impl Silent {
    /// Whether this, or what caused it, is a caller's silence.
    pub fn is_cause(error: &(dyn std::error::Error + 'static)) -> bool {
        std::iter::successors(Some(error), |error| error.source()).any(|error| error.is::<Self>())
    }
}

/// A request's body that breaks off when the caller is silent.
pub struct Patient {
    body: Incoming,
    limit: Option<Duration>,
    timer: Timer,
    unread: Arc<AtomicBool>,
}

impl Patient {
    /// Wraps a body; `unread` is true until its end was read.
    pub fn new(body: Incoming, limit: Option<Duration>, unread: Arc<AtomicBool>) -> Self {
        unread.store(!body.is_end_stream(), Ordering::Relaxed);
        Self { body, limit, timer: Timer::default(), unread }
    }
}

impl HttpBody for Patient {
    type Data = Bytes;
    type Error = Problem;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Problem>>> {
        let this = &mut *self;
        let polled = Pin::new(&mut this.body).poll_frame(cx);
        if let Some(limit) = this.limit
            && this.timer.is_over(&polled, limit, cx)
        {
            return Poll::Ready(Some(Err(Silent(limit).into())));
        }
        if matches!(polled, Poll::Ready(None)) || this.body.is_end_stream() {
            this.unread.store(false, Ordering::Relaxed);
        }
        polled.map(data_only)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body of a server's answer, which ends with the call's time.
pub struct Limited {
    body: Incoming,
    deadline: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Limited {
    /// Wraps a body.
    pub fn new(body: Incoming, deadline: Option<Instant>) -> Self {
        Self { body, deadline, timer: None }
    }
}

impl HttpBody for Limited {
    type Data = Bytes;
    type Error = Problem;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Problem>>> {
        let this = &mut *self;
        let polled = Pin::new(&mut this.body).poll_frame(cx);
        if let (Poll::Pending, Some(deadline)) = (&polled, this.deadline)
            && this.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline))).as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Some(Err("the call's time is over".into())));
        }
        polled.map(data_only)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Trailers are not passed on: they come when there is nothing more of the body, so they are its end.
fn data_only(frame: Option<Result<Frame<Bytes>, hyper::Error>>) -> Option<Result<Frame<Bytes>, Problem>> {
    frame
        .filter(|frame| frame.as_ref().map_or(true, Frame::is_data))
        .map(|frame| frame.map_err(Problem::from))
}

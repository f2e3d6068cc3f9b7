//! The time of what a connection carries. Bodies know their time only while somebody asks them for more: a client that stops
//! reading would keep its connection, and the function's, for ever.
//!
//! Nobody is woken when a call begins or ends, and no timer is set: the connection's task looks at its clock whenever it has
//! done something, and sets its own timer anew only where that would ring too late.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

use super::reply::{Body, BodyError};

/// What a call may take beyond its time, to tell its client so.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// One connection's clock, or that of one stream of HTTP/2. Clones are of the same one.
#[derive(Clone)]
pub struct Clock(Arc<Mutex<Face>>);

struct Face {
    /// When the call must be over; nothing where there is none, or it may take for ever.
    end: Option<Instant>,
    /// That moment has come.
    over: bool,
    /// What is carried now.
    calls: usize,
    /// Since when that is nothing.
    rest: Instant,
}

impl Default for Clock {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Face { end: None, over: false, calls: 0, rest: Instant::now() })))
    }
}

impl Clock {
    /// Begins to count; the call is over when what is given is dropped.
    pub fn begin(&self, limit: Duration) -> Counting {
        let inside = self.enter();
        let mut face = self.face();
        (face.end, face.over) = (Some(Instant::now() + limit), false);
        drop(face);
        Counting(inside)
    }

    /// Something is carried, for however long.
    pub fn enter(&self) -> Inside {
        self.face().calls += 1;
        Inside(self.clone())
    }

    /// Something that was carried is still on its way, and has come a little further.
    pub fn moved(&self) {
        self.face().rest = Instant::now();
    }

    /// Counts only while what was given out of a body is not read: it may take for ever to come.
    pub fn pace(&self, limit: Duration, body: Body) -> Body {
        Paced { body, limit, counting: None, inside: self.enter() }.boxed_unsync()
    }

    /// For who ends the connection; with `patience` also when it has carried nothing for so long.
    pub fn watch(&self, patience: Option<Duration>) -> Watch {
        Watch { clock: self.clone(), patience, timer: None }
    }

    fn face(&self) -> MutexGuard<'_, Face> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Something that is carried; dropped when that ends.
pub struct Inside(Clock);

impl Drop for Inside {
    fn drop(&mut self) {
        let mut face = self.0.face();
        (face.calls, face.rest) = (face.calls.saturating_sub(1), Instant::now());
    }
}

/// A call whose time runs.
pub struct Counting(Inside);

impl Drop for Counting {
    fn drop(&mut self) {
        self.0.0.face().end = None;
    }
}

impl Counting {
    /// Whether it has had its time. Somebody must be looking at the clock, and then polls the call again.
    pub fn is_over(&self) -> bool {
        self.0.0.face().over
    }

    /// What a part of the call comes to; nothing when the call's time is over before that.
    pub async fn within<F: Future>(&self, part: F) -> Option<F::Output> {
        let mut part = pin!(part);
        poll_fn(|cx| match part.as_mut().poll(cx) {
            Poll::Pending if self.is_over() => Poll::Ready(None),
            polled => polled.map(Some),
        })
        .await
    }

    /// Counts until a body was sent.
    pub fn hold(self, body: Body) -> Body {
        Held { body, counting: self }.boxed_unsync()
    }
}

/// What a clock tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ring {
    /// The call's time is over: polled now, it says so.
    Over,
    /// It has not ended all the same: its client does not read, or the other side never ends.
    Stuck,
    /// Nothing was carried for too long.
    Quiet,
}

/// Looks at a clock.
pub struct Watch {
    clock: Clock,
    patience: Option<Duration>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Watch {
    /// Returns when the clock rings. To be polled after whatever may have set it.
    pub async fn ring(&mut self) -> Ring {
        poll_fn(|cx| self.poll(cx)).await
    }

    /// Waits once more for the end of quiet, from now on and so long.
    pub fn wait(&mut self, patience: Duration) {
        self.clock.face().rest = Instant::now();
        self.patience = Some(patience);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Ring> {
        loop {
            let Some((due, ring)) = self.due() else { return Poll::Pending };
            let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(due)));
            if timer.deadline() > due {
                timer.as_mut().reset(due);
            }
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            // It was set for a former call.
            if Instant::now() < due {
                timer.as_mut().reset(due);
                continue;
            }
            self.clock.face().over = ring == Ring::Over;
            return Poll::Ready(ring);
        }
    }

    /// When it rings next, as things are.
    fn due(&self) -> Option<(Instant, Ring)> {
        let face = self.clock.face();
        match (face.calls, face.end, self.patience) {
            (0, _, Some(patience)) => Some((face.rest + patience, Ring::Quiet)),
            (1.., Some(end), _) if face.over => Some((end + LAST_WORDS, Ring::Stuck)),
            (1.., Some(end), _) => Some((end, Ring::Over)),
            _ => None,
        }
    }
}

/// A body that holds a call's time.
struct Held {
    body: Body,
    #[expect(dead_code, reason = "stops the clock when it is dropped")]
    counting: Counting,
}

impl hyper::body::Body for Held {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A body whose every piece must be read in time.
struct Paced {
    body: Body,
    limit: Duration,
    counting: Option<Counting>,
    inside: Inside,
}

impl hyper::body::Body for Paced {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        // Asked for more: what was given has found its way.
        self.counting = None;
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if polled.is_ready() {
            self.counting = Some(self.inside.0.begin(self.limit));
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::timeout;

    struct Channel(tokio::sync::mpsc::UnboundedReceiver<&'static [u8]>);

    impl hyper::body::Body for Channel {
        type Data = Bytes;
        type Error = BodyError;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
            self.0.poll_recv(cx).map(|piece| Some(Ok(Frame::data(Bytes::from_static(piece?)))))
        }
    }

    #[tokio::test]
    async fn time_runs_only_while_a_piece_is_not_read() {
        let clock = Clock::default();
        let mut watch = clock.watch(None);
        let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
        let short = Duration::from_millis(50);
        let mut body = clock.pace(short / 2, Channel(receiver).boxed_unsync());
        let next = tokio::spawn(async move { (body.frame().await.unwrap().unwrap(), body) });
        assert!(timeout(short * 2, watch.ring()).await.is_err(), "nothing came, nothing has to be read");
        sender.send(b"x").unwrap();
        let (_, body) = next.await.unwrap();
        assert!(timeout(Duration::from_secs(10), watch.ring()).await.is_ok(), "it was not read");
        drop(body);
    }

    #[tokio::test]
    async fn a_call_that_is_not_read_is_over_and_one_that_is_goes_on() {
        let clock = Clock::default();
        let mut watch = clock.watch(None);
        let short = Duration::from_millis(50);
        assert!(timeout(short, watch.ring()).await.is_err(), "no call, no end");
        let body = super::super::reply::text(hyper::StatusCode::OK, "x").into_body();
        let body = clock.begin(short / 2).hold(body);
        assert_eq!(hyper::body::Body::size_hint(&body).exact(), Some(1));
        assert!(timeout(Duration::from_secs(10), watch.ring()).await.is_ok());
        drop(body);
        assert!(timeout(short, watch.ring()).await.is_err(), "it was read");
    }

    #[tokio::test]
    async fn nothing_is_carried_for_too_long() {
        let (clock, short) = (Clock::default(), Duration::from_millis(50));
        let mut watch = clock.watch(Some(short));
        let inside = clock.enter();
        assert!(timeout(short * 2, watch.ring()).await.is_err(), "a call that takes its time");
        let other = clock.begin(Duration::from_secs(60));
        drop(inside);
        assert!(timeout(short * 2, watch.ring()).await.is_err(), "another one");
        drop(other);
        let left = Instant::now();
        assert_eq!(watch.ring().await, Ring::Quiet);
        assert!(left.elapsed() >= short);
        watch.wait(short);
        assert_eq!(watch.ring().await, Ring::Quiet);
        assert!(left.elapsed() >= short * 2);
    }

    #[tokio::test]
    async fn a_call_hears_of_its_end_and_one_that_does_not_is_stuck() {
        let (clock, short) = (Clock::default(), Duration::from_millis(50));
        let mut watch = clock.watch(None);
        // A timer that was set for a former call rings for none.
        let former = clock.begin(short);
        assert!(timeout(Duration::from_millis(1), watch.ring()).await.is_err());
        assert!(watch.timer.is_some());
        drop(former);
        let call = clock.begin(short * 3);
        let began = Instant::now();
        assert!(timeout(Duration::from_millis(1), watch.ring()).await.is_err());
        assert_eq!(call.within(std::future::ready(7)).await, Some(7));
        {
            let mut part = pin!(call.within(std::future::pending::<()>()));
            assert!(timeout(Duration::from_millis(1), part.as_mut()).await.is_err());
            assert_eq!(watch.ring().await, Ring::Over);
            assert!(began.elapsed() >= short * 3);
            assert_eq!(part.await, None);
        }
        assert!(call.is_over());
        assert!(timeout(short, watch.ring()).await.is_err(), "it is given a moment");
        clock.face().end = Some(began - LAST_WORDS);
        assert_eq!(watch.poll(&mut Context::from_waker(std::task::Waker::noop())), Poll::Ready(Ring::Stuck));
        drop(call);
        // The next one has its own time.
        let next = clock.begin(short);
        assert!(!next.is_over());
        assert_eq!(watch.ring().await, Ring::Over);
    }
}

//! The time of the call that a connection carries. Bodies know their time only while somebody asks them for more: a
//! client that stops reading would keep its connection, and the function's, for ever.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Frame, SizeHint};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::reply::{Body, BodyError};

/// One connection's clock: when its call must be over, or nothing while there is none.
#[derive(Clone, Default)]
pub struct Clock(Arc<watch::Sender<Option<Instant>>>);

impl Clock {
    /// Begins to count; the call is over when what is given is dropped.
    pub fn begin(&self, limit: Duration) -> Counting {
        self.0.send_replace(Some(Instant::now() + limit));
        Counting(self.clone())
    }

    /// For who ends the connection.
    pub fn watch(&self) -> Watch {
        Watch(self.0.subscribe())
    }
}

impl Clock {
    /// Counts only while what was given out of a body is not read: it may take for ever to come.
    pub fn pace(&self, limit: Duration, body: Body) -> Body {
        Paced { body, clock: self.clone(), limit, counting: None }.boxed()
    }
}

/// A call whose time runs.
pub struct Counting(Clock);

impl Drop for Counting {
    fn drop(&mut self) {
        self.0.0.send_replace(None);
    }
}

impl Counting {
    /// Counts until a body was sent.
    pub fn hold(self, body: Body) -> Body {
        Held { body, counting: self }.boxed()
    }
}

/// Looks at a clock.
pub struct Watch(watch::Receiver<Option<Instant>>);

impl Watch {
    /// Returns when a call's time is over.
    pub async fn over(&mut self) {
        loop {
            let moment = *self.0.borrow_and_update();
            let changed = async {
                if self.0.changed().await.is_err() {
                    // The service is gone, and the connection soon.
                    std::future::pending::<()>().await;
                }
            };
            match moment {
                Some(moment) => tokio::select! {
                    () = sleep_until(moment) => return,
                    () = changed => {}
                },
                None => changed.await,
            }
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
    clock: Clock,
    limit: Duration,
    counting: Option<Counting>,
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
            self.counting = Some(self.clock.begin(self.limit));
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
        let mut watch = clock.watch();
        let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
        let short = Duration::from_millis(50);
        let mut body = clock.pace(short / 2, Channel(receiver).boxed());
        let next = tokio::spawn(async move { (body.frame().await.unwrap().unwrap(), body) });
        assert!(timeout(short * 2, watch.over()).await.is_err(), "nothing came, nothing has to be read");
        sender.send(b"x").unwrap();
        let (_, body) = next.await.unwrap();
        assert!(timeout(Duration::from_secs(10), watch.over()).await.is_ok(), "it was not read");
        drop(body);
    }

    #[tokio::test]
    async fn a_call_that_is_not_read_is_over_and_one_that_is_goes_on() {
        let clock = Clock::default();
        let mut watch = clock.watch();
        let short = Duration::from_millis(50);
        assert!(timeout(short, watch.over()).await.is_err(), "no call, no end");
        let body = super::super::reply::text(hyper::StatusCode::OK, "x").into_body();
        let body = clock.begin(short / 2).hold(body);
        assert_eq!(hyper::body::Body::size_hint(&body).exact(), Some(1));
        assert!(timeout(Duration::from_secs(10), watch.over()).await.is_ok());
        drop(body);
        assert!(timeout(short, watch.over()).await.is_err(), "it was read");
    }
}

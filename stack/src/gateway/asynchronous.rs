//! `/async-function/NAME`: a call is stored, brought to the disk, and answered with 202; a worker makes it later.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::TryStreamExt;
use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};
use hyper::header::HeaderMap;
use hyper::{Request, Response, StatusCode, Uri};
use tokio::io::AsyncReadExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};
use tokio_util::io::StreamReader;

use super::Gateway;
use super::callback::callback;
use super::headers::{self, Stamp, from_http2};
use super::proxy::not_found;
use super::queues::Queues;
use super::reply::{Body, Refusal, busy, empty, refuse};
use crate::key::Key;
use crate::queue::{
    self, Bodies, Call, LARGEST_INLINE_BYTES, LARGEST_MESSAGE_BYTES, LONGEST_CALL_ID_BYTES, Line, NotStored,
    Origin, Overrides, Payload, Place, Route, Stage, stream,
};
use crate::random;

/// How long a body may take to come.
const BODY_PATIENCE: Duration = Duration::from_secs(60);
/// How long one waits for memory for it.
const ROOM_PATIENCE: Duration = Duration::from_secs(5);
/// When to come again after being refused for want of room or of NATS, seconds.
const COME_AGAIN: u64 = 5;

/// What a function's server may refuse: hyper takes 100 headers, and some are added on the way.
const MOST_HEADERS: usize = 80;
const LARGEST_HEADERS_BYTES: usize = 32 << 10;
/// Longest path and query.
const LONGEST_TARGET_BYTES: usize = 16 << 10;

/// Memory for bodies that are coming or on their way to the disk, in units of this many bytes.
const UNIT_BYTES: usize = 1 << 10;
const ROOM_UNITS: usize = 16 << 10;

/// Memory for bodies, of all calls that come at a time.
pub struct Room(Arc<Semaphore>);

impl Default for Room {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(ROOM_UNITS)))
    }
}

impl Room {
    /// Takes what is missing for so many bytes.
    async fn take(&self, bytes: usize, held: &mut Option<OwnedSemaphorePermit>) -> Result<(), Refusal> {
        let has = held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let units = bytes.div_ceil(UNIT_BYTES).saturating_sub(has);
        if units == 0 {
            return Ok(());
        }
        let units = u32::try_from(units).unwrap_or(u32::MAX);
        let permit = tokio::time::timeout(ROOM_PATIENCE, self.0.clone().acquire_many_owned(units)).await;
        let Ok(Ok(permit)) = permit else {
            let message =
                "Error queuing request: too many bodies are coming at a time, try again in a moment";
            return Err(refuse(StatusCode::SERVICE_UNAVAILABLE, message));
        };
        match held {
            Some(held) => held.merge(permit),
            None => *held = Some(permit),
        }
        Ok(())
    }
}

impl Gateway {
    /// Takes a call. `name` is as the path has it; `rest` is the path behind it, raw.
    pub async fn enqueue(
        &self,
        request: Request<Incoming>,
        name: &str,
        rest: &str,
        client: SocketAddr,
    ) -> Response<Body> {
        let stamp = Stamp::new(request.headers());
        let found = Key::from_path(name).and_then(|key| self.functions.get(&key)?.document());
        let Some(document) = found else { return stamp.marked(not_found(name)) };
        let answer = async {
            let Some(key) = document.key() else { return Err(refuse(StatusCode::NOT_FOUND, "")) };
            let route = Route { queue: queue::named(&document.annotations), key };
            let retry = Overrides::of(&document.annotations);
            self.take(request, rest, client, &stamp, (route, retry)).await
        };
        let response = match answer.await {
            Ok(()) => empty(StatusCode::ACCEPTED),
            Err(Refusal { status: StatusCode::SERVICE_UNAVAILABLE, text }) => busy(text, COME_AGAIN),
            Err(refusal) => refusal.into(),
        };
        stamp.marked(response)
    }

    async fn take(
        &self,
        request: Request<Incoming>,
        rest: &str,
        client: SocketAddr,
        stamp: &Stamp,
        (route, retry): (Route, Overrides),
    ) -> Result<(), Refusal> {
        let bad = |text: String| refuse(StatusCode::BAD_REQUEST, text);
        let id = stamp.call_id().to_str().ok().filter(|id| id.len() <= LONGEST_CALL_ID_BYTES);
        let id = id.ok_or_else(|| {
            bad(format!("X-Call-Id: expected at most {LONGEST_CALL_ID_BYTES} visible characters of ASCII"))
        })?;
        let callback = callback(request.headers()).map_err(bad)?;
        let (mut parts, body) = request.into_parts();
        from_http2(&mut parts.headers, parts.uri.authority());
        headers::towards_function(&mut parts.headers, client, stamp);
        fits(&parts.headers, &parts.uri)?;
        // Its length is told anew where it is sent.
        parts.headers.remove(hyper::header::CONTENT_LENGTH);
        parts.headers.remove(hyper::header::EXPECT);
        let origin = Origin { id: id.to_owned(), path: rest.to_owned(), callback, retry };
        let mut call = Call::new(origin, &parts);
        let queues = &self.queues;
        queues.prepare(&route.queue).await.map_err(not_queued)?;
        let (body, _room) = self.read_body(body, &mut call).await?;
        let payload = Payload { call, body };
        let accepted = queues.accept(&route, &payload).await;
        // Where the call may be there all the same it needs its body.
        if let (Err(refused), Some(stored)) = (&accepted, &payload.call.stored)
            && refused.is_gone()
        {
            queues.remove_body(stored).await;
        }
        accepted.map_err(|refused| match refused {
            Unaccepted::TooLarge => {
                let message = format!(
                    "the call's headers, path and body do not fit into {LARGEST_MESSAGE_BYTES} bytes"
                );
                refuse(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, message)
            }
            refused => not_queued(refused.reason()),
        })
    }

    /// A small body is read; a larger one goes into the store as it comes.
    async fn read_body(
        &self,
        mut body: Incoming,
        call: &mut Call,
    ) -> Result<(Bytes, Option<OwnedSemaphorePermit>), Refusal> {
        let queues = &self.queues;
        let most = queues.max_body;
        let too_large = || {
            let message = format!(
                "the request's body is longer than {most} bytes, the most that an asynchronous call may have: max_body \
                 in [stack.queue] of bothy.toml allows more"
            );
            refuse(StatusCode::PAYLOAD_TOO_LARGE, message)
        };
        if body.size_hint().lower() > most {
            return Err(too_large());
        }
        let deadline = Instant::now() + BODY_PATIENCE;
        let late = |_| refuse(StatusCode::REQUEST_TIMEOUT, "the request's body did not come within 60 s");
        let broken = |error: &dyn std::error::Error| {
            refuse(StatusCode::BAD_REQUEST, format!("the request's body: {error}"))
        };
        let (mut read, mut held) = (BytesMut::new(), None);
        loop {
            let Some(frame) = timeout_at(deadline, body.frame()).await.map_err(late)? else {
                call.bytes = read.len() as u64;
                if call.bytes > most {
                    return Err(too_large());
                }
                return Ok((read.freeze(), held));
            };
            let Ok(data) = frame.map_err(|error| broken(&error))?.into_data() else { continue };
            queues.room.take(read.len() + data.len(), &mut held).await?;
            read.extend_from_slice(&data);
            if read.len() > LARGEST_INLINE_BYTES {
                break;
            }
        }
        let name = random::uuid();
        let rest = body.into_data_stream().map_err(std::io::Error::other);
        // A byte more than it may have: that tells.
        let mut whole =
            std::io::Cursor::new(read).chain(StreamReader::new(rest)).take(most.saturating_add(1));
        let bodies = queues.broker.bodies().await.map_err(not_queued)?;
        let unkept = Unkept(Some((bodies.clone(), name.clone())));
        let put = timeout_at(deadline, bodies.put(&name, &mut whole)).await;
        let bytes = put.map_err(late)?.map_err(not_queued)?;
        if bytes > most {
            return Err(too_large());
        }
        unkept.keep();
        (call.bytes, call.stored) = (bytes, Some(name));
        Ok((Bytes::new(), held))
    }
}

/// A body that no call has yet: it goes when this is dropped, with a client that left too.
struct Unkept(Option<(Bodies, String)>);

impl Unkept {
    fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Unkept {
    fn drop(&mut self) {
        if let Some((bodies, name)) = self.0.take() {
            tokio::spawn(async move { bodies.remove(&name).await });
        }
    }
}

/// Why a call is not accepted.
pub(super) enum Unaccepted {
    /// It does not fit into a message.
    TooLarge,
    /// JetStream did not take it.
    NotStored(NotStored),
    /// It could not be brought to the disk.
    NotSynced {
        /// Why not.
        reason: String,
        /// Whether it was taken out of its queue again.
        gone: bool,
    },
}

impl Unaccepted {
    /// Whether nothing of it is in its queue. Where there was no answer it may be there.
    fn is_gone(&self) -> bool {
        match self {
            Self::TooLarge => true,
            Self::NotStored(refused) => refused.full,
            Self::NotSynced { gone, .. } => *gone,
        }
    }

    /// In words.
    pub fn reason(self) -> String {
        match self {
            Self::TooLarge => "it is too large".to_owned(),
            Self::NotStored(NotStored { reason, .. }) | Self::NotSynced { reason, .. } => reason,
        }
    }
}

impl Queues {
    /// Stores a call and brings it to the disk.
    pub(super) async fn accept(&self, route: &Route, payload: &Payload) -> Result<(), Unaccepted> {
        let message = payload.encode();
        if message.len() > LARGEST_MESSAGE_BYTES {
            return Err(Unaccepted::TooLarge);
        }
        let published = self.broker.publish(route.subject(), message).await;
        let sequence = published.map_err(Unaccepted::NotStored)?;
        let place = Place { queue: route.queue.clone(), sequence };
        let id = (payload.call.id.as_str(), payload.call.nonce);
        let line = Line::new(id, &place, &route.key.to_string(), Stage::Queued);
        if let Err(reason) = self.book.write(line).await {
            let gone = self.broker.remove(&stream(&route.queue), sequence).await.is_ok();
            return Err(Unaccepted::NotSynced { reason, gone });
        }
        self.wake(route).await;
        Ok(())
    }
}

fn not_queued(error: String) -> Refusal {
    refuse(StatusCode::SERVICE_UNAVAILABLE, format!("Error queuing request: {error}"))
}

/// What cannot be sent to a function later is not taken now.
fn fits(headers: &HeaderMap, uri: &Uri) -> Result<(), Refusal> {
    let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if headers.len() > MOST_HEADERS || bytes > LARGEST_HEADERS_BYTES {
        let message = format!(
            "an asynchronous call may have {MOST_HEADERS} headers of {LARGEST_HEADERS_BYTES} bytes together, not {} of \
             {bytes}",
            headers.len()
        );
        return Err(refuse(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, message));
    }
    if uri.path_and_query().is_some_and(|target| target.as_str().len() > LONGEST_TARGET_BYTES) {
        let message = format!("an asynchronous call's path may have {LONGEST_TARGET_BYTES} bytes");
        return Err(refuse(StatusCode::URI_TOO_LONG, message));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    #[test]
    fn what_is_too_large_is_refused_now() {
        let uri = |path: usize| format!("/{}", "x".repeat(path)).parse::<Uri>().unwrap();
        let mut headers = HeaderMap::new();
        assert!(fits(&headers, &uri(100)).is_ok());
        assert_eq!(fits(&headers, &uri(17 << 10)).unwrap_err().status, StatusCode::URI_TOO_LONG);
        for number in 0..MOST_HEADERS {
            headers.append("x-many", HeaderValue::from(number));
        }
        assert!(fits(&headers, &uri(1)).is_ok());
        headers.append("x-many", HeaderValue::from_static("one more"));
        let refused = fits(&headers, &uri(1)).unwrap_err();
        assert_eq!(refused.status, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
        headers.clear();
        headers.insert("x-long", "x".repeat(33 << 10).parse().unwrap());
        assert!(fits(&headers, &uri(1)).is_err());
    }
}

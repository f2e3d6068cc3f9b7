//! One attempt of one call: it is sent through the gateway, and what comes back decides.

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use hyper::header::{HOST, HeaderValue, RETRY_AFTER};
use hyper::{Request, Response};
use tokio_util::io::ReaderStream;

use super::callback::Delivery;
use super::lane::{Fetched, Inner};
use super::outcome::Met;
use crate::gateway::{INTERNAL, target};
use crate::queue::{Answer, Payload, Policy, Stage, Verdict, now};
use crate::random;
use crate::upstream::{BodyError, Failure, Outgoing, Received};

/// A call that NATS has delivered so often, and whose worker or gateway ended each time, is given up.
const DELIVERIES: u64 = 100;

/// Pause before a call is tried again that the gateway did not take, or took along when it ended.
const GATEWAY_AWAY: Duration = Duration::from_secs(2);

/// How long a call that was met before may wait for what is known of it.
const LEDGER: Duration = Duration::from_secs(10);

/// A call whose next attempt is due in less than so many milliseconds is made now.
const SOON: u64 = 250;

/// Makes an attempt, and does what follows from it.
pub async fn attempt(lane: &Inner, fetched: Fetched) {
    let worker = &lane.worker;
    let Payload { call, body } = match Payload::decode(&fetched.message) {
        Ok(payload) => payload,
        Err(error) => {
            let reason = format!("the message is no call: {error}");
            return lane.bury_unread(&fetched, &reason).await;
        }
    };
    let mut met = Met::new(lane, &fetched.ticket, &call);
    // Nothing is known of most of them.
    if fetched.delivered > 1 || worker.index.may_know(fetched.ticket.place()) {
        let known = tokio::time::timeout(LEDGER, async {
            worker.index.caught_up().await;
            worker.index.by_place(&worker.broker, fetched.ticket.place(), &call.id).await
        });
        match known.await {
            Ok(Ok(Some(line))) if line.stage.is_end() => return met.forget(&line).await,
            Ok(Ok(Some(line))) if line.stage == Stage::Retrying => {
                met.attempts = line.attempts;
                let left = line.next.unwrap_or(0).saturating_sub(now());
                if left > SOON {
                    return met.later(Duration::from_millis(left)).await;
                }
            }
            Ok(Ok(_)) => {}
            Ok(Err(_)) | Err(_) => return met.later(GATEWAY_AWAY).await,
        }
    }
    if fetched.delivered > DELIVERIES + u64::from(met.attempts) {
        let reason = format!("whoever made it ended {DELIVERIES} times before it did");
        return met.give_up(&reason).await;
    }
    let body = match &call.stored {
        None => Outgoing::whole(body),
        Some(name) => match stored(lane, name, call.bytes).await {
            Ok(Some(body)) => body,
            Ok(None) => return met.give_up("its body is gone").await,
            Err(error) => {
                tracing::warn!("the body of a call of {}: {error}", lane.route.key);
                return met.later(GATEWAY_AWAY).await;
            }
        },
    };
    let Some(request) = met.request(body) else {
        return met.give_up("its method or path cannot be sent").await;
    };
    let began = Instant::now();
    let sent = worker.upstream.send(worker.options.gateway, request, false);
    let answered = tokio::time::timeout(worker.patience, async {
        let response = sent.await?;
        met.follow(response, began).await;
        Ok::<_, Failure>(())
    });
    match answered.await {
        Ok(Ok(())) => {}
        // It is started again by the supervisor; that is not the call's fault.
        Ok(Err(error)) => {
            tracing::debug!("a call of {}: the gateway: {error}", lane.route.key);
            met.later(GATEWAY_AWAY).await;
        }
        Err(_) => {
            let seconds = worker.patience.as_secs();
            tracing::warn!("a call of {}: no answer of the gateway in {seconds} s", lane.route.key);
            met.later(GATEWAY_AWAY).await;
        }
    }
}

/// A body from the store; nothing where it is gone.
async fn stored(lane: &Inner, name: &str, bytes: u64) -> Result<Option<Outgoing>, String> {
    let Some(object) = lane.worker.bodies().await?.get(name).await? else { return Ok(None) };
    let frames = ReaderStream::new(object).map(|piece| piece.map(Frame::data).map_err(BodyError::from));
    Ok(Some(Outgoing::stream(BodyExt::boxed_unsync(StreamBody::new(frames)), Some(bytes))))
}

impl Met<'_> {
    /// The call as the gateway gets it.
    fn request(&self, body: Outgoing) -> Option<Request<Outgoing>> {
        let call = self.call;
        let path = format!("/function/{}{}", self.lane.route.key, call.path);
        let mut request = Request::new(body);
        *request.method_mut() = call.method.parse().ok()?;
        *request.uri_mut() = target(&path, call.query.as_deref())?;
        *request.headers_mut() = call.headers();
        request.headers_mut().insert(HOST, HeaderValue::from_static("gateway"));
        Some(request)
    }

    /// What follows from an answer. The function's own time ends with its body.
    async fn follow(&mut self, response: Response<Received>, began: Instant) {
        let worker = &self.lane.worker;
        self.attempts += 1;
        let (parts, body) = response.into_parts();
        let status = parts.status.as_u16();
        let answer = Answer {
            status,
            internal: parts.headers.contains_key(INTERNAL),
            retry_after: parts.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()),
        };
        self.status = Some(status);
        let policy = Policy::new(&worker.settings.queue.retries, &self.call.retry);
        let verdict = policy.judge(&answer, self.attempts, random::number());
        if status == 429 && !answer.internal {
            self.lane.share.slow_down();
        } else if parts.status.is_success() {
            self.lane.share.speed_up();
        }
        if let Verdict::Again(pause) = verdict {
            drop(body);
            return self.again(pause).await;
        }
        let delivery = Delivery { parts, body, began, retries: self.attempts - 1, most: policy.attempts() };
        let delivered = worker.callbacks.deliver(worker, self, delivery).await;
        self.lane.pace.note(began.elapsed());
        match (verdict, delivered) {
            // The answer broke off: its function ended while it gave it.
            (_, Err(broken)) if self.attempts <= policy.attempts() => {
                tracing::debug!("a call of {}: {broken}", self.lane.route.key);
                let answer = Answer { status: 502, internal: true, retry_after: None };
                match policy.judge(&answer, self.attempts, random::number()) {
                    Verdict::Again(pause) => self.again(pause).await,
                    _ => self.give_up(&broken).await,
                }
            }
            (_, Err(broken)) => self.give_up(&broken).await,
            (Verdict::GiveUp, Ok(_)) => {
                let reason = format!("status {status} after {} attempts", self.attempts);
                self.give_up(&reason).await;
            }
            (_, Ok(note)) => self.done(note).await,
        }
    }
}

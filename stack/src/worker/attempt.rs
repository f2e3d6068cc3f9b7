//! One attempt of one call: it is sent through the gateway, and what comes back decides.

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use hyper::header::{HOST, HeaderValue, RETRY_AFTER};
use hyper::{Request, Response};

use super::callback::{Delivery, read_out};
use super::lane::{Fetched, Inner};
use super::outcome::Met;
use crate::gateway::{INTERNAL, target};
use crate::queue::{Answer, Payload, Policy, Stage, Verdict, now};
use crate::random;
use crate::upstream::{Failure, Outgoing, Received};

/// A call that NATS has delivered so often, and that came to nothing each time, is given up.
const DELIVERIES: u64 = 100;

/// How often it is tried to connect to the gateway, and the pause between two tries.
const TRIES: u32 = 120;
const TRY_AGAIN: Duration = Duration::from_millis(500);

/// Longest pause before a call is tried again that came to nothing.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// How long a call that was met before may wait for what is known of it.
const LEDGER: Duration = Duration::from_secs(10);

/// How long an answer is read that nobody wants.
const SHORT: Duration = Duration::from_millis(500);

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
    let policy = Policy::new(&worker.settings.queue.retries, &call.retry);
    // Nothing is known of most of them. (A server that was killed may call the second delivery the first.)
    if fetched.delivered > 1 || !worker.index.is_caught_up() || worker.index.may_know(fetched.ticket.place())
    {
        let known = tokio::time::timeout(LEDGER, async {
            worker.index.caught_up().await;
            let known = worker.index.by_place(&worker.broker, fetched.ticket.place(), call.nonce).await?;
            // Only of what was met before a line can be missing.
            let begins = match known.is_none() && fetched.delivered > 1 {
                true => worker.index.begins(&worker.broker).await?,
                false => None,
            };
            Ok::<_, String>((known, begins))
        });
        match known.await {
            Ok(Ok((Some(line), _))) if line.stage.is_end() => return met.forget(&line).await,
            Ok(Ok((Some(line), _))) if line.stage == Stage::Retrying => {
                (met.attempts, met.status) = (line.attempts, line.status);
                // A clock that was set back makes no pause longer than it was.
                let left = line.next.unwrap_or(0).saturating_sub(now().max(line.at));
                if left > SOON {
                    return met.later(Duration::from_millis(left)).await;
                }
            }
            // What was written about it is gone from the ledger, which has a size: each delivery counts as an attempt then.
            Ok(Ok((None, Some(begins)))) if begins > call.accepted => {
                met.attempts = u32::try_from(fetched.delivered - 1).unwrap_or(u32::MAX);
            }
            Ok(Ok(_)) => {}
            Ok(Err(_)) | Err(_) => return met.later(pause(fetched.delivered)).await,
        }
    }
    if met.attempts > policy.attempts() {
        // Its letter could not be kept.
        let reason = met.reason();
        return met.give_up(&reason).await;
    }
    if fetched.delivered > DELIVERIES + u64::from(met.attempts) {
        let reason = format!("it came to no end in {DELIVERIES} deliveries");
        return met.give_up(&reason).await;
    }
    let body = match &call.stored {
        None => Outgoing::whole(body),
        Some(name) => match stored(lane, name, call.bytes).await {
            Ok(Some(body)) => body,
            Ok(None) => return met.give_up("its body is gone").await,
            Err(error) => {
                tracing::warn!("the body of a call of {}: {error}", lane.route.key);
                return met.later(pause(fetched.delivered)).await;
            }
        },
    };
    let Some(request) = met.request(body) else {
        return met.give_up("its method or path cannot be sent").await;
    };
    let began = Instant::now();
    match send(lane, request).await {
        Ok(response) => met.follow(&policy, response, began).await,
        Err(error) => {
            tracing::debug!("a call of {}: the gateway: {error}", lane.route.key);
            met.later(pause(fetched.delivered)).await;
        }
    }
}

/// Sends a call, as soon as the gateway takes it: it is started again by the supervisor, which is not the call's fault.
async fn send(lane: &Inner, mut request: Request<Outgoing>) -> Result<Response<Received>, String> {
    let worker = &lane.worker;
    let mut tries = 0;
    loop {
        let sent = worker.upstream.send(worker.options.gateway, request, false);
        match tokio::time::timeout(worker.patience, sent).await {
            Ok(Ok(response)) => return Ok(response),
            Ok(Err(Failure::Connect(_, back))) if tries < TRIES => request = *back,
            Ok(Err(error)) => return Err(error.to_string()),
            Err(_) => return Err(format!("no answer in {} s", worker.patience.as_secs())),
        }
        tries += 1;
        tokio::time::sleep(TRY_AGAIN).await;
    }
}

/// Pause before a call is tried again that came to nothing, longer each time.
fn pause(delivered: u64) -> Duration {
    let seconds = 1_u64.checked_shl(u32::try_from(delivered).unwrap_or(u32::MAX)).unwrap_or(u64::MAX);
    Duration::from_secs(seconds).min(LONGEST_PAUSE)
}

/// A body from the store; nothing where it is gone.
async fn stored(lane: &Inner, name: &str, bytes: u64) -> Result<Option<Outgoing>, String> {
    let bodies = lane.worker.broker.bodies().await?;
    if !bodies.has(name).await? {
        return Ok(None);
    }
    let frames = bodies.get(name, bytes).map(|piece| piece.map(Frame::data));
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
    async fn follow(&mut self, policy: &Policy, response: Response<Received>, began: Instant) {
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
        let verdict = policy.judge(&answer, self.attempts, random::number());
        if status == 429 && !answer.internal {
            self.lane.share.slow_down();
        } else if parts.status.is_success() {
            self.lane.share.speed_up();
        }
        if let Verdict::Again(pause) = verdict {
            // A short one is read, so that the connection can be used again; the function of a long one sees a caller that left.
            let _ = tokio::time::timeout(SHORT, read_out(body)).await;
            return self.again(pause).await;
        }
        let delivery = Delivery { parts, body, began, retries: self.attempts - 1, most: policy.attempts() };
        let delivered = worker.callbacks.deliver(worker, self, delivery).await;
        self.lane.pace.note(began.elapsed());
        match (verdict, delivered) {
            // The answer broke off: its function ended while it gave it.
            (_, Err(broken)) => {
                tracing::debug!("a call of {}: {broken}", self.lane.route.key);
                let answer = Answer { status: 502, internal: true, retry_after: None };
                match policy.judge(&answer, self.attempts, random::number()) {
                    Verdict::Again(pause) => self.again(pause).await,
                    _ => self.give_up(&broken).await,
                }
            }
            (Verdict::GiveUp, Ok(_)) => {
                let reason = self.reason();
                self.give_up(&reason).await;
            }
            (_, Ok(note)) => self.done(note).await,
        }
    }
}

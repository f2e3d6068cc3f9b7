//! `/system/calls/CALL-ID`: how far an asynchronous call is, and its end before it has come to one.

use std::time::Duration;

use hyper::StatusCode;
use serde::Serialize;

use super::Gateway;
use super::query::decode_path;
use super::queues::Queues;
use super::reply::{Refusal, empty, json, refuse};
use super::system::Answer;
use crate::queue::{CANCEL, Line, Payload, Stage, Wish};
use crate::timestamp;

/// The last line about a call that has just ended may be on its way for so long.
const LINE_ON_ITS_WAY: Duration = Duration::from_millis(300);

/// How long one waits for the ledger to be read.
const LEDGER: Duration = Duration::from_secs(5);

/// A call as it is shown.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown {
    call_id: String,
    state: String,
    function: String,
    queue: String,
    attempts: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_retry: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dead_letter: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    since: String,
}

impl Shown {
    fn new(line: Line, state: &str) -> Self {
        let moment = |millis: u64| timestamp::rfc3339(millis / 1000);
        Self {
            call_id: line.id,
            state: state.to_owned(),
            function: line.function,
            queue: line.queue,
            attempts: line.attempts,
            status: line.status,
            next_retry: line.next.map(moment).filter(|_| state == "retrying"),
            dead_letter: line.letter,
            reason: line.reason,
            since: moment(line.at),
        }
    }
}

impl Gateway {
    /// How far a call is.
    pub async fn call(&self, id: &str) -> Answer {
        let id = decode_path(id);
        let (line, state) = self.queues.look(&id).await?;
        Ok(json(&Shown::new(line, &state)))
    }

    /// Sees to it that a call is not made, or not again, or ends now.
    pub async fn cancel(&self, id: &str) -> Answer {
        let id = decode_path(id);
        let queues = &self.queues;
        let (line, state) = queues.look(&id).await?;
        let ended = |state: &str| {
            refuse(StatusCode::CONFLICT, format!("call {id} is {state}: there is nothing left to cancel"))
        };
        if let (Stage::Dead, Some(letter)) = (line.stage, line.letter) {
            let message =
                format!("call {id} is dead letter {letter}: purge that (`bothyctl queue purge {letter}`)");
            return Err(refuse(StatusCode::CONFLICT, message));
        }
        if line.stage.is_end() || state == UNKNOWN {
            return Err(ended(&state));
        }
        let Some(place) = line.place() else { return Err(absent(&id)) };
        let stream = crate::queue::stream(&place.queue);
        let message = queues.broker.message(&stream, place.sequence).await.map_err(away)?;
        // Whoever removes it decides: a call that has ended meanwhile has ended.
        if !queues.broker.remove(&stream, place.sequence).await.map_err(away)? {
            let (_, state) = queues.look(&id).await?;
            return Err(ended(&state));
        }
        // At once: whoever makes it must not write anything more about it.
        let _ = queues.broker.client.publish(CANCEL, Wish::encode(&place).into()).await;
        let (attempts, status) = (line.attempts, line.status);
        let cancelled = Line {
            attempts,
            status,
            ..Line::new((&line.id, line.nonce), &place, &line.function, Stage::Cancelled)
        };
        queues.book.write(cancelled).await.map_err(away)?;
        let stored = message.and_then(|message| Payload::decode(&message.payload).ok()?.call.stored);
        if let Some(stored) = stored {
            queues.remove_body(&stored).await;
        }
        Ok(empty(StatusCode::ACCEPTED))
    }
}

/// What is said of a call that is in no queue any more, and of whose end nothing is written.
const UNKNOWN: &str = "unknown";

impl Queues {
    /// The last line about a call, and how far it is now.
    async fn look(&self, id: &str) -> Result<(Line, String), Refusal> {
        // What was accepted before we began is known when the ledger was read.
        let read = tokio::time::timeout(LEDGER, self.index.caught_up()).await;
        read.map_err(|_| away("what became of calls is not read yet, try again in a moment".to_owned()))?;
        let line = self.last(id).await?;
        if let Some(state) = self.state(&line).await? {
            return Ok((line, state));
        }
        // It ended a moment ago, and its last line is not read yet.
        tokio::time::sleep(LINE_ON_ITS_WAY).await;
        let line = self.last(id).await?;
        let state = self.state(&line).await?.unwrap_or_else(|| UNKNOWN.to_owned());
        Ok((line, state))
    }

    /// The last line about a call. That it came may be written after what came of it.
    async fn last(&self, id: &str) -> Result<Line, Refusal> {
        let line = self.index.by_id(&self.broker, id).await.map_err(away)?.ok_or_else(|| absent(id))?;
        let Some(place) = line.place().filter(|_| line.stage == Stage::Queued) else { return Ok(line) };
        let later = self.index.by_place(&self.broker, &place, line.nonce).await.map_err(away)?;
        Ok(later.unwrap_or(line))
    }

    /// Nothing where it should be in its queue and is not.
    async fn state(&self, line: &Line) -> Result<Option<String>, Refusal> {
        let Some(place) = line.place().filter(|_| !line.stage.is_end()) else {
            return Ok(Some(line.stage.to_string()));
        };
        let stream = crate::queue::stream(&place.queue);
        if self.broker.message(&stream, place.sequence).await.map_err(away)?.is_none() {
            return Ok(None);
        }
        let running = self.is_running(&place).await;
        Ok(Some(if running { "running".to_owned() } else { line.stage.to_string() }))
    }
}

fn absent(id: &str) -> Refusal {
    refuse(
        StatusCode::NOT_FOUND,
        format!(
            "no call {id:?} is known: none of exactly that X-Call-Id is among the last ones that were accepted"
        ),
    )
}

/// The queues cannot be asked.
pub(super) fn away(error: String) -> Refusal {
    refuse(StatusCode::SERVICE_UNAVAILABLE, format!("the queues cannot be asked: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::Place;

    #[test]
    fn what_is_shown() {
        let place = Place { queue: Default::default(), sequence: 3 };
        let line = Line {
            next: Some(61_000),
            attempts: 2,
            status: Some(503),
            at: 1000,
            ..Line::new(("a", 7), &place, "f.dev", Stage::Retrying)
        };
        let shown = |state| serde_json::to_value(Shown::new(line.clone(), state)).unwrap();
        assert_eq!(
            shown("retrying"),
            serde_json::json!({"callId": "a", "state": "retrying", "function": "f.dev", "queue": "faas-request", "attempts": 2,
                               "status": 503, "nextRetry": "1970-01-01T00:01:01Z", "since": "1970-01-01T00:00:01Z"})
        );
        assert!(shown("running").get("nextRetry").is_none());
    }
}

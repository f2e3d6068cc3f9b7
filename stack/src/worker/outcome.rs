//! What becomes of a call: first it is written into the ledger and brought to the disk, then NATS is told. Whoever meets the call
//! again finds the line.

use std::time::Duration;

use async_nats::jetstream::AckKind;
use tokio::time::Instant;

use super::lane::{Fetched, Inner};
use super::roll::Ticket;
use crate::queue::{Call, Letter, Line, Stage, now, stream};

/// How long a line is tried to be written. After that its call is let go without: it must not run for ever.
const LEDGER: Duration = Duration::from_secs(30);
/// Pause between two tries, and before a call is given to somebody else whose end could not be kept.
const PAUSE: Duration = Duration::from_secs(1);
const KEPT_LATER: Duration = Duration::from_secs(30);

/// A call that was met, and what is known of it.
pub struct Met<'a> {
    pub lane: &'a Inner,
    pub ticket: &'a Ticket,
    pub call: &'a Call,
    /// Attempts that were made.
    pub attempts: u32,
    /// Status of the last one.
    pub status: Option<u16>,
}

impl<'a> Met<'a> {
    /// For the first time, as far as is known.
    pub fn new(lane: &'a Inner, ticket: &'a Ticket, call: &'a Call) -> Self {
        Self { lane, ticket, call, attempts: 0, status: None }
    }

    fn line(&self, stage: Stage) -> Line {
        let place = self.ticket.place();
        let id = (self.call.id.as_str(), self.call.nonce);
        let line = Line::new(id, place, &self.lane.route.key.to_string(), stage);
        Line { attempts: self.attempts, status: self.status, ..line }
    }

    /// Another attempt, which is no fault of the call's.
    pub async fn later(&self, pause: Duration) {
        self.ticket.tell(&self.lane.worker.broker, AckKind::Nak(Some(pause))).await;
    }

    /// Another attempt.
    pub async fn again(&self, pause: Duration) {
        let next = now().saturating_add(u64::try_from(pause.as_millis()).unwrap_or(u64::MAX));
        self.lane.worker.statistics.retried(&self.lane.route);
        self.write(Line { next: Some(next), ..self.line(Stage::Retrying) }).await;
        self.later(pause).await;
    }

    /// It is over, and its answer delivered, unless a note says otherwise.
    pub async fn done(&self, note: Option<String>) {
        let line = self.line(Stage::Done);
        self.lane.worker.statistics.done(&self.lane.route);
        let line = match note {
            Some(note) => line.because(&note),
            None => line,
        };
        self.write(line).await;
        self.end().await;
    }

    /// It had its end before, and only NATS had not heard of it.
    pub async fn forget(&self, line: &Line) {
        tracing::debug!("call {} is {} already", self.call.id, line.stage);
        match line.stage {
            // Its body stays with the letter.
            Stage::Dead => self.ticket.tell(&self.lane.worker.broker, AckKind::Ack).await,
            _ => self.end().await,
        }
    }

    /// Why it is given up after its last attempt.
    pub fn reason(&self) -> String {
        let status = self.status.map_or_else(|| "no answer".to_owned(), |status| format!("status {status}"));
        format!("{status} after {} attempts", self.attempts)
    }

    /// It becomes a dead letter.
    pub async fn give_up(&self, reason: &str) {
        tracing::warn!("a call of {} is given up: {reason} (call {})", self.lane.route.key, self.call.id);
        let letter = match bury(self.lane, self.ticket, reason, (self.status, self.attempts)).await {
            Ok(Some(letter)) => letter,
            // Somebody cancelled it a moment ago, or another worker has brought it to its end.
            Ok(None) => return self.ticket.tell(&self.lane.worker.broker, AckKind::Ack).await,
            Err(error) => {
                tracing::error!("a dead letter cannot be kept, its call stays in the queue: {error}");
                // How often it was made is: it is not made again for that.
                let next = now().saturating_add(KEPT_LATER.as_secs() * 1000);
                self.write(Line { next: Some(next), ..self.line(Stage::Retrying) }).await;
                return self.later(KEPT_LATER).await;
            }
        };
        self.lane.worker.statistics.dead(&self.lane.route);
        self.write(Line { letter: Some(letter), ..self.line(Stage::Dead).because(reason) }).await;
        // Its body stays with the letter.
        self.ticket.tell(&self.lane.worker.broker, AckKind::Ack).await;
    }

    async fn end(&self) {
        let worker = &self.lane.worker;
        self.ticket.tell(&worker.broker, AckKind::Ack).await;
        if let Some(stored) = &self.call.stored
            && let Ok(bodies) = worker.broker.bodies().await
        {
            // In this order to the disk, too, or nearly: a body without a call is swept away, a call without its body is lost.
            let _ = worker.broker.client.flush().await;
            bodies.remove(stored).await;
        }
    }

    /// Writes a line, again and again for a while.
    async fn write(&self, line: Line) {
        let end = Instant::now() + LEDGER;
        // What was cancelled has its line.
        while self.ticket.is_wanted()
            && let Err(error) = self.lane.worker.book.write(line.clone()).await
        {
            if Instant::now() > end {
                tracing::error!("call {}: nothing is written about its end: {error}", self.call.id);
                return;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

impl Inner {
    /// A message that is no call becomes a dead letter all the same: nothing vanishes.
    pub async fn bury_unread(&self, fetched: &Fetched, reason: &str) {
        tracing::error!("a message for {} is given up: {reason}", self.route.key);
        let kind = match bury(self, &fetched.ticket, reason, (None, 0)).await {
            Ok(_) => AckKind::Ack,
            Err(_) => AckKind::Nak(Some(KEPT_LATER)),
        };
        fetched.ticket.tell(&self.worker.broker, kind).await;
    }
}

/// Keeps a call's message as a dead letter, and gives its number; nothing where the message is gone.
async fn bury(
    lane: &Inner,
    ticket: &Ticket,
    reason: &str,
    (status, attempts): (Option<u16>, u32),
) -> Result<Option<u64>, String> {
    let (broker, place) = (&lane.worker.broker, ticket.place());
    broker.prepared().await?;
    // It is not held while the call runs.
    let Some(message) = broker.message(&stream(&place.queue), place.sequence).await? else { return Ok(None) };
    let letter = Letter { reason: reason.to_owned(), status, attempts, at: now(), sequence: place.sequence };
    let number = broker.publish(lane.route.dead(), letter.encode(&message.payload)).await?;
    Ok(Some(number))
}

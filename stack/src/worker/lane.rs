//! One function's calls in one queue: fetched, and begun as soon as there is a place for them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::consumer::pull::{Batch, Config};
use async_nats::jetstream::consumer::{AckPolicy, Consumer};
use async_nats::jetstream::{AckKind, Message};
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, sleep_until};

use super::Worker;
use super::attempt::attempt;
use super::pace::Pace;
use super::places::{Share, Taken};
use super::roll::Ticket;
use crate::queue::{LARGEST_MESSAGE_BYTES, Place, Route, stream};

/// The first messages that a lane asks for, and their bytes: they need no leave. One fits in any case, with what NATS adds.
const FIRST: usize = 8;
const FIRST_BYTES: usize = LARGEST_MESSAGE_BYTES + (16 << 10);
/// Bytes of a larger batch.
const BATCH_BYTES: usize = 1 << 20;

/// How long NATS is asked for messages before a lane that has nothing ends.
const EXPIRES: Duration = Duration::from_secs(5);
/// A consumer that nobody asks is removed by NATS after so long.
const INACTIVE: Duration = Duration::from_secs(3600);
/// Pause after something failed.
const PAUSE: Duration = Duration::from_secs(1);

/// A function's lane.
pub struct Lane(Arc<Inner>);

/// What its calls know of it.
pub struct Inner {
    pub worker: Arc<Worker>,
    pub route: Route,
    pub share: Share,
    pub pace: Pace,
}

/// A call that was fetched.
pub struct Fetched {
    pub ticket: Ticket,
    pub message: Bytes,
    /// How often NATS has delivered it, this time included.
    pub delivered: u64,
    /// Leave for the batch that it came in.
    _leave: Option<Arc<OwnedSemaphorePermit>>,
}

/// A batch on its way.
struct Coming {
    batch: Batch,
    leave: Option<Arc<OwnedSemaphorePermit>>,
    asked: usize,
    came: usize,
}

impl Lane {
    /// A lane that does nothing yet.
    pub fn new(worker: Arc<Worker>, route: Route, share: Share) -> Self {
        Self(Arc::new(Inner { worker, route, share, pace: Pace::default() }))
    }

    /// Works until there is nothing to do.
    pub async fn run(&self) {
        let worker = &self.0.worker;
        loop {
            let consumer = tokio::select! {
                consumer = self.consumer() => consumer,
                () = worker.ending.cancelled() => return,
            };
            let served = match consumer {
                Ok(consumer) => self.serve(&consumer).await,
                Err(error) => Err(error),
            };
            match served {
                Ok(()) => return,
                Err(error) => tracing::debug!("{} in {}: {error}", self.0.route.key, self.0.route.queue),
            }
            // Where the queue itself is gone there is nothing to wait for: a lane is opened again when it comes back.
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => {}
                () = worker.ending.cancelled() => return,
            }
            if worker.broker.is_connected() && !self.exists().await {
                return;
            }
        }
    }

    /// Whether its queue is there.
    async fn exists(&self) -> bool {
        let queues = self.0.worker.broker.queues().await;
        queues.map_or(true, |queues| queues.contains(&self.0.route.queue))
    }

    /// The consumer that all workers share, as it should be.
    async fn consumer(&self) -> Result<Consumer<Config>, String> {
        let Inner { worker, route, .. } = &*self.0;
        let stream = worker.broker.stream(&stream(&route.queue)).await?;
        let name = route.consumer();
        let config = Config {
            durable_name: Some(name),
            filter_subject: route.subject(),
            ack_policy: AckPolicy::Explicit,
            ack_wait: worker.settings.queue.ack_wait,
            // How often is the policy's business; each is in our ledger.
            max_deliver: -1,
            max_ack_pending: -1,
            inactive_threshold: INACTIVE,
            ..Config::default()
        };
        // An existing one is given these settings.
        stream.create_consumer(config).await.map_err(|error| error.to_string())
    }

    /// Sees to it that a consumer that has passed by a call which is still there is made anew. A power cut can keep that a call
    /// was acknowledged and lose that it was removed: nobody would ever remove it.
    async fn pass_again(&self, consumer: &Consumer<Config>) -> Result<(), String> {
        let Inner { worker, route, .. } = &*self.0;
        let Some(passed) = self.passed(consumer).await? else { return Ok(()) };
        // What was acknowledged a moment ago may be about to go.
        tokio::time::sleep(PAUSE).await;
        if self.passed(consumer).await? != Some(passed) {
            return Ok(());
        }
        tracing::warn!("{} in {}: call number {passed} was passed by", route.key, route.queue);
        let stream = worker.broker.stream(&stream(&route.queue)).await?;
        stream.delete_consumer(&route.consumer()).await.map_err(|error| error.to_string())?;
        // The next lane makes it, and what has its line in the ledger is not made again.
        Ok(())
    }

    /// The first call that is there, if the consumer has nothing to do with it any more.
    async fn passed(&self, consumer: &Consumer<Config>) -> Result<Option<u64>, String> {
        let Inner { worker, route, .. } = &*self.0;
        let first = worker.broker.next(&stream(&route.queue), 1, &route.subject()).await?;
        let Some(first) = first.map(|message| message.sequence) else { return Ok(None) };
        let info = consumer.get_info().await.map_err(|error| error.to_string())?;
        let acknowledged = first <= info.ack_floor.stream_sequence;
        let delivered = first <= info.delivered.stream_sequence && info.num_ack_pending == 0;
        Ok(Some(first).filter(|_| acknowledged || delivered))
    }

    /// Fetches and begins calls. Ends well when there are none, and are none running.
    async fn serve(&self, consumer: &Consumer<Config>) -> Result<(), String> {
        let Inner { worker, share, pace, .. } = &*self.0;
        let (mut waiting, mut coming, mut quiet) = (VecDeque::<Fetched>::new(), None, true);
        // Not asked before that moment.
        let mut next_ask = Instant::now();
        loop {
            let most = share.most();
            let wanted = if quiet { FIRST } else { pace.ahead(most).max(FIRST) };
            let hungry = coming.is_none() && waiting.len() <= wanted / 2;
            if hungry && Instant::now() >= next_ask {
                coming = Some(self.ask(consumer, wanted - waiting.len(), quiet).await?);
            }
            let hungry = hungry && coming.is_none();
            tokio::select! {
                biased;
                () = worker.ending.cancelled() => {
                    for fetched in waiting {
                        fetched.ticket.tell(&worker.broker, AckKind::Nak(None)).await;
                    }
                    return Ok(());
                }
                taken = share.enter(), if !waiting.is_empty() => {
                    if let Some(fetched) = waiting.pop_front() {
                        self.begin(fetched, taken);
                    }
                }
                () = sleep_until(next_ask), if hungry => {}
                message = next(&mut coming) => match message {
                    Some(Ok(message)) => {
                        quiet = false;
                        waiting.extend(self.fetched(message, coming.as_ref()));
                    }
                    ended => {
                        let (asked, came) = coming.take().map_or((0, 0), |coming| (coming.asked, coming.came));
                        match ended {
                            // It was as large as it may be: that is no failure.
                            Some(Err(error)) if came == 0 && waiting.is_empty() => {
                                return Err(error.to_string());
                            }
                            // Nothing came, and nobody knows why: not at once again.
                            Some(_) if came == 0 => next_ask = Instant::now() + PAUSE,
                            Some(_) => {}
                            None => quiet = came < asked,
                        }
                        if quiet && came == 0 && waiting.is_empty() && share.running() == 0 {
                            return self.pass_again(consumer).await;
                        }
                    }
                },
            }
        }
    }

    /// Asks for messages. Larger batches need leave: what is held has a bound, whatever the number of functions.
    async fn ask(&self, consumer: &Consumer<Config>, wanted: usize, quiet: bool) -> Result<Coming, String> {
        let leave = match quiet {
            true => None,
            false => self.0.worker.batches.clone().try_acquire_owned().ok().map(Arc::new),
        };
        let (messages, bytes) = match &leave {
            Some(_) => (wanted, BATCH_BYTES),
            None => (wanted.min(FIRST), FIRST_BYTES),
        };
        let asked = consumer.batch().max_messages(messages.max(1)).max_bytes(bytes).expires(EXPIRES);
        let batch = asked.messages().await.map_err(|error| error.to_string())?;
        Ok(Coming { batch, leave, asked: messages.max(1), came: 0 })
    }

    /// A call, unless it is here already.
    fn fetched(&self, message: Message, coming: Option<&Coming>) -> Option<Fetched> {
        let info = message.info().ok()?;
        let place = Place { queue: self.0.route.queue.clone(), sequence: info.stream_sequence };
        let delivered = u64::try_from(info.delivered).unwrap_or(u64::MAX);
        let ticket = self.0.worker.roll.enter(place, &message.payload, message.reply.clone()?)?;
        let leave = coming.and_then(|coming| coming.leave.clone());
        Some(Fetched { ticket, message: message.message.payload, delivered, _leave: leave })
    }

    fn begin(&self, fetched: Fetched, taken: Taken) {
        if !fetched.ticket.is_wanted() {
            return;
        }
        let (lane, worker) = (self.0.clone(), &self.0.worker);
        let (roll, place) = (worker.roll.clone(), fetched.ticket.place().clone());
        let task = worker.tasks.spawn(async move {
            attempt(&lane, fetched).await;
            drop(taken);
        });
        roll.start(&place, task.abort_handle());
    }
}

/// The next message of a batch on its way; nothing at its end. Waits for ever where none is.
async fn next(coming: &mut Option<Coming>) -> Option<Result<Message, async_nats::Error>> {
    let Some(coming) = coming else { return std::future::pending().await };
    let message = coming.batch.next().await;
    if matches!(message, Some(Ok(_))) {
        coming.came += 1;
    }
    message
}

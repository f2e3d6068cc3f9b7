//! Where the last line about a call is: a number for each call, and no text. It is made by following the ledger, and what
//! it says is only where to look: the line itself is read from there.

use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use futures_util::StreamExt;
use tokio::sync::watch;

use super::broker::Broker;
use super::ledger::{Line, Place, Stage, lines};
use super::subject::LEDGER;

/// Calls at most that are known; about 20 bytes each. The older half is forgotten when there are more.
const MOST: usize = 1 << 17;

/// Messages that are asked for at a time.
const BATCH: usize = 64;

/// How long one waits for a message before it is looked whether the stream is what it was.
const LOOK: Duration = Duration::from_secs(5);

/// Pause after something failed.
const PAUSE: Duration = Duration::from_secs(1);

/// What calls are known by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// Their identifier, too: for people. All lines count. That a call came may be written after what came of it: NATS gives it
    /// to a worker before the gateway writes, so what came of it is known by its place as well.
    Id,
    /// Their place in the queue: for a worker that meets a call again. Lines that say no more than that it came do not.
    Place,
}

/// Keys are hashes already.
#[derive(Default)]
struct Same(u64);

impl Hasher for Same {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {}

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}

type Map = HashMap<u64, u64, BuildHasherDefault<Same>>;

/// The index.
#[derive(Debug)]
pub struct Index {
    which: Which,
    /// Nobody outside chooses who falls together with whom.
    seed: RandomState,
    state: Mutex<State>,
    /// Whether all was read that there was when it began.
    caught_up: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct State {
    /// By the hash of what a call is known by: the ledger's sequence of the last line about it.
    map: Map,
    /// The ledger's sequence that was read last.
    read: u64,
}

impl Index {
    /// An empty one.
    pub fn new(which: Which) -> Arc<Self> {
        Arc::new(Self {
            which,
            seed: RandomState::new(),
            state: Mutex::default(),
            caught_up: watch::Sender::new(false),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of lines that are in that message of the ledger.
    pub fn note<'a>(&self, sequence: u64, lines: impl Iterator<Item = &'a Line>) {
        let mut state = self.state();
        for line in lines {
            if self.which == Which::Id {
                let last = state.map.entry(self.seed.hash_one(line.id.as_str())).or_default();
                *last = sequence.max(*last);
            }
            if line.stage != Stage::Queued {
                let place = (line.queue.as_str(), line.sequence);
                let last = state.map.entry(self.seed.hash_one(place)).or_default();
                *last = sequence.max(*last);
            }
        }
        if state.map.len() > MOST {
            state.forget();
        }
    }

    /// Whether there may be a line about the call at that place.
    pub fn may_know(&self, place: &Place) -> bool {
        let hash = self.seed.hash_one((place.queue.as_str(), place.sequence));
        self.state().map.contains_key(&hash)
    }

    /// The last line about a call of that identifier.
    ///
    /// # Errors
    /// The stream cannot be read.
    pub async fn by_id(&self, broker: &Broker, id: &str) -> Result<Option<Line>, String> {
        let hash = self.seed.hash_one(id);
        self.last(broker, hash, |line| line.id == id).await
    }

    /// The last line about the call of that number at that place. Of another one it may be: a power cut can take calls that
    /// were not accepted yet and leave what was written about them, and their places are given again.
    ///
    /// # Errors
    /// The stream cannot be read.
    pub async fn by_place(&self, broker: &Broker, place: &Place, nonce: u64) -> Result<Option<Line>, String> {
        let hash = self.seed.hash_one((place.queue.as_str(), place.sequence));
        let is_it = |line: &Line| {
            line.nonce == nonce && line.sequence == place.sequence && line.queue == place.queue.as_str()
        };
        self.last(broker, hash, is_it).await
    }

    /// Since when the ledger tells, milliseconds since 1970; nothing where it is empty.
    ///
    /// # Errors
    /// The stream cannot be read.
    pub async fn begins(&self, broker: &Broker) -> Result<Option<u64>, String> {
        let stream = broker.jetstream.get_stream(LEDGER).await.map_err(|error| error.to_string())?;
        let state = &stream.cached_info().state;
        let seconds = u64::try_from(state.first_timestamp.unix_timestamp()).unwrap_or(0);
        Ok(Some(seconds * 1000).filter(|_| state.messages > 0 && state.first_sequence > 1))
    }

    async fn last(
        &self,
        broker: &Broker,
        hash: u64,
        is_it: impl Fn(&Line) -> bool,
    ) -> Result<Option<Line>, String> {
        let Some(sequence) = self.state().map.get(&hash).copied() else { return Ok(None) };
        let message = broker.message(LEDGER, sequence).await?;
        Ok(message.and_then(|message| lines(&message.payload).filter(|line| is_it(line)).last()))
    }

    /// Returns when it knows all that there was when it began to follow.
    pub async fn caught_up(&self) {
        let _ = self.caught_up.subscribe().wait_for(|caught_up| *caught_up).await;
    }

    /// Whether it knows all of that.
    pub fn is_caught_up(&self) -> bool {
        *self.caught_up.borrow()
    }

    /// Follows the ledger for ever.
    pub async fn follow(self: Arc<Self>, broker: Broker) {
        loop {
            if let Err(error) = self.read_on(&broker).await {
                tracing::debug!("the calls' ledger: {error}");
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Reads on from where it was; returns when the stream is not what it was.
    async fn read_on(&self, broker: &Broker) -> Result<(), async_nats::Error> {
        broker.prepared().await?;
        let stream = broker.jetstream.get_stream(LEDGER).await?;
        let last = stream.cached_info().state.last_sequence;
        let read = {
            let mut state = self.state();
            // A power cut may take the stream's end, or somebody the stream: numbers are given again then.
            if state.read > last {
                *state = State::default();
            }
            // There is nothing to be read.
            if stream.cached_info().state.messages == 0 {
                state.read = last;
            }
            state.read
        };
        let config = pull::Config {
            deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: read + 1 },
            ack_policy: AckPolicy::None,
            inactive_threshold: LOOK * 12,
            memory_storage: true,
            num_replicas: 1,
            ..pull::Config::default()
        };
        let consumer = stream.create_consumer(config).await?;
        let mut delivered = 0;
        self.caught_up.send_replace(read >= last);
        loop {
            let mut batch = consumer.batch().max_messages(BATCH).expires(LOOK).messages().await?;
            let mut came = 0;
            while let Some(message) = batch.next().await {
                let message = message?;
                let info = message.info()?;
                let sequence = info.stream_sequence;
                delivered += 1;
                // Some were lost on the way: they are asked for again.
                if info.consumer_sequence != delivered {
                    tracing::debug!(
                        "the calls' ledger: {} came where {delivered} was next",
                        info.consumer_sequence
                    );
                    return Ok(());
                }
                let found: Vec<Line> = lines(&message.payload).collect();
                self.note(sequence, found.iter());
                let mut state = self.state();
                if sequence <= state.read && state.read > 0 {
                    return Ok(());
                }
                state.read = sequence;
                if sequence >= last {
                    self.caught_up.send_replace(true);
                }
                came += 1;
            }
            if came == 0 && stream.get_info().await?.state.last_sequence != self.state().read {
                return Ok(());
            }
        }
    }
}

impl State {
    /// Forgets the older half, by the places of their last lines.
    fn forget(&mut self) {
        let mut places: Vec<u64> = self.map.values().copied().collect();
        let half = places.len() / 2;
        let (_, middle, _) = places.select_nth_unstable(half);
        let middle = *middle;
        self.map.retain(|_, place| *place > middle);
        self.map.shrink_to(MOST / 2);
    }
}

#[cfg(test)]
mod tests {
    use super::super::ledger::tests::line;
    use super::*;

    fn place(index: &Index, line: &Line) -> Option<u64> {
        let hash = match index.which {
            Which::Id => index.seed.hash_one(line.id.as_str()),
            Which::Place => index.seed.hash_one((line.queue.as_str(), line.sequence)),
        };
        index.state().map.get(&hash).copied()
    }

    #[test]
    fn the_last_line_counts_whoever_tells_of_it_first() {
        let index = Index::new(Which::Id);
        let (queued, done) = (line("a", 1, Stage::Queued), line("a", 1, Stage::Done));
        index.note(7, [&done].into_iter());
        index.note(3, [&queued].into_iter());
        assert_eq!(place(&index, &queued), Some(7));
        assert_eq!(place(&index, &line("b", 1, Stage::Done)), None);
    }

    #[test]
    fn what_came_of_a_call_is_found_though_it_was_written_before_the_call() {
        let index = Index::new(Which::Id);
        let (done, queued) = (line("a", 1, Stage::Done), line("a", 1, Stage::Queued));
        index.note(1, [&done].into_iter());
        index.note(2, [&queued].into_iter());
        assert_eq!(place(&index, &queued), Some(2));
        let hash = index.seed.hash_one((done.queue.as_str(), done.sequence));
        assert_eq!(index.state().map.get(&hash), Some(&1));
    }

    #[test]
    fn a_worker_knows_what_happened_and_not_what_came() {
        let index = Index::new(Which::Place);
        let (queued, retrying) = (line("a", 1, Stage::Queued), line("a", 2, Stage::Retrying));
        index.note(1, [&queued, &retrying].into_iter());
        assert_eq!((place(&index, &queued), place(&index, &retrying)), (None, Some(1)));
    }

    #[test]
    fn the_older_half_is_forgotten() {
        let index = Index::new(Which::Id);
        for number in 0..=MOST as u64 {
            index.note(number + 1, [&line(&number.to_string(), number, Stage::Queued)].into_iter());
        }
        assert!(index.state().map.len() <= MOST / 2 + 1);
        assert_eq!(place(&index, &line("0", 0, Stage::Queued)), None);
        let last = line(&MOST.to_string(), MOST as u64, Stage::Queued);
        assert_eq!(place(&index, &last), Some(MOST as u64 + 1));
    }
}

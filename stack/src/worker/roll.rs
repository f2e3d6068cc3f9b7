//! The calls that the worker has, running or about to: for each of them NATS is told that it is being worked on, and each is
//! there once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_nats::Subject;
use async_nats::jetstream::AckKind;
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::task::AbortHandle;

use super::Worker;
use crate::queue::{Broker, CANCEL, Place, RUNNING, Wish};

/// NATS is told so often that we are at a call, within the time after which it would give it to somebody else.
const PART: u32 = 3;

/// Pause after NATS did not let us listen.
const PAUSE: Duration = Duration::from_secs(1);

/// The calls. Clones are of the same roll.
#[derive(Clone, Default)]
pub struct Roll(Arc<Mutex<HashMap<Place, Held>>>);

/// Bytes of a message that tell one call from another: its own number is among the first.
const MARK: usize = 64;

struct Held {
    /// How its message begins.
    mark: Bytes,
    /// Where NATS is told of it: another subject each time that it is delivered.
    reply: Subject,
    running: Option<AbortHandle>,
}

/// A call that is on the roll, until this is dropped.
pub struct Ticket {
    roll: Roll,
    place: Place,
    mark: Bytes,
}

impl Roll {
    fn calls(&self) -> MutexGuard<'_, HashMap<Place, Held>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A call comes. One that is here already stays the one that it is, and answers to its new subject; another one that had
    /// its place is gone from the queue.
    pub fn enter(&self, place: Place, message: &Bytes, reply: Subject) -> Option<Ticket> {
        let mut calls = self.calls();
        let mark = message.slice(..message.len().min(MARK));
        match calls.get_mut(&place) {
            Some(held) if held.mark == mark => {
                held.reply = reply;
                return None;
            }
            Some(Held { running: Some(task), .. }) => task.abort(),
            _ => {}
        }
        // A copy: the rest of the message must not stay for it.
        let mark = Bytes::copy_from_slice(&mark);
        calls.insert(place.clone(), Held { mark: mark.clone(), reply, running: None });
        Some(Ticket { roll: self.clone(), place, mark })
    }

    /// A task makes it. One that nobody wants any more ends.
    pub fn start(&self, place: &Place, task: AbortHandle) {
        match self.calls().get_mut(place) {
            Some(held) => held.running = Some(task),
            // It has ended already, or was cancelled a moment ago.
            None => task.abort(),
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.calls().len()
    }

    /// How many of them run.
    pub fn running(&self) -> usize {
        self.calls().values().filter(|held| held.running.is_some()).count()
    }

    fn is_running(&self, place: &Place) -> bool {
        self.calls().get(place).is_some_and(|held| held.running.is_some())
    }

    /// Somebody does not want it any more.
    fn cancel(&self, place: &Place) {
        if let Some(Held { running: Some(task), .. }) = self.calls().remove(place) {
            task.abort();
        }
    }

    fn replies(&self) -> Vec<Subject> {
        self.calls().values().map(|held| held.reply.clone()).collect()
    }

    /// Lets others have them at once.
    pub async fn give_back(&self, broker: &Broker) {
        for reply in self.replies() {
            let _ = broker.client.publish(reply, AckKind::Nak(None).into()).await;
        }
    }
}

impl Ticket {
    /// Which call it is.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Whether nobody has cancelled it.
    pub fn is_wanted(&self) -> bool {
        self.roll.calls().get(&self.place).is_some_and(|held| held.mark == self.mark)
    }

    /// Tells NATS what becomes of it. What does not arrive is asked for again.
    pub async fn tell(&self, broker: &Broker, kind: AckKind) {
        let held = |held: &Held| (held.mark == self.mark).then(|| held.reply.clone());
        let reply = self.roll.calls().get(&self.place).and_then(held);
        if let Some(reply) = reply {
            let _ = broker.client.publish(reply, kind.into()).await;
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut calls = self.roll.calls();
        if calls.get(&self.place).is_some_and(|held| held.mark == self.mark) {
            calls.remove(&self.place);
        }
    }
}

/// Tells NATS of all of them again and again.
pub async fn keep(worker: Arc<Worker>) {
    let pause = worker.settings.queue.ack_wait / PART;
    loop {
        tokio::time::sleep(pause).await;
        for reply in worker.roll.replies() {
            let _ = worker.broker.client.publish(reply, AckKind::Progress.into()).await;
        }
    }
}

/// Says which calls run here, and ends those that nobody wants any more.
pub async fn answer(worker: Arc<Worker>) {
    let client = &worker.broker.client;
    loop {
        let (running, cancel) = match tokio::try_join!(client.subscribe(RUNNING), client.subscribe(CANCEL)) {
            Ok(subscribed) => subscribed,
            Err(error) => {
                tracing::debug!("listening to the gateway: {error}");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let mut messages = futures_util::stream::select(running, cancel);
        while let Some(message) = messages.next().await {
            let Some(place) = Wish::decode(&message.payload) else { continue };
            match message.reply {
                Some(reply) if worker.roll.is_running(&place) => {
                    let _ = client.publish(reply, "running".into()).await;
                }
                Some(_) => {}
                None => worker.roll.cancel(&place),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINE: Bytes = Bytes::from_static(b"mine");

    #[tokio::test]
    async fn another_call_in_the_same_place_is_another_call() {
        let roll = Roll::default();
        let old = roll.enter(place(1), &MINE, "old".into()).unwrap();
        let task = tokio::spawn(std::future::pending::<()>());
        roll.start(old.place(), task.abort_handle());
        let new = roll.enter(place(1), &Bytes::from_static(b"another"), "new".into()).unwrap();
        assert!(task.await.unwrap_err().is_cancelled());
        assert!(!old.is_wanted() && new.is_wanted());
        drop(old);
        assert_eq!(roll.replies(), ["new".into()]);
    }

    fn place(sequence: u64) -> Place {
        Place { queue: Default::default(), sequence }
    }

    #[tokio::test]
    async fn a_call_that_is_delivered_again_is_here_once() {
        let roll = Roll::default();
        let ticket = roll.enter(place(1), &MINE, "first".into()).unwrap();
        assert!(roll.enter(place(1), &MINE, "second".into()).is_none());
        assert_eq!(roll.replies(), ["second".into()]);
        drop(ticket);
        assert!(roll.enter(place(1), &MINE, "third".into()).is_some());
        assert_eq!(roll.len(), 0);
    }

    #[tokio::test]
    async fn a_cancelled_call_ends_or_does_not_begin() {
        let roll = Roll::default();
        let (runs, waits) = (
            roll.enter(place(1), &MINE, "a".into()).unwrap(),
            roll.enter(place(2), &MINE, "b".into()).unwrap(),
        );
        let task = tokio::spawn(std::future::pending::<()>());
        roll.start(runs.place(), task.abort_handle());
        assert!(roll.is_running(&place(1)) && !roll.is_running(&place(2)));
        roll.cancel(&place(1));
        assert!(task.await.unwrap_err().is_cancelled());
        roll.cancel(&place(2));
        assert!(!waits.is_wanted());
        let task = tokio::spawn(std::future::pending::<()>());
        roll.start(waits.place(), task.abort_handle());
        assert!(task.await.unwrap_err().is_cancelled());
    }
}

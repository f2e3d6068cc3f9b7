//! A function as the gateway sees it: what it should be, whether it answers, and where.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, watch};

use super::command::Command;
use super::counts::Counts;
use super::endpoint::{Endpoint, Running, Silence};
use super::knock::knock;
use super::pool::Pool;
use crate::desired::Document;
use crate::key::Key;

/// Calls that may wait for one function: what is asleep must not take all places for connections from the others.
const WAITING: usize = 256;

/// Whether a function answers.
#[derive(Debug, Clone)]
pub enum State {
    /// It should not run, or is not looked at yet and may not exist.
    Idle,
    /// It will answer soon.
    Starting,
    /// It answers there; never empty.
    Ready(Arc<Pool>),
    /// It could not be started and is tried again later.
    Failed(String),
}

/// What comes of a call that wants to be let in.
#[derive(Debug)]
pub enum Entry {
    /// An instance has it.
    Inside(Running),
    /// Too many wait already.
    Crowded,
    /// There is no way, or none in time.
    Closed,
}

impl From<Option<Running>> for Entry {
    fn from(running: Option<Running>) -> Self {
        running.map_or(Self::Closed, Self::Inside)
    }
}

/// One function.
pub struct Function {
    /// Its name.
    pub key: Key,
    /// Calls since we run.
    pub calls: AtomicU64,
    /// What else is counted of it.
    pub counts: Counts,
    document: Mutex<Option<Arc<Document>>>,
    state: watch::Sender<State>,
    attempted: watch::Sender<bool>,
    /// Places for calls that wait.
    places: Semaphore,
    /// Somebody has asked for a look that has not begun.
    asked: AtomicBool,
    pub(super) mailbox: mpsc::UnboundedSender<Command>,
}

impl Function {
    /// One of that name. Its actor, where it has one, hears what is sent to the mailbox.
    pub(super) fn new(key: Key, document: Option<Document>, mailbox: mpsc::UnboundedSender<Command>) -> Self {
        let wanted = document.as_ref().is_some_and(Document::wants_instance);
        Self {
            key,
            calls: AtomicU64::new(0),
            counts: Counts::default(),
            document: Mutex::new(document.map(Arc::new)),
            state: watch::Sender::new(if wanted { State::Starting } else { State::Idle }),
            attempted: watch::Sender::new(false),
            places: Semaphore::new(WAITING),
            asked: AtomicBool::new(false),
            mailbox,
        }
    }

    /// What it should be; nothing when it is being made or was deleted.
    pub fn document(&self) -> Option<Arc<Document>> {
        let document = self.document.lock().unwrap_or_else(PoisonError::into_inner).clone();
        document.filter(|document| !document.deleted)
    }

    /// Its state now.
    pub fn state(&self) -> State {
        self.state.borrow().clone()
    }

    /// Lets a call in as soon as there is a way. While it waits it takes one of the function's places, and one of those that
    /// all functions have.
    pub async fn enter(&self, patience: Duration, all: &Semaphore) -> Entry {
        // Most calls need not wait. Counted in while the state cannot change: whoever closes the way waits for this call too.
        if let State::Ready(pool) = &*self.state.borrow() {
            return pool.enter().into();
        }
        let (Ok(_own), Ok(_common)) = (self.places.try_acquire(), all.try_acquire()) else {
            return Entry::Crowded;
        };
        let mut state = self.state.subscribe();
        let settled = state.wait_for(|state| !matches!(state, State::Starting));
        match tokio::time::timeout(patience, settled).await {
            Ok(Ok(state)) => match &*state {
                State::Ready(pool) => pool.enter().into(),
                _ => Entry::Closed,
            },
            _ => Entry::Closed,
        }
    }

    /// How many calls wait.
    pub fn waiting(&self) -> usize {
        WAITING.saturating_sub(self.places.available_permits())
    }

    /// For how long nobody has called it; nothing while somebody does, or it is being started.
    pub fn idle(&self) -> Option<Duration> {
        let starts = matches!(*self.state.borrow(), State::Starting);
        self.counts.idle().filter(|_| !starts)
    }

    /// Lets it rest, if nobody has called it for so long.
    pub fn rest_after(&self, idle: Duration) {
        let _ = self.mailbox.send(Command::Rest { idle });
    }

    /// Lets so many instances run as its load asks for, unless their number is no longer that of before.
    pub fn fit(&self, before: u64, replicas: u64) {
        let _ = self.mailbox.send(Command::Fit { before, replicas });
    }

    /// An instance took no connection: the calls wait, or go to others, until it does or its end is known.
    pub fn refused(self: &Arc<Self>, endpoint: &Arc<Endpoint>) {
        // Only the first one knocks.
        if self.pause(endpoint, Silence::Deaf) {
            tokio::spawn(knock(self.clone(), endpoint.clone()));
        }
        self.look_again();
    }

    fn look_again(&self) {
        // A thousand calls that fail at once are one reason to look.
        if !self.asked.swap(true, Ordering::AcqRel) {
            let _ = self.mailbox.send(Command::Look);
        }
    }

    /// The actor is about to look: whatever happens from now on is a reason to look again.
    pub(super) fn looking(&self) {
        self.asked.store(false, Ordering::Release);
    }

    /// Asks for an instance of a function that was scaled to none.
    pub fn wake(&self) {
        let first = self.state.send_if_modified(|state| {
            let idle = matches!(state, State::Idle);
            if idle {
                *state = State::Starting;
            }
            idle
        });
        // The other calls wait for what the first one asked for.
        if first {
            let _ = self.mailbox.send(Command::Wake);
        }
    }

    /// How many of its instances answer.
    pub fn available(&self) -> usize {
        match &*self.state.borrow() {
            State::Ready(pool) => pool.len(),
            _ => 0,
        }
    }

    /// Nobody is let into an instance any more: its process has ended, or is to. Calls wait where it was the last one,
    /// whatever the actor is busy with.
    pub(super) fn left(&self, endpoint: &Arc<Endpoint>) {
        self.without(endpoint, None);
    }

    /// Nobody is let into an instance until that reason is gone. Gives whether it is a new one.
    pub(super) fn pause(&self, endpoint: &Arc<Endpoint>, reason: Silence) -> bool {
        self.without(endpoint, Some(reason))
    }

    fn without(&self, endpoint: &Arc<Endpoint>, reason: Option<Silence>) -> bool {
        let mut new = false;
        self.state.send_if_modified(|state| {
            // While the state cannot change: who would let it in again sees it.
            match reason {
                Some(reason) => new = endpoint.silence(reason),
                None => endpoint.close(),
            }
            let State::Ready(pool) = state else { return false };
            let Some(others) = pool.without(endpoint) else { return false };
            *state = if others.is_empty() { State::Starting } else { State::Ready(Arc::new(others)) };
            true
        });
        new
    }

    /// A reason to let nobody into an instance is gone. Where that was the last one, calls are let in again, unless it was
    /// left for good or the function rests meanwhile.
    pub(super) fn resume(&self, endpoint: Arc<Endpoint>, reason: Silence) {
        self.with(endpoint, |state, endpoint| endpoint.speak(reason) && !matches!(state, State::Idle));
    }

    /// An instance that somebody wanted a moment ago is ready.
    pub(super) fn arrived(&self, endpoint: Arc<Endpoint>) {
        self.with(endpoint, |state, _| !matches!(state, State::Idle));
    }

    /// Calls are let into one more instance, unless it was left for good.
    pub(super) fn let_in(&self, endpoint: Arc<Endpoint>) {
        self.with(endpoint, |_, endpoint| {
            endpoint.speak_freely();
            true
        });
    }

    fn with(&self, endpoint: Arc<Endpoint>, may: impl FnOnce(&State, &Endpoint) -> bool) {
        self.state.send_if_modified(|state| {
            // Asked for in any case: it may take note of something.
            let open = may(state, &endpoint) && !endpoint.is_closed();
            let pool = match state {
                State::Ready(pool) if pool.has(&endpoint) => return false,
                State::Ready(pool) => pool.with(endpoint.clone()),
                _ => Pool::new(vec![endpoint.clone()]),
            };
            if open {
                tracing::info!("{} is ready at {}", self.key, endpoint.address);
                // What took minutes to start is not taken away before it was of use.
                self.counts.touch();
                *state = State::Ready(Arc::new(pool));
            }
            open
        });
    }

    /// Calls go to these from now on, and to no other.
    pub(super) fn switch(&self, endpoints: Vec<Arc<Endpoint>>) {
        for endpoint in &endpoints {
            tracing::info!("{} is ready at {}", self.key, endpoint.address);
        }
        self.state.send_replace(State::Ready(Arc::new(Pool::new(endpoints))));
    }

    /// Returns when the first look at it is over, well or not.
    pub(super) async fn first_attempt(&self) {
        let _ = self.attempted.subscribe().wait_for(|attempted| *attempted).await;
    }

    /// Returns when the calls that waited for it have their answers.
    pub(super) async fn answered(&self, patience: Duration) {
        // Each that waits listens for the state.
        self.state.closed().await;
        if let State::Ready(pool) = self.state() {
            for endpoint in pool.endpoints() {
                endpoint.drained(patience).await;
            }
        }
    }

    /// Whether the first look at it is over.
    pub(super) fn was_attempted(&self) -> bool {
        *self.attempted.borrow()
    }

    pub(super) fn set_attempted(&self) {
        self.attempted.send_replace(true);
    }

    /// An instance is on its way; calls wait for it where no other answers.
    pub(super) fn starting(&self) {
        self.unless_ready(State::Starting);
    }

    /// No instance could be started; calls are turned away where no other answers.
    pub(super) fn failed(&self, reason: &str) {
        tracing::warn!("{}: {reason}", self.key);
        self.unless_ready(State::Failed(reason.to_owned()));
    }

    /// Those who wait for an instance wait no longer. Whether somebody could have.
    pub(super) fn turn_away(&self, reason: &str) -> bool {
        let turned_away = self.state.send_if_modified(|state| {
            let waits = matches!(state, State::Starting);
            if waits {
                *state = State::Failed(reason.to_owned());
            }
            waits
        });
        if turned_away {
            tracing::warn!("{}: {reason}", self.key);
        }
        turned_away
    }

    fn unless_ready(&self, state: State) {
        self.state.send_if_modified(|now| {
            let modified = !matches!(now, State::Ready(_));
            if modified {
                *now = state;
            }
            modified
        });
    }

    /// Nobody is let in any more.
    pub(super) fn close(&self) {
        self.state.send_replace(State::Idle);
    }

    /// Nobody is let in any more, if nobody is inside and nobody has been for so long. Whether that is so.
    pub(super) fn close_if_idle(&self, after: Duration) -> bool {
        self.state.send_if_modified(|state| {
            // A call is counted before it looks at the state: it is seen here, or it sees what becomes of that here.
            let idle = self.counts.idle().is_some_and(|idle| idle >= after);
            let closes = idle && matches!(state, State::Ready(_) | State::Failed(_));
            if closes {
                *state = State::Idle;
            }
            closes
        })
    }

    /// It should not run. A call may have woken it a moment ago: its wish is in the mailbox, and stands.
    pub(super) fn rest(&self) {
        self.state.send_if_modified(|state| {
            let over = matches!(state, State::Ready(_) | State::Failed(_));
            if over {
                *state = State::Idle;
            }
            over
        });
    }

    pub(super) fn set_document(&self, document: Option<Document>) {
        *self.document.lock().unwrap_or_else(PoisonError::into_inner) = document.map(Arc::new);
    }
}

/// One without an actor, for tests.
#[cfg(test)]
pub(super) fn alone() -> (Function, mpsc::UnboundedReceiver<Command>) {
    let (mailbox, mail) = mpsc::unbounded_channel();
    (Function::new(Key::new("f", "").unwrap(), None, mailbox), mail)
}

#[cfg(test)]
mod tests;

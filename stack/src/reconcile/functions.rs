//! The functions as the gateway sees them: what they should be, whether they answer, and where.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};

use provisioning::Namespace;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot, watch};

use super::actor::Actor;
use super::command::Command;
use super::endpoint::{Endpoint, Running};
use super::notices::Notices;
use super::pool::Pool;
use super::{World, pause};
use crate::desired::Document;
use crate::error::Error;
use crate::key::Key;

/// How long a connection to an instance may take.
const CONNECT: Duration = Duration::from_secs(1);

/// Calls do not wait longer for an instance whose process lives and takes no connections.
const DEAF: Duration = Duration::from_secs(5);

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

/// Why a deployment or deletion was not done.
#[derive(Debug)]
pub enum Refused {
    /// There is such a function already.
    Exists,
    /// There is no such function.
    Absent,
    /// It was tried.
    Failed(Error),
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// One function.
pub struct Function {
    /// Its name.
    pub key: Key,
    /// Calls since we run.
    pub calls: AtomicU64,
    document: Mutex<Option<Arc<Document>>>,
    state: watch::Sender<State>,
    attempted: watch::Sender<bool>,
    /// Somebody has asked for a look that has not begun.
    asked: AtomicBool,
    pub(super) mailbox: mpsc::UnboundedSender<Command>,
}

impl Function {
    /// What it should be; nothing when it is being made or was deleted.
    pub fn document(&self) -> Option<Arc<Document>> {
        let document = self.document.lock().unwrap_or_else(PoisonError::into_inner).clone();
        document.filter(|document| !document.deleted)
    }

    /// Its state now.
    pub fn state(&self) -> State {
        self.state.borrow().clone()
    }

    /// Lets a call in as soon as there is a way; nothing when it does not come in time or cannot come.
    pub async fn enter(&self, patience: Duration) -> Option<Running> {
        let mut state = self.state.subscribe();
        let settled = state.wait_for(|state| !matches!(state, State::Starting));
        match tokio::time::timeout(patience, settled).await {
            Ok(Ok(state)) => match &*state {
                // Counted in while the state cannot change: whoever closes the way waits for this call too.
                State::Ready(pool) => pool.enter(),
                _ => None,
            },
            _ => None,
        }
    }

    /// An instance took no connection: the calls wait, or go to others, until it does or its end is known.
    pub fn refused(self: &Arc<Self>, endpoint: &Arc<Endpoint>) {
        // Only who takes it away knocks.
        if self.pause(endpoint) {
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
        self.without(endpoint, true);
    }

    /// Nobody is let into an instance until it says that it is ready again. Gives whether anybody was until now.
    pub(super) fn pause(&self, endpoint: &Arc<Endpoint>) -> bool {
        self.without(endpoint, false)
    }

    fn without(&self, endpoint: &Arc<Endpoint>, for_good: bool) -> bool {
        self.state.send_if_modified(|state| {
            if for_good {
                // While the state cannot change: who would let it in again sees it.
                endpoint.close();
            }
            let State::Ready(pool) = state else { return false };
            let Some(others) = pool.without(endpoint) else { return false };
            *state = if others.is_empty() { State::Starting } else { State::Ready(Arc::new(others)) };
            true
        })
    }

    /// Calls are let into one more instance, unless it was left for good.
    pub(super) fn let_in(&self, endpoint: Arc<Endpoint>) {
        self.state.send_if_modified(|state| {
            let open = !endpoint.is_closed();
            if open {
                tracing::info!("{} is ready at {}", self.key, endpoint.address);
                let pool = match state {
                    State::Ready(pool) => pool.with(endpoint),
                    _ => Pool::new(vec![endpoint]),
                };
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

/// All functions by their full names (`NAME.NAMESPACE`).
#[derive(Default)]
pub struct Functions {
    map: RwLock<HashMap<String, Arc<Function>>>,
    pub(super) notices: Notices,
    world: OnceLock<Arc<World>>,
}

impl Functions {
    /// Starts an actor for each document.
    pub fn start(world: Arc<World>, documents: Vec<(Key, Document)>) -> Arc<Self> {
        let functions = Arc::new(Self::default());
        // It was just made: nobody else can have set it.
        let _ = functions.world.set(world);
        for (key, document) in documents {
            functions.with(&key, Some(document), |_| {});
        }
        functions
    }

    /// A function that exists, or is about to.
    pub fn get(&self, key: &Key) -> Option<Arc<Function>> {
        self.map.read().unwrap_or_else(PoisonError::into_inner).get(&key.to_string()).cloned()
    }

    /// All of them, in no order.
    pub fn all(&self) -> Vec<Arc<Function>> {
        self.map.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Deploys a function, new or (with `replace`) in place of the one there is. Returns when the new instance is
    /// ready and the document safe on disk.
    pub async fn deploy(
        self: &Arc<Self>,
        key: &Key,
        document: Document,
        replace: bool,
    ) -> Result<(), Refused> {
        let present = self.get(key).is_some_and(|function| function.document().is_some());
        match (replace, present) {
            (false, true) => return Err(Refused::Exists),
            (true, false) => return Err(Refused::Absent),
            _ => {}
        }
        let (functions, key) = (self.clone(), key.clone());
        let gone = gone(&key);
        // To its end, even where whoever asked does not wait for it.
        let deployed =
            tokio::spawn(async move { functions.supply_and_deploy(&key, document, replace).await });
        deployed.await.unwrap_or(Err(gone))
    }

    /// The image first: the actor looks after what runs while it is pulled.
    async fn supply_and_deploy(
        self: &Arc<Self>,
        key: &Key,
        document: Document,
        replace: bool,
    ) -> Result<(), Refused> {
        let world = self.world.get().ok_or_else(|| gone(key))?;
        let (hold, image) = (world.hold_image(&document).await, document.image.clone());
        let deployed = async {
            let supply = Box::new(world.supply(&document).await?);
            let document = Box::new(document);
            self.ask(key, |reply| Command::Deploy { document, supply, replace, reply }).await
        };
        let deployed = deployed.await;
        drop(hold);
        if deployed.is_err() {
            // Who needed it a moment ago may have gone meanwhile.
            world.drop_image(self, &key.namespace, &image).await;
        }
        deployed
    }

    /// Deletes a function; returns when nothing of it is left.
    pub async fn delete(self: &Arc<Self>, key: &Key) -> Result<(), Refused> {
        self.ask(key, |reply| Command::Delete { reply }).await
    }

    /// Sets how many instances should run, within what its labels allow.
    pub async fn scale(self: &Arc<Self>, key: &Key, replicas: u64) -> Result<(), Refused> {
        self.ask(key, |reply| Command::Scale { replicas, reply }).await
    }

    /// Looks which functions, of a namespace or of all, name secrets that are not there: each gets a notice, and loses it when
    /// they are there again. What runs keeps its copies. Waits for the disk.
    pub fn note_missing_secrets(&self, world: &World, namespace: Option<&Namespace>) {
        for function in self.all() {
            if namespace.is_some_and(|namespace| *namespace != function.key.namespace) {
                continue;
            }
            let missing = function.document().and_then(|document| world.secrets.missing(&document));
            let text =
                missing.map(|name| format!("names secret {name}, which is not there: it cannot start again"));
            if self.notices.set_missing(&function.key, text.clone())
                && let Some(text) = text
            {
                tracing::warn!("{} {text}; make the secret, or deploy the function without it", function.key);
            }
        }
    }

    /// Starts an actor for containers that no document asks for: it will remove them.
    pub(super) fn adopt(self: &Arc<Self>, key: &Key) {
        self.with(key, None, |_| {});
    }

    async fn ask(
        self: &Arc<Self>,
        key: &Key,
        command: impl FnOnce(oneshot::Sender<Result<(), Refused>>) -> Command,
    ) -> Result<(), Refused> {
        let (reply, answer) = oneshot::channel();
        self.with(key, None, |function| {
            // Under the lock the actor cannot have gone.
            let _ = function.mailbox.send(command(reply));
        });
        answer.await.unwrap_or_else(|_| Err(gone(key)))
    }

    fn with(self: &Arc<Self>, key: &Key, document: Option<Document>, act: impl FnOnce(&Function)) {
        let mut map = self.map.write().unwrap_or_else(PoisonError::into_inner);
        let function = map.entry(key.to_string()).or_insert_with(|| self.spawn(key, document));
        act(function);
    }

    fn spawn(self: &Arc<Self>, key: &Key, document: Option<Document>) -> Arc<Function> {
        let (mailbox, mail) = mpsc::unbounded_channel();
        let wanted = document.as_ref().is_some_and(Document::wants_instance);
        let function = Arc::new(Function {
            key: key.clone(),
            calls: AtomicU64::new(0),
            document: Mutex::new(document.clone().map(Arc::new)),
            state: watch::Sender::new(if wanted { State::Starting } else { State::Idle }),
            attempted: watch::Sender::new(false),
            asked: AtomicBool::new(false),
            mailbox,
        });
        if let Some(world) = self.world.get() {
            let actor = Actor::new(world.clone(), self.clone(), function.clone(), document, mail);
            tokio::spawn(actor.run());
        }
        function
    }

    /// Forgets a function whose actor has nothing left to do, unless somebody has just written to it.
    pub(super) fn retire(&self, key: &Key, mail: &mpsc::UnboundedReceiver<Command>) -> bool {
        let mut map = self.map.write().unwrap_or_else(PoisonError::into_inner);
        let done = mail.is_empty();
        if done {
            map.remove(&key.to_string());
        }
        done
    }
}

/// Waits until an instance takes connections again, or there is no reason to.
async fn knock(function: Arc<Function>, endpoint: Arc<Endpoint>) {
    let (mut attempt, mut told) = (0, false);
    let began = Instant::now();
    while !endpoint.is_closed() && function.document().is_some_and(|document| document.wants_instance()) {
        let connect = TcpStream::connect(endpoint.address);
        if matches!(tokio::time::timeout(CONNECT, connect).await, Ok(Ok(_))) {
            return function.let_in(endpoint);
        }
        if began.elapsed() > DEAF && !told {
            told = true;
            function.failed(&format!("{} takes no connections", endpoint.address));
        }
        tokio::time::sleep(pause(attempt)).await;
        attempt += 1;
    }
}

fn gone(key: &Key) -> Refused {
    Refused::Failed(Error::Invalid { what: key.to_string(), reason: "is being shut down".into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function() -> (Function, mpsc::UnboundedReceiver<Command>) {
        let (mailbox, mail) = mpsc::unbounded_channel();
        let function = Function {
            key: Key::new("f", "").unwrap(),
            calls: AtomicU64::new(0),
            document: Mutex::new(None),
            state: watch::Sender::new(State::Idle),
            attempted: watch::Sender::new(false),
            asked: AtomicBool::new(false),
            mailbox,
        };
        (function, mail)
    }

    #[tokio::test]
    async fn calls_that_waited_are_answered_before_others_begin() {
        let (function, _mail) = function();
        let function = Arc::new(function);
        function.answered(Duration::from_secs(5)).await;
        function.starting();
        let patience = Duration::from_secs(60);
        let call = tokio::spawn({
            let function = function.clone();
            async move { function.enter(patience).await.unwrap() }
        });
        tokio::task::yield_now().await;
        let answered = tokio::spawn({
            let function = function.clone();
            async move { function.answered(patience).await }
        });
        tokio::task::yield_now().await;
        assert!(!answered.is_finished());
        function.let_in(Arc::new(Endpoint::new(([10, 62, 0, 2], 8080).into())));
        let running = call.await.unwrap();
        tokio::task::yield_now().await;
        assert!(!answered.is_finished());
        drop(running);
        answered.await.unwrap();
    }

    #[tokio::test]
    async fn calls_wait_only_when_the_last_instance_has_left() {
        let (function, _mail) = function();
        let endpoint = |last| Arc::new(Endpoint::new(([10, 62, 0, last], 8080).into()));
        let (one, two) = (endpoint(2), endpoint(3));
        function.let_in(one.clone());
        function.let_in(two.clone());
        assert_eq!(function.available(), 2);
        function.failed("a third one does not start");
        function.left(&one);
        assert_eq!(function.enter(Duration::ZERO).await.unwrap().address(), two.address);
        function.left(&two);
        assert!(matches!(function.state(), State::Starting));
        function.failed("none does");
        assert!(function.enter(Duration::from_secs(60)).await.is_none());
        // What was left for good does not come back.
        function.let_in(two);
        assert_eq!(function.available(), 0);
        let three = endpoint(4);
        function.switch(vec![three.clone()]);
        function.pause(&three);
        assert_eq!(function.available(), 0);
        function.let_in(three);
        assert_eq!(function.available(), 1);
    }

    #[tokio::test]
    async fn many_reasons_are_one_look_and_one_wish() {
        let (function, mut mail) = function();
        for _ in 0..100 {
            function.look_again();
        }
        assert_eq!(mail.len(), 1);
        mail.recv().await;
        function.looking();
        function.look_again();
        assert_eq!(mail.len(), 1);
        for _ in 0..100 {
            function.wake();
        }
        assert_eq!(mail.len(), 2);
    }

    #[tokio::test]
    async fn a_call_that_was_let_in_is_waited_for_and_an_ended_process_takes_no_more() {
        let (function, _mail) = function();
        let endpoint = Arc::new(Endpoint::new(([10, 62, 0, 2], 8080).into()));
        function.let_in(endpoint.clone());
        let call = function.enter(Duration::ZERO).await.unwrap();
        function.left(&Arc::new(Endpoint::new(endpoint.address)));
        assert!(matches!(function.state(), State::Ready(_)), "another instance's end");
        function.left(&endpoint);
        assert!(function.enter(Duration::from_millis(1)).await.is_none());
        let waiting = tokio::spawn(async move { endpoint.drained(Duration::from_secs(60)).await });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(call);
        waiting.await.unwrap();
    }
}

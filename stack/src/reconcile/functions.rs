//! All functions, and what can be asked of them.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use provisioning::Namespace;
use tokio::sync::{mpsc, oneshot};

use super::World;
use super::actor::Actor;
use super::command::Command;
use super::function::Function;
use super::notices::Notices;
use super::probe::Probes;
use crate::desired::{Document, Scale};
use crate::error::Error;
use crate::key::Key;
use crate::queue;

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

/// All functions.
#[derive(Default)]
pub struct Functions {
    map: RwLock<HashMap<Key, Arc<Function>>>,
    pub(super) notices: Notices,
    world: OnceLock<Arc<World>>,
}

impl Functions {
    /// Starts an actor for each document.
    pub fn start(world: Arc<World>, documents: Vec<(Key, Document)>) -> Arc<Self> {
        let functions = Arc::new(Self::default());
        let named = documents.iter().filter(|(_, document)| !document.deleted).map(|(key, _)| key.clone());
        world.hosts.add(named);
        // It was just made: nobody else can have set it.
        let _ = functions.world.set(world);
        for (key, document) in documents {
            functions.note_misread(&key, &document);
            functions.with(&key, Some(document), |_| {});
        }
        functions
    }

    /// Lets people know what is wrong with a part of the gateway, or that nothing is.
    pub fn notice(&self, part: &'static str, wrong: Option<String>) {
        self.notices.set_part(part, wrong);
    }

    /// A function that exists, or is about to.
    pub fn get(&self, key: &Key) -> Option<Arc<Function>> {
        self.map.read().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
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
        let world = self.world.get().ok_or_else(|| gone(key))?;
        let (functions, of) = (self.clone(), key.clone());
        let deployed = world.spawn(async move { functions.supply_and_deploy(&of, document, replace).await });
        deployed.await.unwrap_or_else(|_| Err(gone(key)))
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
            world.let_image_go(&key.namespace, &image).await;
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

    /// A deployment with a label that is not to be read is refused; the configuration's function runs without it, and so does
    /// one that an older version took. That is told.
    fn note_misread(&self, key: &Key, document: &Document) {
        let wrong = Scale::parse(&document.labels).err();
        let wrong = wrong.or_else(|| Probes::parse(&document.annotations).err());
        let wrong = wrong.or_else(|| queue::check(&document.annotations).err());
        let text = wrong.filter(|_| !document.deleted).map(|wrong| format!("{wrong}: it runs without that"));
        if let Some(text) = &text {
            tracing::warn!("{key}: {text}");
        }
        self.notices.set_misread(key, text);
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
        let function = map.entry(key.clone()).or_insert_with(|| self.spawn(key, document));
        act(function);
    }

    fn spawn(self: &Arc<Self>, key: &Key, document: Option<Document>) -> Arc<Function> {
        let (mailbox, mail) = mpsc::unbounded_channel();
        let function = Arc::new(Function::new(key.clone(), document.clone(), mailbox));
        if let Some(world) = self.world.get() {
            let actor = Actor::new(world.clone(), self.clone(), function.clone(), document, mail);
            world.spawn(actor.run());
        }
        function
    }

    /// Forgets a function whose actor has nothing left to do, unless somebody has just written to it.
    pub(super) fn retire(&self, key: &Key, mail: &mpsc::UnboundedReceiver<Command>) -> bool {
        let mut map = self.map.write().unwrap_or_else(PoisonError::into_inner);
        let done = mail.is_empty();
        if done {
            map.remove(key);
        }
        done
    }
}

fn gone(key: &Key) -> Refused {
    Refused::Failed(Error::Invalid { what: key.to_string(), reason: "is being shut down".into() })
}

//! The one place that changes a function's containers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::backoff::Backoff;
use super::command::Command;
use super::functions::{Endpoint, Function, Functions, Refused, State};
use super::instance::{Instance, PORT};
use super::watcher::watch;
use super::{World, pause, ready};
use crate::containerd::Task;
use crate::desired::Document;
use crate::error::{Error, Result};

/// The instance that serves.
struct Serving {
    instance: Instance,
    endpoint: Arc<Endpoint>,
    since: Instant,
    watcher: AbortHandle,
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.watcher.abort();
    }
}

/// A function's actor.
pub struct Actor {
    world: Arc<World>,
    functions: Arc<Functions>,
    function: Arc<Function>,
    document: Option<Document>,
    mail: mpsc::UnboundedReceiver<Command>,
    serving: Option<Serving>,
    /// The instance that was replaced and may still have calls.
    draining: Option<(String, Arc<Endpoint>)>,
    backoff: Backoff,
    /// No start before that moment.
    not_before: Option<Instant>,
    /// Looks at containerd that failed in a row.
    blind: u32,
}

impl Actor {
    /// Puts it together.
    pub fn new(
        world: Arc<World>,
        functions: Arc<Functions>,
        function: Arc<Function>,
        document: Option<Document>,
        mail: mpsc::UnboundedReceiver<Command>,
    ) -> Self {
        let backoff = Backoff::default();
        Self {
            world,
            functions,
            function,
            document,
            mail,
            serving: None,
            draining: None,
            backoff,
            not_before: None,
            blind: 0,
        }
    }

    /// Works until the function is gone.
    pub async fn run(mut self) {
        let mut swept = self.world.swept.subscribe();
        if swept.wait_for(|swept| *swept).await.is_err() {
            return;
        }
        drop(swept);
        loop {
            let again = self.converge().await;
            self.function.set_attempted();
            if again.is_none()
                && self.document.is_none()
                && self.functions.retire(&self.function.key, &self.mail)
            {
                return;
            }
            let command = match again {
                Some(delay) => match tokio::time::timeout(delay, self.mail.recv()).await {
                    Ok(command) => command,
                    Err(_) => Some(Command::Look),
                },
                None => self.mail.recv().await,
            };
            match command {
                Some(command) => self.obey(command).await,
                None => return,
            }
        }
    }

    /// Looks, and acts once. Returns when to look again, if nothing happens before.
    async fn converge(&mut self) -> Option<Duration> {
        let instances = match self.world.instances(&self.function.key).await {
            Ok(instances) => instances,
            Err(error) => {
                // containerd is away; what runs goes on running and answering.
                if self.blind == 5 {
                    tracing::warn!("{}: {error}", self.function.key);
                }
                self.blind += 1;
                return Some(pause(self.blind));
            }
        };
        self.blind = 0;
        let wanted = self.document.clone().filter(Document::wants_instance);
        let digest = wanted.as_ref().map(Document::digest);
        let good = |i: &&Instance| i.task == Task::Alive && Some(&i.digest) == digest.as_ref();
        let found = instances.iter().find(good).cloned();
        if self.serving.as_ref().is_some_and(|s| found.as_ref().is_none_or(|found| found.id != s.instance.id))
        {
            let ended = self.serving.take();
            if let (Some(ended), Some(_)) = (ended, &wanted) {
                let delay = self.backoff.ended(ended.since);
                tracing::warn!(
                    "{}: its process ended, start again in {} ms",
                    self.function.key,
                    delay.as_millis()
                );
                self.hold(delay, "its process ended");
            }
        }
        let current = match (wanted, found) {
            (None, _) => {
                self.function.rest();
                None
            }
            (Some(_), Some(found)) if self.serving.is_some() => Some(found),
            (Some(_), Some(found)) => {
                let outcome = self.serve(found.clone()).await;
                self.settle(outcome.map(|()| found))
            }
            (Some(document), None) => {
                if let Some(wait) = self.held() {
                    return self.clear(&instances, None).await.or(Some(wait));
                }
                self.function.set_state(State::Starting);
                let outcome = self.bring_up(&document, &instances).await;
                self.settle(outcome)
            }
        };
        let wanted = self.document.as_ref().is_some_and(Document::wants_instance);
        let retry = (wanted && current.is_none()).then(|| self.held().unwrap_or_default());
        self.clear(&instances, current.as_ref()).await.or(retry)
    }

    /// Starts an instance beside those there are, and returns when it is ready.
    async fn bring_up(&mut self, document: &Document, others: &[Instance]) -> Result<Instance> {
        let taken = |replica: &u32| others.iter().any(|other| other.replica == *replica);
        let replica = (0..).find(|replica| !taken(replica)).unwrap_or_default();
        let instance = self.world.start(&self.function.key, document, replica).await?;
        match self.serve(instance.clone()).await {
            Ok(()) => Ok(instance),
            Err(error) => {
                self.world.remove(&instance, Duration::ZERO).await?;
                Err(error)
            }
        }
    }

    /// Waits until an instance is ready, lets the calls in, and watches its process.
    async fn serve(&mut self, instance: Instance) -> Result<()> {
        let ip = instance.address.ok_or_else(|| Error::Invalid {
            what: format!("container {}", instance.id),
            reason: "has no address".into(),
        })?;
        let address = (ip, PORT).into();
        let (namespace, id) = (instance.key.namespace.as_str(), instance.id.as_str());
        tokio::select! {
            ready = ready::wait(address, self.world.settings.ready_timeout) => ready?,
            ended = self.world.containerd.wait_task(namespace, id) => {
                return Err(Error::Exited { status: ended? });
            }
        }
        let endpoint = Arc::new(Endpoint::new(address));
        let watcher =
            tokio::spawn(watch(self.world.clone(), self.function.clone(), instance.clone())).abort_handle();
        self.serving = Some(Serving { instance, endpoint: endpoint.clone(), since: Instant::now(), watcher });
        self.not_before = None;
        self.function.set_state(State::Ready(endpoint));
        Ok(())
    }

    fn settle(&mut self, outcome: Result<Instance>) -> Option<Instance> {
        match outcome {
            Ok(instance) => Some(instance),
            Err(error) => {
                let delay = self.backoff.failed();
                self.not_before = Some(Instant::now() + delay);
                self.function.set_state(State::Failed(error.to_string()));
                None
            }
        }
    }

    fn hold(&mut self, delay: Duration, reason: &str) {
        self.not_before = Some(Instant::now() + delay);
        self.function.set_state(if delay.is_zero() {
            State::Starting
        } else {
            State::Failed(reason.to_owned())
        });
    }

    fn held(&self) -> Option<Duration> {
        self.not_before
            .map(|moment| moment.saturating_duration_since(Instant::now()))
            .filter(|left| !left.is_zero())
    }

    /// Removes all instances but one. Returns when to try again, if something could not be removed.
    async fn clear(&mut self, instances: &[Instance], keep: Option<&Instance>) -> Option<Duration> {
        let mut again = None;
        for instance in instances.iter().filter(|instance| keep.is_none_or(|keep| keep.id != instance.id)) {
            let grace = self.world.grace(self.document.as_ref());
            if let Some((_, endpoint)) = self.draining.take_if(|(id, _)| *id == instance.id) {
                endpoint.drained(grace).await;
            }
            if let Err(error) = self.world.remove(instance, grace).await {
                tracing::warn!("removing {}: {error}", instance.name());
                self.blind += 1;
                again = Some(pause(self.blind + 3));
            }
        }
        again
    }

    async fn obey(&mut self, command: Command) {
        match command {
            Command::Look => {}
            Command::Ended { id } => tracing::debug!("{}: task {id} ended", self.function.key),
            Command::Deploy { document, replace, reply } => {
                let outcome = self.deploy(*document, replace).await;
                let _ = reply.send(outcome);
            }
            Command::Scale { replicas, reply } => {
                let outcome = self.scale(replicas).await;
                if outcome.is_err() && !old_wants(self.document.as_ref()) {
                    // A call that woke it must not wait for what will not come.
                    self.function.set_state(State::Idle);
                }
                if let Some(reply) = reply {
                    let _ = reply.send(outcome);
                }
            }
            Command::Delete { reply } => {
                let outcome = self.delete().await;
                let _ = reply.send(outcome);
            }
        }
    }

    /// Starts the new instance beside the old one; only when it is ready is the document written and the old one left
    /// to its last calls. Whatever fails before that changes nothing.
    async fn deploy(&mut self, mut document: Document, replace: bool) -> Result<(), Refused> {
        let old = self.document.as_ref();
        match (replace, old.is_some_and(|old| !old.deleted)) {
            (false, true) => return Err(Refused::Exists),
            (true, false) => return Err(Refused::Absent),
            _ => {}
        }
        document.revision = old.map_or(1, |old| old.revision + 1);
        document.declared = old.and_then(|old| old.declared.clone());
        let previous = self.serving.take();
        let others = self.world.instances(&self.function.key).await;
        let started = match others {
            Ok(others) => self.bring_up_silently(&document, &others, previous.is_some()).await,
            Err(error) => Err(error),
        };
        let committed = match started {
            Ok(instance) => match self.save(document.clone()).await {
                Ok(()) => Ok(()),
                Err(error) => {
                    // The disk refuses the document: the old one stays what should be, and what runs.
                    self.serving = None;
                    let _ = self.world.remove(&instance, Duration::ZERO).await;
                    Err(error)
                }
            },
            Err(error) => Err(error),
        };
        if let Err(error) = committed {
            match &previous {
                Some(previous) => self.function.set_state(State::Ready(previous.endpoint.clone())),
                None if old_wants(self.document.as_ref()) => self.function.set_state(State::Starting),
                None => self.function.set_state(State::Idle),
            }
            self.serving = previous;
            return Err(error.into());
        }
        self.backoff.reset();
        // `converge` removes the old one as soon as its calls have ended.
        self.draining = previous.map(|previous| (previous.instance.id.clone(), previous.endpoint.clone()));
        Ok(())
    }

    async fn bring_up_silently(
        &mut self,
        document: &Document,
        others: &[Instance],
        update: bool,
    ) -> Result<Instance> {
        if !update {
            self.function.set_state(State::Starting);
        }
        self.bring_up(document, others).await
    }

    async fn scale(&mut self, replicas: u64) -> Result<(), Refused> {
        let Some(document) = self.document.clone().filter(|document| !document.deleted) else {
            return Err(Refused::Absent);
        };
        let replicas = replicas.min(1);
        if document.replicas == replicas {
            return Ok(());
        }
        self.backoff.reset();
        self.not_before = None;
        self.save(Document { replicas, ..document }).await?;
        if replicas == 0 {
            self.stop_serving().await;
            self.clear_all().await?;
        }
        Ok(())
    }

    async fn delete(&mut self) -> Result<(), Refused> {
        let Some(document) = self.document.clone().filter(|document| !document.deleted) else {
            return Err(Refused::Absent);
        };
        if document.declared.is_some() {
            // Remembered as deleted, or the configuration would bring it back at the next start.
            self.save(Document { deleted: true, ..document }).await?;
        } else {
            let (store, key) = (self.world.store.clone(), self.function.key.clone());
            on_disk(move || store.remove(&key)).await?;
            self.document = None;
            self.function.set_document(None);
        }
        self.stop_serving().await;
        Ok(self.clear_all().await?)
    }

    /// Removes every instance. What cannot be removed now is tried again by `converge`; the caller's wish is on disk.
    async fn clear_all(&mut self) -> Result<()> {
        let instances = self.world.instances(&self.function.key).await?;
        self.clear(&instances, None).await;
        Ok(())
    }

    /// Lets nobody in any more, and waits for the calls that are inside.
    async fn stop_serving(&mut self) {
        self.function.set_state(State::Idle);
        if let Some(serving) = self.serving.take() {
            serving.endpoint.drained(self.world.grace(self.document.as_ref())).await;
        }
    }

    async fn save(&mut self, document: Document) -> Result<()> {
        let (store, key, copy) = (self.world.store.clone(), self.function.key.clone(), document.clone());
        on_disk(move || store.put(&key, &copy)).await?;
        self.function.set_document(Some(document.clone()));
        self.document = Some(document);
        Ok(())
    }
}

fn old_wants(document: Option<&Document>) -> bool {
    document.is_some_and(Document::wants_instance)
}

/// Runs what waits for the disk where it holds nobody up.
async fn on_disk(act: impl FnOnce() -> Result<()> + Send + 'static) -> Result<()> {
    match tokio::task::spawn_blocking(act).await {
        Ok(done) => done,
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}

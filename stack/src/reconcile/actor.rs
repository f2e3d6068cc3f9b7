//! The one place that changes a function's containers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::backoff::Backoff;
use super::command::Command;
use super::endpoint::Endpoint;
use super::functions::{Function, Functions, Refused, State};
use super::instance::{Instance, PORT};
use super::pen::Pen;
use super::removal::Removals;
use super::serving::Serving;
use super::watcher::watch;
use super::{World, cause, pause, ready};
use crate::containerd::{Image, Supply, Task};
use crate::desired::Document;
use crate::error::{Error, Result};

/// A function's actor.
pub struct Actor {
    world: Arc<World>,
    functions: Arc<Functions>,
    function: Arc<Function>,
    document: Option<Document>,
    mail: mpsc::UnboundedReceiver<Command>,
    serving: Option<Serving>,
    /// Instances on their way out.
    removals: Removals,
    backoff: Backoff,
    /// No start before that moment.
    not_before: Option<Instant>,
    /// Looks at containerd that failed in a row.
    blind: u32,
    pen: Pen,
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
            removals: Removals::default(),
            backoff,
            not_before: None,
            blind: 0,
            pen: Pen::default(),
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
            self.function.looking();
            let again = self.converge().await;
            self.function.set_attempted();
            let again = again.into_iter().chain(self.forgive()).min();
            if again.is_none()
                && self.document.is_none()
                && self.removals.is_empty()
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

    /// Takes the notice of a function back that has been well for a while. Returns when that will be.
    fn forgive(&self) -> Option<Duration> {
        let serving = self.serving.as_ref().filter(|_| self.functions.notices.has(&self.function.key))?;
        let left = serving.until_well();
        if left.is_none() {
            self.functions.notices.clear(&self.function.key);
        }
        left
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
        let good = |i: &&Instance| {
            i.task == Task::Alive && Some(&i.digest) == digest.as_ref() && !self.removals.has(&i.id)
        };
        let found = instances.iter().find(good).cloned();
        if self.serving.as_ref().is_some_and(|s| found.as_ref().is_none_or(|found| found.id != s.instance.id))
        {
            let ended = self.serving.take();
            if let (Some(ended), Some(_)) = (ended, &wanted) {
                let delay = self.backoff.ended(ended.since);
                let cause = cause::of(&self.world.settings.cgroup_root, &ended.instance);
                tracing::warn!("{}: {cause}, start again in {} ms", self.function.key, delay.as_millis());
                self.functions.notices.set(&self.function.key, cause);
                self.hold(delay, cause);
            }
        }
        let current = match (wanted, found) {
            (None, _) => {
                self.functions.notices.clear(&self.function.key);
                self.function.rest();
                None
            }
            (Some(_), Some(found)) if self.serving.is_some() => Some(found),
            (Some(_), Some(found)) => {
                let outcome = self.until_ready(&found).await.map(|address| (found, address));
                self.settle(outcome)
            }
            (Some(document), None) => {
                if let Some(wait) = self.held() {
                    return self.clear(&instances, None).or(Some(wait));
                }
                self.function.set_state(State::Starting);
                let outcome = match self.world.image(&document).await {
                    Ok(image) => self.bring_up(&document, &instances, &image).await,
                    Err(error) => Err(error),
                };
                self.settle(outcome)
            }
        };
        let wanted = self.document.as_ref().is_some_and(Document::wants_instance);
        let retry = (wanted && current.is_none()).then(|| self.held().unwrap_or_default());
        self.clear(&instances, current.as_ref()).or(retry)
    }

    /// Starts an instance beside those there are, and returns when it is ready; nobody is let in yet.
    async fn bring_up(
        &mut self,
        document: &Document,
        others: &[Instance],
        image: &Image,
    ) -> Result<(Instance, SocketAddr)> {
        let taken = |replica: &u32| others.iter().any(|other| other.replica == *replica);
        let free = |replica: &u32| !taken(replica) && self.world.is_free(&self.function.key, *replica);
        let replica = (0..).find(free).unwrap_or_default();
        let instance = self.world.start(&self.function.key, document, replica, image).await?;
        match self.until_ready(&instance).await {
            Ok(address) => Ok((instance, address)),
            Err(error) => {
                self.discard(&instance).await;
                Err(error)
            }
        }
    }

    /// Removes an instance that nobody was let into. What does not go now is found at the next look.
    async fn discard(&self, instance: &Instance) {
        if let Err(error) = self.world.remove(instance, Duration::ZERO).await {
            tracing::warn!("removing {}: {error}", instance.name());
        }
    }

    /// Waits until an instance is ready.
    async fn until_ready(&self, instance: &Instance) -> Result<SocketAddr> {
        let ip = instance.address.ok_or_else(|| Error::Invalid {
            what: format!("container {}", instance.id),
            reason: "has no address".into(),
        })?;
        let address = (ip, PORT).into();
        let (namespace, id) = (instance.key.namespace.as_str(), instance.id.as_str());
        tokio::select! {
            ready = ready::wait(address, self.world.settings.ready_timeout) => ready.map(|()| address),
            ended = self.world.containerd.wait_task(namespace, id) => Err(Error::Exited { status: ended? }),
        }
    }

    /// Lets the calls into an instance, and watches its process.
    fn let_in(&mut self, instance: Instance, address: SocketAddr) {
        let endpoint = Arc::new(Endpoint::new(address));
        self.not_before = None;
        // Before the watcher: an end that comes at once must not be overwritten.
        self.function.set_state(State::Ready(endpoint.clone()));
        let watching = watch(self.world.clone(), self.function.clone(), instance.clone(), endpoint.clone());
        let watcher = tokio::spawn(watching).abort_handle();
        self.serving = Some(Serving { instance, endpoint, since: Instant::now(), watcher });
    }

    /// Lets the calls into what came up, or holds the next start back.
    fn settle(&mut self, outcome: Result<(Instance, SocketAddr)>) -> Option<Instance> {
        match outcome {
            Ok((instance, address)) => {
                self.let_in(instance.clone(), address);
                Some(instance)
            }
            Err(error) => {
                let delay = self.backoff.failed();
                self.not_before = Some(Instant::now() + delay);
                self.functions.notices.set(&self.function.key, &error.to_string());
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

    /// Begins to remove all instances but one. Returns when to try again, if something could not be removed.
    fn clear(&mut self, instances: &[Instance], keep: Option<&Instance>) -> Option<Duration> {
        let grace = self.world.grace(self.document.as_ref());
        let others = instances.iter().filter(|instance| keep.is_none_or(|keep| keep.id != instance.id));
        self.removals.begin(&self.world, &self.function, others, grace)
    }

    async fn obey(&mut self, command: Command) {
        match command {
            Command::Look | Command::Removed => {}
            Command::Ended { id } => tracing::debug!("{}: task {id} ended", self.function.key),
            Command::Deploy { document, supply, replace, reply } => {
                let outcome = self.deploy(*document, &supply, replace).await;
                self.world.containerd.let_go(*supply).await;
                let _ = reply.send(outcome);
            }
            Command::Scale { replicas, reply } => {
                let outcome = self.scale(replicas).await;
                let _ = reply.send(outcome);
            }
            Command::Wake => self.wake(),
            Command::Delete { reply } => {
                let outcome = self.delete().await;
                let _ = reply.send(outcome);
            }
        }
    }

    /// Starts the new instance beside the old one; only when it is ready is the document written and the old one left
    /// to its last calls. Whatever fails before that changes nothing.
    async fn deploy(
        &mut self,
        mut document: Document,
        supply: &Supply,
        replace: bool,
    ) -> Result<(), Refused> {
        let old = self.document.as_ref();
        match (replace, old.is_some_and(|old| !old.deleted)) {
            (false, true) => return Err(Refused::Exists),
            (true, false) => return Err(Refused::Absent),
            _ => {}
        }
        document.revision = old.map_or(1, |old| old.revision + 1);
        document.declared = old.and_then(|old| old.declared.clone());
        let others = self.world.instances(&self.function.key).await?;
        if self.serving.is_none() {
            self.function.set_state(State::Starting);
        }
        let (instance, address) = match self.bring_up(&document, &others, &supply.image).await {
            Ok(up) => up,
            Err(error) => {
                self.go_back();
                return Err(error.into());
            }
        };
        // The image's name before the document: what the document names must be what was tried.
        let kept = self.world.containerd.keep(supply).await;
        let saved = match kept {
            Ok(()) => self.save(document).await,
            Err(error) => Err(error),
        };
        if let Err(error) = saved {
            // The disk refuses the document: the old one stays what should be, and what runs.
            self.discard(&instance).await;
            self.go_back();
            return Err(error.into());
        }
        self.backoff.reset();
        let previous = self.serving.take();
        self.functions.notices.clear(&self.function.key);
        self.let_in(instance, address);
        // `converge` removes the old one as soon as its calls have ended.
        if let Some(previous) = previous {
            self.removals.let_end(&previous.instance.id, previous.endpoint.clone());
        }
        Ok(())
    }

    /// After a deployment that came to nothing: what serves was not touched.
    fn go_back(&self) {
        if self.serving.is_none() {
            let wanted = old_wants(self.document.as_ref());
            self.function.set_state(if wanted { State::Starting } else { State::Idle });
        }
    }

    /// Lets it run again because of a call, which does not wait for the disk: the document is written while the instance
    /// starts. Where that fails it runs all the same, and rests again after the machine's next start.
    fn wake(&mut self) {
        let Some(document) = self.document.clone().filter(|document| !document.deleted) else {
            // The call must not wait for what will not come.
            self.function.set_state(State::Idle);
            return;
        };
        if document.replicas > 0 {
            return;
        }
        self.backoff.reset();
        self.not_before = None;
        let document = Document { replicas: 1, ..document };
        self.pen.write_behind(&self.world.store, &self.function.key, &document);
        self.function.set_document(Some(document.clone()));
        self.document = Some(document);
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
            self.clear_all().await?;
        }
        Ok(())
    }

    async fn delete(&mut self) -> Result<(), Refused> {
        let Some(document) = self.document.clone().filter(|document| !document.deleted) else {
            return Err(Refused::Absent);
        };
        // Where containerd is away nothing is changed, so that the same request can be made again.
        self.world.instances(&self.function.key).await?;
        if document.declared.is_some() {
            // Remembered as deleted, or the configuration would bring it back at the next start.
            self.save(Document { deleted: true, ..document }).await?;
        } else {
            self.pen.remove(&self.world.store, &self.function.key).await?;
            self.document = None;
            self.function.set_document(None);
        }
        Ok(self.clear_all().await?)
    }

    /// Lets nobody in any more, and returns when nothing is left. What could not be removed is the error, and is tried
    /// again by `converge`: the caller's wish is on disk.
    async fn clear_all(&mut self) -> Result<()> {
        self.function.set_state(State::Idle);
        if let Some(serving) = self.serving.take() {
            self.removals.let_end(&serving.instance.id, serving.endpoint.clone());
        }
        let instances = self.world.instances(&self.function.key).await?;
        self.clear(&instances, None);
        self.removals.finish().await
    }

    async fn save(&mut self, document: Document) -> Result<()> {
        self.pen.write(&self.world.store, &self.function.key, &document).await?;
        self.function.set_document(Some(document.clone()));
        self.document = Some(document);
        Ok(())
    }
}

fn old_wants(document: Option<&Document>) -> bool {
    document.is_some_and(Document::wants_instance)
}

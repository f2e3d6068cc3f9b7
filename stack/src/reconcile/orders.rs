//! What an actor is told to do.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::oneshot;

use super::actor::Actor;
use super::command::Command;
use super::deployment::Deployment;
use super::endpoint::Endpoint;
use super::fetch::Fetch;
use super::functions::Refused;
use super::instance::{Instance, id_of};
use super::start::{Outcome, Purpose, Source, Start};
use crate::containerd::{Supply, Task};
use crate::desired::{Document, Rest, Scale};
use crate::error::Result;

/// Where somebody waits for an answer.
type Reply = oneshot::Sender<Result<(), Refused>>;

impl Actor {
    pub(super) async fn obey(&mut self, command: Command) {
        match command {
            Command::Look | Command::Removed => {}
            Command::Ended { id, status } => {
                self.ends.insert(id, status);
            }
            Command::Unwell { id, reason } => {
                if let Some(at) = self.serving.iter().position(|serving| serving.instance.id == id) {
                    let serving = self.serving.swap_remove(at);
                    self.give_up(&serving, &reason);
                }
            }
            Command::Started { replica, outcome } => self.started(replica, outcome).await,
            command @ (Command::Deploy { .. } | Command::Scale { .. } | Command::Delete { .. })
                if self.deployment.is_some() =>
            {
                self.later.push_back(command);
            }
            Command::Deploy { document, supply, replace, reply } => {
                if let Err((error, supply, reply)) = self.deploy(*document, supply, replace, reply).await {
                    self.world.containerd.let_go(*supply).await;
                    let _ = reply.send(Err(error));
                }
            }
            // Who asked has gone, and asks again if it still matters.
            Command::Scale { reply, .. } if reply.is_closed() => {}
            Command::Scale { replicas, reply } => match self.scale(replicas).await {
                Ok(ids) => self.farewells.wait(ids, reply),
                Err(error) => drop(reply.send(Err(error))),
            },
            Command::Wake => self.wake().await,
            // A new version is on its way: the next look finds what is then.
            Command::Rest { .. } | Command::Fit { .. } if self.deployment.is_some() => {}
            Command::Rest { idle } => self.rest_when_idle(idle),
            Command::Fit { before, replicas } => self.fit(before, replicas),
            Command::Delete { reply } => match self.delete().await {
                Ok(ids) => self.farewells.wait(ids, reply),
                Err(error) => drop(reply.send(Err(error))),
            },
        }
    }

    /// Begins to start the new instances beside the old ones; only when all are ready is the document written and the old
    /// ones left to their last calls. Whatever fails before that changes nothing.
    async fn deploy(
        &mut self,
        document: Document,
        supply: Box<Supply>,
        replace: bool,
        reply: Reply,
    ) -> Result<(), (Refused, Box<Supply>, Reply)> {
        let old = self.document.as_ref();
        match (replace, old.is_some_and(|old| !old.deleted)) {
            (false, true) => return Err((Refused::Exists, supply, reply)),
            (true, false) => return Err((Refused::Absent, supply, reply)),
            _ => {}
        }
        let revision = old.map_or(1, |old| old.revision + 1);
        let declared = old.and_then(|old| old.declared.clone());
        let document = Document { revision, declared, ..document.scaled_like(old) };
        let others = match self.world.instances(&self.function.key).await {
            Ok(others) => others,
            Err(error) => return Err((error.into(), supply, reply)),
        };
        self.function.starting();
        let replicas = self.free(&others, usize::try_from(document.replicas).unwrap_or(usize::MAX));
        for replica in &replicas {
            self.start(&document, *replica, Purpose::Deploy, Source::Image(supply.image.clone()));
        }
        self.deployment = Some(Deployment::new(document, supply, reply, replicas.into_iter().collect()));
        Ok(())
    }

    /// One of a new version's instances is ready, or is not.
    pub(super) async fn deployed(&mut self, replica: u32, outcome: Outcome) {
        let Some(deployment) = &mut self.deployment else { return };
        if !deployment.note(replica, outcome) {
            return;
        }
        let Some(deployment) = self.deployment.take() else { return };
        let Deployment { document, supply, reply, up, left, failure, .. } = deployment;
        let outcome = match failure {
            None => self.take_over(document, &supply, &up).await,
            Some(error) => Err(error),
        };
        self.world.containerd.let_go(*supply).await;
        let outcome = match outcome {
            Ok(()) => {
                self.switch(up);
                Ok(())
            }
            Err(error) => {
                let world = &self.world;
                let removals = up.into_iter().map(|(instance, _)| async move {
                    let removed = world.remove(&instance, Duration::ZERO).await;
                    removed.is_err().then_some(instance)
                });
                let stay: Vec<_> = join_all(removals).await.into_iter().flatten().chain(left).collect();
                // What did not go now is tried again.
                let _ = self.removals.begin(&self.world, &self.function, stay.iter(), Duration::ZERO);
                self.go_back();
                Err(Refused::Failed(error))
            }
        };
        let _ = reply.send(outcome);
        self.heard.append(&mut self.later);
    }

    /// Makes a new version what should be.
    async fn take_over(
        &mut self,
        document: Document,
        supply: &Supply,
        up: &[(Instance, Arc<Endpoint>)],
    ) -> Result<()> {
        let namespace = document.namespace.as_str();
        for (instance, _) in up {
            // The first one may have ended before the last was ready.
            if let Task::Stopped | Task::None = self.world.containerd.task(namespace, &instance.id).await? {
                return Err(self.exit(instance).await.before_ready());
            }
        }
        // The image's name before the document: what the document names must be what was tried. The disk may refuse
        // both: then the old document stays what should be, and what runs.
        let former = self.world.containerd.keep(supply).await?;
        let (image, old) = (document.image.clone(), self.document.as_ref().map(|old| old.image.clone()));
        if let Err(error) = self.save(document).await {
            // Others may run what the reference stood for.
            if let Err(second) = self.world.containerd.restore(supply, former).await {
                tracing::warn!("{second}");
            }
            return Err(error);
        }
        if let Some(old) = old.filter(|old| *old != image) {
            self.let_image_go(old);
        }
        self.note_use(image);
        Ok(())
    }

    /// Calls go to these from now on. `converge` removes the old ones as soon as their calls have ended.
    fn switch(&mut self, up: Vec<(Instance, Arc<Endpoint>)>) {
        self.fetch = None;
        self.backoff.reset();
        self.not_before = None;
        self.functions.notices.clear(&self.function.key);
        self.functions.notices.set_missing(&self.function.key, None);
        self.functions.notices.set_misread(&self.function.key, None);
        self.function.counts.touch();
        self.function.counts.exits.forget_last();
        let previous = std::mem::take(&mut self.serving);
        self.give_up_rest();
        self.starts.values_mut().for_each(Start::give_up);
        self.function.switch(up.iter().map(|(_, endpoint)| endpoint.clone()).collect());
        for (instance, endpoint) in up {
            self.serve(instance, endpoint);
        }
        for serving in previous {
            self.leave(&serving);
        }
    }

    /// After a deployment that came to nothing: what serves was not touched.
    fn go_back(&self) {
        if self.serving.is_empty() && !self.document.as_ref().is_some_and(Document::wants_instance) {
            self.function.close();
        }
    }

    /// Lets it run again because of a call, which does not wait for the disk: the document is written while the instance
    /// starts. Where that fails it runs all the same, and rests again after the machine's next start.
    pub(super) async fn wake(&mut self) {
        let Some(document) = self.document.clone().filter(|document| !document.deleted) else {
            // The call must not wait for what will not come.
            self.function.close();
            return;
        };
        if document.replicas > 0 {
            return;
        }
        self.backoff.reset();
        self.not_before = None;
        let replicas = Scale::of(&document.labels).initial();
        let document = Document { replicas, by_hand: false, ..document };
        self.function.counts.touch();
        self.pen.write_behind(&self.world.store, &self.function.key, &document);
        self.set_document(Some(document.clone()));
        // What could not be had while nobody wanted it may be there now.
        if self.fetch.as_ref().is_some_and(Fetch::is_over) {
            self.fetch = None;
        }
        self.rouse(&document);
    }

    /// Gives the instances that are gone when it is done.
    async fn scale(&mut self, replicas: u64) -> Result<HashSet<String>, Refused> {
        let Some(document) = self.document.clone().filter(|document| !document.deleted) else {
            return Err(Refused::Absent);
        };
        let scale = Scale::of(&document.labels);
        let replicas = scale.clamp(replicas);
        // Its load leaves what somebody asked for, until it asks for more.
        let by_hand = replicas > 0 && scale.load.is_some();
        self.function.counts.touch();
        if document.replicas == replicas {
            if document.by_hand != by_hand {
                self.save(Document { by_hand, ..document }).await?;
            }
            return Ok(HashSet::new());
        }
        self.backoff.reset();
        self.not_before = None;
        let document = Document { replicas, by_hand, ..document };
        if replicas > 0 {
            // Before anybody sees the number: a call that comes now waits for what is about to start.
            self.function.starting();
        }
        if let Err(error) = self.save(document.clone()).await {
            self.go_back();
            return Err(error.into());
        }
        if replicas > 0 {
            return Ok(HashSet::new());
        }
        self.fetch = None;
        self.function.close();
        if scale.rest == Rest::Frozen {
            return Ok(HashSet::new());
        }
        self.let_go();
        Ok(self.all_ids().await?)
    }

    /// Lets it rest because nobody calls it. Like a wish of somebody's, but that a call which comes at this moment wins, and
    /// that nobody waits for the disk.
    fn rest_when_idle(&mut self, after: Duration) {
        let Some(document) = self.document.clone().filter(Document::wants_instance) else { return };
        let scale = Scale::of(&document.labels);
        if scale.zero.is_none() {
            return;
        }
        let resting = Document { replicas: 0, by_hand: false, ..document.clone() };
        // First what should be: a call that finds the way closed looks there whether it can wake.
        self.set_document(Some(resting.clone()));
        if !self.function.close_if_idle(after) {
            self.set_document(Some(document));
            return;
        }
        tracing::info!("{}: nobody has called it for {} s, it rests", self.function.key, after.as_secs());
        self.pen.write_behind(&self.world.store, &self.function.key, &resting);
        self.backoff.reset();
        self.not_before = None;
        self.fetch = None;
        if scale.rest != Rest::Frozen {
            self.let_go();
        }
    }

    /// Lets as many run as the load asks for. Nobody waits for the disk: after a power cut the load asks again.
    fn fit(&mut self, before: u64, replicas: u64) {
        let Some(document) = self.document.clone().filter(Document::wants_instance) else { return };
        let replicas = Scale::of(&document.labels).clamp(replicas);
        // Somebody may have asked for another number meanwhile.
        if document.replicas != before || replicas == 0 || replicas == before {
            return;
        }
        tracing::info!("{}: its load asks for {replicas} instances, it had {before}", self.function.key);
        let document = Document { replicas, by_hand: false, ..document };
        self.pen.write_behind(&self.world.store, &self.function.key, &document);
        self.set_document(Some(document));
        if replicas > before {
            self.function.counts.touch();
            self.function.starting();
        }
    }

    /// Gives the instances that are gone when it is done.
    async fn delete(&mut self) -> Result<HashSet<String>, Refused> {
        let Some(document) = self.document.clone().filter(|document| !document.deleted) else {
            return Err(Refused::Absent);
        };
        // Where containerd is away nothing is changed, so that the same request can be made again.
        let ids = self.all_ids().await?;
        let image = document.image.clone();
        if document.declared.is_some() {
            // Remembered as deleted, or the configuration would bring it back at the next start.
            self.save(Document { deleted: true, ..document }).await?;
        } else {
            self.pen.remove(&self.world.store, &self.function.key).await?;
            self.set_document(None);
        }
        self.functions.notices.set_missing(&self.function.key, None);
        self.functions.notices.set_misread(&self.function.key, None);
        self.function.close();
        self.let_go();
        self.let_image_go(image);
        Ok(ids)
    }

    /// The instances that there are, and those on their way.
    async fn all_ids(&self) -> Result<HashSet<String>> {
        let listed = self.world.instances(&self.function.key).await?;
        let coming = self.starts.keys().map(|replica| id_of(&self.function.key, *replica));
        Ok(listed.into_iter().map(|instance| instance.id).chain(coming).collect())
    }

    /// This function is of an image now. Nobody waits until that is written down.
    fn note_use(&self, image: String) {
        let (world, function) = (self.world.clone(), self.function.clone());
        tokio::spawn(async move { world.note_use(&function.key.namespace, &image).await });
    }

    /// This function is of an image no more. Nobody waits until that goes.
    fn let_image_go(&self, image: String) {
        let (world, function) = (self.world.clone(), self.function.clone());
        tokio::spawn(async move { world.let_image_go(&function.key.namespace, &image).await });
    }

    async fn save(&mut self, document: Document) -> Result<()> {
        self.pen.write(&self.world.store, &self.function.key, &document).await?;
        self.set_document(Some(document));
        Ok(())
    }
}

//! What an actor is told to do.

use std::sync::Arc;

use super::actor::Actor;
use super::command::Command;
use super::endpoint::Endpoint;
use super::functions::Refused;
use super::scale::{Rest, Scale};
use crate::containerd::Supply;
use crate::desired::Document;
use crate::error::Result;

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
                    self.replace(&serving, &format!("it is not well: {reason}"));
                    self.leave(serving);
                }
            }
            Command::Deploy { document, supply, replace, reply } => {
                let outcome = self.deploy(*document, &supply, replace).await;
                self.world.containerd.let_go(*supply).await;
                let _ = reply.send(outcome);
            }
            Command::Scale { replicas, reply } => {
                let outcome = self.scale(replicas).await;
                let _ = reply.send(outcome);
            }
            Command::Wake => self.wake().await,
            Command::Delete { reply } => {
                let outcome = self.delete().await;
                let _ = reply.send(outcome);
            }
        }
    }

    /// Starts the new instances beside the old ones; only when all are ready is the document written and the old ones
    /// left to their last calls. Whatever fails before that changes nothing.
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
        // An update keeps the scale, except that what rests is seen to work.
        let scale = Scale::of(&document.labels);
        let before = old.filter(|old| old.wants_instance()).map(|old| old.replicas);
        document.replicas = scale.clamp(before.unwrap_or(scale.initial()));
        let former = old.map(|old| old.image.clone());
        let others = self.world.instances(&self.function.key).await?;
        self.function.starting();
        let count = usize::try_from(document.replicas).unwrap_or(usize::MAX);
        let (mut up, mut failure) = (Vec::new(), None);
        for outcome in self.bring_up(&document, &others, &supply.image, count).await {
            match outcome {
                Ok(instance) => up.push(instance),
                Err(error) => failure = Some(error),
            }
        }
        if failure.is_none() {
            // The image's name before the document: what the document names must be what was tried. The disk may refuse
            // both: then the old document stays what should be, and what runs.
            failure = match self.world.containerd.keep(supply).await {
                Ok(former) => match self.save(document).await {
                    Ok(()) => None,
                    Err(error) => {
                        // Others may run what the reference stood for.
                        if let Err(second) = self.world.containerd.restore(supply, former).await {
                            tracing::warn!("{second}");
                        }
                        Some(error)
                    }
                },
                Err(error) => Some(error),
            };
        }
        if let Some(error) = failure {
            for (instance, _) in &up {
                self.discard(instance).await;
            }
            self.go_back();
            return Err(error.into());
        }
        if let Some(former) = former {
            self.drop_image(former);
        }
        self.fetch = None;
        self.backoff.reset();
        self.not_before = None;
        self.functions.notices.clear(&self.function.key);
        self.functions.notices.set_missing(&self.function.key, None);
        // `converge` removes the old ones as soon as their calls have ended.
        let previous = std::mem::take(&mut self.serving);
        self.give_up_rest();
        let up: Vec<_> = up.into_iter().map(|(i, address)| (i, Arc::new(Endpoint::new(address)))).collect();
        self.function.switch(up.iter().map(|(_, endpoint)| endpoint.clone()).collect());
        for (instance, endpoint) in up {
            self.serve(instance, endpoint);
        }
        for serving in previous {
            self.leave(serving);
        }
        Ok(())
    }

    /// After a deployment that came to nothing: what serves was not touched.
    fn go_back(&self) {
        if self.serving.is_empty() && !self.document.as_ref().is_some_and(Document::wants_instance) {
            self.function.close();
        }
    }

    /// Lets it run again because of a call, which does not wait for the disk: the document is written while the instance
    /// starts. Where that fails it runs all the same, and rests again after the machine's next start.
    async fn wake(&mut self) {
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
        let document = Document { replicas, ..document };
        self.pen.write_behind(&self.world.store, &self.function.key, &document);
        self.function.set_document(Some(document.clone()));
        self.document = Some(document.clone());
        self.rouse(&document).await;
    }

    async fn scale(&mut self, replicas: u64) -> Result<(), Refused> {
        let Some(document) = self.document.clone().filter(|document| !document.deleted) else {
            return Err(Refused::Absent);
        };
        let scale = Scale::of(&document.labels);
        let replicas = scale.clamp(replicas);
        if document.replicas == replicas {
            return Ok(());
        }
        self.backoff.reset();
        self.not_before = None;
        let document = Document { replicas, ..document };
        if replicas > 0 {
            // Before anybody sees the number: a call that comes now waits for what is about to start.
            self.function.starting();
        }
        if let Err(error) = self.save(document.clone()).await {
            self.go_back();
            return Err(error.into());
        }
        if replicas == 0 {
            self.fetch = None;
            self.function.close();
            if scale.rest == Rest::Stopped {
                self.clear_all().await?;
            }
        }
        Ok(())
    }

    async fn delete(&mut self) -> Result<(), Refused> {
        let Some(document) = self.document.clone().filter(|document| !document.deleted) else {
            return Err(Refused::Absent);
        };
        // Where containerd is away nothing is changed, so that the same request can be made again.
        self.world.instances(&self.function.key).await?;
        let image = document.image.clone();
        if document.declared.is_some() {
            // Remembered as deleted, or the configuration would bring it back at the next start.
            self.save(Document { deleted: true, ..document }).await?;
        } else {
            self.pen.remove(&self.world.store, &self.function.key).await?;
            self.document = None;
            self.function.set_document(None);
        }
        self.functions.notices.set_missing(&self.function.key, None);
        self.function.close();
        let cleared = self.clear_all().await;
        self.drop_image(image);
        Ok(cleared?)
    }

    /// Removes an image that this function does not need any more, where no other does. Nobody waits for that.
    fn drop_image(&self, image: String) {
        let (world, functions, function) =
            (self.world.clone(), self.functions.clone(), self.function.clone());
        tokio::spawn(async move { world.drop_image(&functions, &function.key.namespace, &image).await });
    }

    /// Returns when nothing is left. What could not be removed is the error, and is tried again by `converge`: the
    /// caller's wish is on disk.
    async fn clear_all(&mut self) -> Result<()> {
        self.let_go();
        self.removals.settle();
        let instances = self.world.instances(&self.function.key).await?;
        self.clear(&instances);
        self.removals.finish().await
    }

    async fn save(&mut self, document: Document) -> Result<()> {
        self.pen.write(&self.world.store, &self.function.key, &document).await?;
        self.function.set_document(Some(document.clone()));
        self.document = Some(document);
        Ok(())
    }
}

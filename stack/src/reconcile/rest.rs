//! What a function is while it is scaled to none: one instance that the next call finds at hand, stopped or frozen.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::OwnedSemaphorePermit;
use tokio::task::AbortHandle;

use super::actor::Actor;
use super::command::Command;
use super::endpoint::Endpoint;
use super::group;
use super::instance::{Instance, PORT};
use super::start::{Purpose, Source, address};
use super::watcher::watch;
use crate::containerd::{Image, Task};
use crate::desired::{Document, Rest, Scale};
use crate::error::{Error, Result};

/// An instance that nobody is let into.
pub struct Resting {
    /// Which.
    pub instance: Instance,
    form: Form,
    /// The task that waits for the end of its process.
    watcher: AbortHandle,
}

impl Resting {
    /// Whether its process ever ran.
    pub fn has_begun(&self) -> bool {
        !matches!(self.form, Form::Prepared(_))
    }
}

impl Drop for Resting {
    fn drop(&mut self) {
        self.watcher.abort();
    }
}

enum Form {
    /// Made, and its process waits to be begun. The place is one of those that the machine has for such.
    Prepared(OwnedSemaphorePermit),
    /// It runs, until its last call has ended. How long its process may take to end, if it has to.
    Emptying(Arc<Endpoint>, Duration),
    /// Its processes stand still.
    Frozen,
}

impl Actor {
    /// Keeps what the next call will find at hand. Returns when to look again.
    pub(super) async fn keep_resting(
        &mut self,
        document: &Document,
        instances: &[Instance],
    ) -> Option<Duration> {
        let rest = Scale::of(&document.labels).rest;
        self.functions.notices.clear(&self.function.key);
        self.function.rest();
        let freezes = |actor: &Self, instance: &Instance| {
            let group = actor.group(instance).filter(|_| rest == Rest::Frozen);
            group.is_some_and(|group| group.join("cgroup.freeze").exists())
        };
        let mut left = std::mem::take(&mut self.serving);
        if self.resting.is_none() {
            // A former life's, where none has served in this one.
            let found = self.good(instances, Task::Alive).find(|i| freezes(self, i)).cloned();
            if let Some(at) = left.iter().position(|serving| freezes(self, &serving.instance)) {
                let serving = left.swap_remove(at);
                let grace = serving.grace;
                self.resting = Some(self.empty(serving.instance.clone(), serving.endpoint.clone(), grace));
            } else if let Some((found, address)) = found.and_then(|i| Some((i.clone(), address(&i).ok()?))) {
                let (endpoint, grace) = (Arc::new(Endpoint::new(address)), self.world.grace(Some(document)));
                self.resting = Some(self.empty(found, endpoint, grace));
            }
        }
        for serving in left {
            self.leave(&serving);
        }
        if let Err(error) = self.freeze_when_empty().await {
            tracing::warn!("{}: it is stopped instead of frozen: {error}", self.function.key);
            self.give_up_rest();
        }
        let coming = self.starts.values().any(|start| matches!(start.purpose, Purpose::Rest(_)));
        if self.resting.is_some() || coming {
            return None;
        }
        let Ok(place) = self.world.prepared.clone().try_acquire_owned() else { return None };
        let found = self.good(instances, Task::Created).next().cloned();
        if let Some(found) = found {
            self.rest(found, place);
            return None;
        }
        if !self.function.was_attempted() {
            // What should run comes before what should not.
            return Some(Duration::ZERO);
        }
        if let Some(wait) = self.held() {
            return Some(wait);
        }
        match self.resting_image(document).await {
            Some(Ok(image)) => {
                if let [replica] = self.free(instances, 1)[..] {
                    self.start(document, replica, Purpose::Rest(place), Source::Image(image));
                }
                None
            }
            Some(Err(error)) => {
                self.fail_to_rest(&error);
                self.held()
            }
            None => None,
        }
    }

    /// Keeps an instance for the next call.
    pub(super) fn rest(&mut self, instance: Instance, place: OwnedSemaphorePermit) {
        self.resting = Some(self.watched(instance, Form::Prepared(place)));
    }

    /// The next call will have to wait longer: that is told, and tried again.
    pub(super) fn fail_to_rest(&mut self, error: &Error) {
        tracing::warn!("{}: nothing is at hand for the next call: {error}", self.function.key);
        self.not_before = Some(Instant::now() + self.without_image(error));
    }

    /// The image, if it can be had on the machine: what rests is no reason to ask a registry. The call that wakes it is.
    async fn resting_image(&mut self, document: &Document) -> Option<Result<Image>> {
        if self.world.brought(document) {
            return self.image(document).await;
        }
        self.fetch = None;
        self.world.at_hand(document).await.map(Ok)
    }

    /// Waits for the last call of an instance in the background.
    fn empty(&self, instance: Instance, endpoint: Arc<Endpoint>, grace: Duration) -> Resting {
        let (function, last) = (self.function.clone(), endpoint.clone());
        tokio::spawn(async move {
            last.idle().await;
            let _ = function.mailbox.send(Command::Look);
        });
        self.watched(instance, Form::Emptying(endpoint, grace))
    }

    /// Hears of the end of its process: the next call must not be the one that finds out.
    fn watched(&self, instance: Instance, form: Form) -> Resting {
        let endpoint = match &form {
            Form::Emptying(endpoint, _) => endpoint.clone(),
            // Nobody is let into it.
            Form::Prepared(_) | Form::Frozen => Arc::new(Endpoint::new(([0, 0, 0, 0], PORT).into())),
        };
        let watching = watch(self.world.clone(), self.function.clone(), instance.clone(), endpoint);
        Resting { instance, form, watcher: tokio::spawn(watching).abort_handle() }
    }

    async fn freeze_when_empty(&mut self) -> Result<()> {
        let Some(resting) = &mut self.resting else { return Ok(()) };
        let instance = &resting.instance;
        let group = group::folder(&self.world.settings.cgroup_root, &instance.key, instance.replica);
        if let (Form::Emptying(endpoint, _), Some(folder)) = (&resting.form, group)
            && endpoint.calls() == 0
        {
            group::freeze(&folder).await?;
            tracing::info!("{} is frozen", instance.name());
            resting.form = Form::Frozen;
        }
        Ok(())
    }

    /// Keeps nothing at hand any more; what still has calls is left to them.
    pub(super) fn give_up_rest(&mut self) {
        if let Some(resting) = self.resting.take()
            && let Form::Emptying(endpoint, grace) = &resting.form
        {
            self.removals.let_end(&resting.instance.id, endpoint.clone(), *grace);
        }
    }

    /// Lets calls into the instance that rests, or begins it. Whether there was one; where it is of no use, there was none.
    pub(super) fn rouse(&mut self, document: &Document) -> bool {
        let Some(mut resting) = self.resting.take() else { return false };
        let instance = resting.instance.clone();
        let roused = match std::mem::replace(&mut resting.form, Form::Frozen) {
            Form::Emptying(endpoint, _) => Ok(endpoint),
            Form::Frozen => match self.thaw(&instance) {
                Ok(Some(endpoint)) => Ok(endpoint),
                Ok(None) => {
                    self.bury_rested(&instance);
                    Err(Error::Invalid { what: instance.name(), reason: "has ended".into() })
                }
                Err(error) => Err(error),
            },
            Form::Prepared(_place) => {
                self.start(document, instance.replica, Purpose::Serve, Source::Prepared(instance));
                return true;
            }
        };
        match roused {
            Ok(endpoint) => {
                self.function.let_in(endpoint.clone());
                self.serve(instance, endpoint);
                true
            }
            Err(error) => {
                tracing::warn!("{}: what was at hand is of no use: {error}", self.function.key);
                let useless = std::iter::once(&instance);
                // Where it must wait, the next look does it.
                let _ = self.removals.begin(&self.world, &self.function, useless, Duration::ZERO);
                false
            }
        }
    }

    /// It answered before, so it does at once; nothing where it has ended.
    fn thaw(&self, instance: &Instance) -> Result<Option<Arc<Endpoint>>> {
        let address = address(instance)?;
        if let Some(folder) = self.group(instance) {
            group::thaw(&folder)?;
            if !group::is_populated(&folder) {
                return Ok(None);
            }
        }
        Ok(Some(Arc::new(Endpoint::new(address))))
    }
}

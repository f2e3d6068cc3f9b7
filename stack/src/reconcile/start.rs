//! Instances on their way to answering: each in a task of its own, so that the actor hears what it is told meanwhile.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::command::Command;
use super::endpoint::Endpoint;
use super::ends::note_failure;
use super::exit::Exit;
use super::function::Function;
use super::instance::{Instance, PORT};
use super::probe::{Probe, Probes};
use super::watcher::end_of;
use super::{World, group, ready};
use crate::containerd::{Image, Task};
use crate::desired::Document;
use crate::error::{Error, Result};

/// What an instance is started for.
pub enum Purpose {
    /// Calls are let into it as soon as it is ready.
    Serve,
    /// It waits for a call that may come. The place is one of those that the machine has for such.
    Rest(OwnedSemaphorePermit),
    /// It takes over from others, together with those that are started beside it.
    Deploy,
}

/// What it begins with.
pub enum Source {
    /// Nothing but its image.
    Image(Image),
    /// An instance whose process has not begun.
    Prepared(Instance),
    /// An instance that runs since a former life.
    Alive(Instance),
}

/// What came of it.
pub enum Outcome {
    /// It is ready.
    Up(Instance, Arc<Endpoint>),
    /// Its process waits to be begun.
    Prepared(Instance),
    /// It runs since a former life, and does not say that it is ready.
    Unready(Instance, Arc<Endpoint>, String),
    /// Nothing. What is there of it all the same is to be removed.
    Failed(Error, Option<Instance>),
}

/// One start under way.
pub struct Start {
    /// Digest of the document that it is made from.
    pub digest: String,
    /// What for.
    pub purpose: Purpose,
    /// Whether it was prepared before it was wanted.
    pub was_at_hand: bool,
    /// Dropped when nobody wants it any more.
    wanted: Option<oneshot::Sender<()>>,
}

impl Start {
    /// Begins it; the actor is told of its end.
    pub fn begin(
        world: &Arc<World>,
        function: &Arc<Function>,
        document: &Document,
        replica: u32,
        purpose: Purpose,
        source: Source,
    ) -> Self {
        let (wanted, unwanted) = oneshot::channel();
        let way = Way { world: world.clone(), function: function.clone(), document: document.clone() };
        let (digest, opens) = (document.digest(), matches!(purpose, Purpose::Serve));
        let rests = matches!(purpose, Purpose::Rest(_));
        let was_at_hand = matches!(source, Source::Prepared(_));
        tokio::spawn(async move {
            let outcome = way.go(replica, source, rests, unwanted).await;
            if let (Outcome::Up(_, endpoint), true) = (&outcome, opens) {
                // At once: the actor may be looking.
                way.function.arrived(endpoint.clone());
            }
            let _ = way.function.mailbox.send(Command::Started { replica, outcome });
        });
        Self { digest, purpose, was_at_hand, wanted: Some(wanted) }
    }

    /// Nobody wants it any more: it need not become ready.
    pub fn give_up(&mut self) {
        self.wanted = None;
    }

    /// Whether somebody wants it.
    pub fn is_wanted(&self) -> bool {
        self.wanted.is_some()
    }
}

/// What a start needs.
struct Way {
    world: Arc<World>,
    function: Arc<Function>,
    document: Document,
}

impl Way {
    async fn go(
        &self,
        replica: u32,
        source: Source,
        rests: bool,
        unwanted: oneshot::Receiver<()>,
    ) -> Outcome {
        match source {
            Source::Alive(instance) => self.find_again(instance, unwanted).await,
            Source::Prepared(instance) => self.bring_up(instance, unwanted).await,
            Source::Image(image) => {
                let made = self.world.prepare(&self.function.key, &self.document, replica, &image).await;
                match made {
                    Ok(instance) if rests => Outcome::Prepared(instance),
                    Ok(instance) => self.bring_up(instance, unwanted).await,
                    Err(error) => Outcome::Failed(error, None),
                }
            }
        }
    }

    /// Begins a prepared instance, and returns when it is ready. On failure nothing of it stays, if that can be had.
    async fn bring_up(&self, instance: Instance, unwanted: oneshot::Receiver<()>) -> Outcome {
        let ready = async {
            self.world.begin(&instance).await?;
            tokio::select! {
                ready = self.until_ready(&instance, true) => ready,
                _ = unwanted => Err(not_wanted(&instance)),
            }
        };
        match ready.await {
            Ok(address) => {
                let instance = Instance { task: Task::Alive, ..instance };
                Outcome::Up(instance, Arc::new(Endpoint::new(address)))
            }
            Err(error) => {
                note_failure(&self.world, &self.function, &instance, &error);
                match self.world.remove(&instance, Duration::ZERO).await {
                    Ok(()) => Outcome::Failed(error, None),
                    Err(second) => {
                        tracing::warn!("removing {}: {second}", instance.name());
                        Outcome::Failed(error, Some(instance))
                    }
                }
            }
        }
    }

    /// Lets an instance go on that is there. That it is not ready now is no reason to remove it: it was, and may be again.
    async fn find_again(&self, instance: Instance, unwanted: oneshot::Receiver<()>) -> Outcome {
        let group = group::folder(&self.world.settings.cgroup_root, &instance.key, instance.replica);
        if let Some(Err(error)) = group.map(|folder| group::thaw(&folder)) {
            return Outcome::Failed(error, Some(instance));
        }
        let ready = tokio::select! {
            ready = self.until_ready(&instance, false) => ready,
            // It is removed in good order, like all that nobody wants.
            _ = unwanted => return Outcome::Failed(not_wanted(&instance), None),
        };
        match (ready, address(&instance)) {
            (Ok(address), _) => Outcome::Up(instance, Arc::new(Endpoint::new(address))),
            (Err(error @ Error::NotReady { .. }), Ok(address)) => {
                Outcome::Unready(instance, Arc::new(Endpoint::new(address)), error.to_string())
            }
            (Err(error), _) => {
                note_failure(&self.world, &self.function, &instance, &error);
                Outcome::Failed(error, Some(instance))
            }
        }
    }

    /// Waits until an instance is ready, or its process has ended. One that is not new has been ready: once is enough.
    async fn until_ready(&self, instance: &Instance, is_new: bool) -> Result<SocketAddr> {
        let address = address(instance)?;
        let settings = &self.world.settings;
        let probe = Probes::of(&self.document.annotations).ready;
        let ready = async {
            let mut wanted = probe.as_ref().map(Probe::wanted).unwrap_or_default();
            if is_new {
                tokio::time::sleep(probe.as_ref().map_or(Duration::ZERO, |probe| probe.delay)).await;
            } else {
                wanted.again = 0;
            }
            ready::wait(address, wanted, settings.ready_timeout).await
        };
        tokio::select! {
            ready = ready => ready.map(|()| address),
            status = end_of(&self.world, instance) => {
                Err(Exit::of(&settings.cgroup_root, instance, status).before_ready())
            }
        }
    }
}

fn not_wanted(instance: &Instance) -> Error {
    Error::Invalid { what: instance.name(), reason: "is not wanted any more".into() }
}

/// Where an instance will answer.
pub fn address(instance: &Instance) -> Result<SocketAddr> {
    let ip = instance.address.ok_or_else(|| Error::Invalid {
        what: format!("container {}", instance.id),
        reason: "has no address".into(),
    })?;
    Ok((ip, PORT).into())
}

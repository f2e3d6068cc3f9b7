//! The one place that changes a function's containers: what is, and how it comes to be what should be. What it is told
//! is in `orders`, what it keeps while nothing should run in `rest`.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::sync::mpsc;

use super::backoff::Backoff;
use super::command::Command;
use super::endpoint::Endpoint;
use super::fetch::Fetch;
use super::functions::{Function, Functions};
use super::instance::{Instance, PORT};
use super::pen::Pen;
use super::probe::{Probes, follow};
use super::removal::Removals;
use super::rest::Resting;
use super::serving::Serving;
use super::watcher::watch;
use super::{World, cause, group, pause, ready};
use crate::containerd::{Image, Task};
use crate::desired::Document;
use crate::error::{Error, Result};

/// A function's actor.
pub struct Actor {
    pub(super) world: Arc<World>,
    pub(super) functions: Arc<Functions>,
    pub(super) function: Arc<Function>,
    pub(super) document: Option<Document>,
    mail: mpsc::UnboundedReceiver<Command>,
    /// Instances that calls are let into.
    pub(super) serving: Vec<Serving>,
    /// What the next call finds at hand while the function is scaled to none.
    pub(super) resting: Option<Resting>,
    /// The image of what should run, on its way.
    pub(super) fetch: Option<Fetch>,
    /// Instances on their way out.
    pub(super) removals: Removals,
    /// How the processes ended of which nothing was made yet.
    pub(super) ends: HashMap<String, Option<u32>>,
    pub(super) backoff: Backoff,
    /// No start before that moment.
    pub(super) not_before: Option<Instant>,
    /// Looks at containerd that failed in a row.
    blind: u32,
    pub(super) pen: Pen,
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
        Self {
            world,
            functions,
            function,
            document,
            mail,
            serving: Vec::new(),
            resting: None,
            fetch: None,
            removals: Removals::default(),
            ends: HashMap::new(),
            backoff: Backoff::default(),
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
            if self.fetch.is_none() {
                self.function.set_attempted();
            }
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
        if self.serving.is_empty() || !self.functions.notices.has(&self.function.key) {
            return None;
        }
        let left = self.serving.iter().filter_map(Serving::until_well).max();
        if left.is_none() {
            self.functions.notices.clear(&self.function.key);
        }
        left
    }

    /// Looks, and acts once. Returns when to look again, if nothing happens before.
    async fn converge(&mut self) -> Option<Duration> {
        self.removals.settle();
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
        self.bury(&instances);
        let again = match self.document.clone() {
            Some(document) if document.wants_instance() => self.keep_running(&document, &instances).await,
            Some(document) if !document.deleted => self.keep_resting(&document, &instances).await,
            _ => {
                self.let_go();
                None
            }
        };
        self.clear(&instances).or(again)
    }

    /// Those of the instances that a document asks for, in a state, and not on their way out.
    pub(super) fn good<'a>(
        &'a self,
        instances: &'a [Instance],
        document: &Document,
        task: Task,
    ) -> impl Iterator<Item = &'a Instance> {
        let digest = document.digest();
        instances.iter().filter(move |i| i.task == task && i.digest == digest && !self.removals.has(&i.id))
    }

    /// Takes note of instances that served, or were to, and whose processes have ended.
    fn bury(&mut self, instances: &[Instance]) {
        let is = |id: &str, task: &[Task]| instances.iter().any(|i| i.id == id && task.contains(&i.task));
        if self.resting.as_ref().is_some_and(|r| !is(&r.instance.id, &[Task::Created, Task::Alive])) {
            self.resting = None;
        }
        let (serving, ended): (Vec<_>, Vec<_>) =
            self.serving.drain(..).partition(|serving| is(&serving.instance.id, &[Task::Alive]));
        self.serving = serving;
        let wanted = self.document.as_ref().is_some_and(Document::wants_instance);
        for ended in ended {
            self.function.left(&ended.endpoint);
            if wanted {
                let status = self.ends.remove(&ended.instance.id).flatten();
                let cause = cause::of(&self.world.settings.cgroup_root, &ended.instance, status);
                self.replace(&ended, &cause);
            }
        }
        self.ends.clear();
    }

    /// An instance is lost: another one takes its place, at once or a while later.
    pub(super) fn replace(&mut self, lost: &Serving, cause: &str) {
        let delay = self.backoff.ended(lost.since);
        tracing::warn!("{}: {cause}, start again in {} ms", self.function.key, delay.as_millis());
        self.functions.notices.set(&self.function.key, cause);
        self.not_before = Some(Instant::now() + delay);
        if delay.is_zero() {
            self.function.starting();
        } else {
            self.function.failed(cause);
        }
    }

    /// Lets as many instances run as the document wants, of those that there are and new ones.
    async fn keep_running(&mut self, document: &Document, instances: &[Instance]) -> Option<Duration> {
        let wanted = usize::try_from(document.replicas).unwrap_or(usize::MAX);
        let known = |actor: &Self, id: &str| {
            actor.serving.iter().any(|serving| serving.instance.id == id)
                || actor.resting.as_ref().is_some_and(|resting| resting.instance.id == id)
        };
        // A former life's.
        let found: Vec<_> = self.good(instances, document, Task::Alive).cloned().collect();
        let found: Vec<_> = found.into_iter().filter(|found| !known(self, &found.id)).collect();
        if !found.is_empty() {
            let adopted = join_all(found.into_iter().map(|instance| self.adopt(instance, document))).await;
            self.settle(adopted);
        }
        self.shrink(wanted);
        if self.serving.len() < wanted {
            if let Some(wait) = self.held() {
                return Some(wait);
            }
            self.function.starting();
            if self.resting.is_some() {
                self.rouse(document).await;
            } else {
                // What was prepared in a former life.
                let prepared = self.good(instances, document, Task::Created);
                let prepared: Vec<_> = prepared.take(wanted - self.serving.len()).cloned().collect();
                let begun = prepared.into_iter().map(|instance| self.begin(instance, document));
                let begun = join_all(begun).await;
                self.settle(begun);
            }
            let missing = wanted - self.serving.len();
            if missing > 0 {
                match self.image(document).await {
                    Some(Ok(image)) => {
                        let started = self.bring_up(document, instances, &image, missing).await;
                        self.settle(started);
                    }
                    Some(Err(error)) => {
                        let delay = self.without_image(&error);
                        self.hold_back(delay, &error.to_string());
                    }
                    // Its end is a reason to look.
                    None => return None,
                }
            }
        }
        (self.serving.len() < wanted).then(|| self.held().unwrap_or_default())
    }

    /// The image of what should run. It is fetched beside us where it is not at hand: nothing yet, then.
    pub(super) async fn image(&mut self, document: &Document) -> Option<Result<Image>> {
        match &mut self.fetch {
            Some(fetch) if fetch.is_for(document) => {
                let outcome = fetch.outcome()?;
                self.fetch = None;
                return Some(outcome);
            }
            _ => self.fetch = None,
        }
        if let Some(image) = self.world.at_hand(document).await {
            return Some(Ok(image));
        }
        self.fetch = Some(Fetch::begin(&self.world, &self.function, document));
        None
    }

    /// How long to wait after an image could not be had.
    pub(super) fn without_image(&mut self, error: &Error) -> Duration {
        match error {
            error if error.is_lasting() => self.backoff.without_image(true),
            Error::Pull { .. } => self.backoff.without_image(false),
            _ => self.backoff.failed(),
        }
    }

    /// Waits until an instance of a former life answers.
    async fn adopt(&self, instance: Instance, document: &Document) -> Result<(Instance, SocketAddr)> {
        if let Some(folder) = self.group(&instance) {
            group::thaw(&folder)?;
        }
        let address = self.until_ready(&instance, document).await?;
        Ok((instance, address))
    }

    /// Takes those out of service that are too many: the idlest.
    fn shrink(&mut self, wanted: usize) {
        let surplus = self.serving.len().saturating_sub(wanted);
        self.serving.sort_by_key(|serving| (serving.endpoint.calls(), serving.instance.replica));
        for serving in self.serving.drain(..surplus).collect::<Vec<_>>() {
            self.leave(serving);
        }
    }

    /// Lets nobody into an instance any more, and remembers that it may still have calls.
    pub(super) fn leave(&mut self, serving: Serving) {
        self.function.left(&serving.endpoint);
        self.removals.let_end(&serving.instance.id, serving.endpoint.clone());
    }

    /// Keeps nothing: `clear` removes what there is.
    pub(super) fn let_go(&mut self) {
        self.functions.notices.clear(&self.function.key);
        self.function.rest();
        self.give_up_rest();
        self.fetch = None;
        for serving in std::mem::take(&mut self.serving) {
            self.leave(serving);
        }
    }

    /// Starts so many instances beside those there are; gives those that are ready. Nobody is let in yet.
    pub(super) async fn bring_up(
        &self,
        document: &Document,
        others: &[Instance],
        image: &Image,
        count: usize,
    ) -> Vec<Result<(Instance, SocketAddr)>> {
        let new = self.free(others).take(count);
        join_all(new.map(|replica| async move {
            let instance = self.world.prepare(&self.function.key, document, replica, image).await?;
            let begun = self.begin(instance.clone(), document).await;
            if begun.is_err() {
                self.discard(&instance).await;
            }
            begun
        }))
        .await
    }

    /// Numbers that no instance has, whatever its state.
    pub(super) fn free<'a>(&'a self, others: &'a [Instance]) -> impl Iterator<Item = u32> + 'a {
        let taken = move |replica: &u32| {
            let own = self.serving.iter().map(|serving| &serving.instance);
            own.chain(others).any(|other| other.replica == *replica)
        };
        (0..).filter(move |replica| !taken(replica) && self.world.is_free(&self.function.key, *replica))
    }

    /// Begins a prepared instance, and returns when it is ready.
    pub(super) async fn begin(
        &self,
        instance: Instance,
        document: &Document,
    ) -> Result<(Instance, SocketAddr)> {
        self.world.begin(&instance).await?;
        let address = self.until_ready(&instance, document).await?;
        Ok((Instance { task: Task::Alive, ..instance }, address))
    }

    /// Removes a new instance that nobody was let into. What does not go now is found at the next look.
    pub(super) async fn discard(&self, instance: &Instance) {
        if let Err(error) = self.world.remove(instance, Duration::ZERO).await {
            tracing::warn!("removing {}: {error}", instance.name());
        }
    }

    /// Waits until an instance is ready.
    async fn until_ready(&self, instance: &Instance, document: &Document) -> Result<SocketAddr> {
        let address = address(instance)?;
        let (namespace, id) = (instance.key.namespace.as_str(), instance.id.as_str());
        let (patience, probe) = (self.world.settings.ready_timeout, Probes::of(&document.annotations).ready);
        let ready = async {
            tokio::time::sleep(probe.as_ref().map_or(Duration::ZERO, |probe| probe.delay)).await;
            ready::wait(address, probe.as_ref().and_then(|probe| probe.path.as_deref()), patience).await
        };
        tokio::select! {
            ready = ready => ready.map(|()| address),
            ended = self.world.containerd.wait_task(namespace, id) => Err(Error::Exited { status: ended? }),
        }
    }

    /// Lets the calls into what came up, or holds the next start back.
    fn settle(&mut self, outcomes: Vec<Result<(Instance, SocketAddr)>>) {
        let mut failure = None;
        for outcome in outcomes {
            match outcome {
                Ok((instance, address)) => {
                    let endpoint = Arc::new(Endpoint::new(address));
                    self.function.let_in(endpoint.clone());
                    self.serve(instance, endpoint);
                }
                Err(error) => failure = Some(error.to_string()),
            }
        }
        match failure {
            Some(reason) => {
                let delay = self.backoff.failed();
                self.hold_back(delay, &reason);
            }
            None => self.not_before = None,
        }
    }

    /// No start before that time is over.
    fn hold_back(&mut self, delay: Duration, reason: &str) {
        self.not_before = Some(Instant::now() + delay);
        self.functions.notices.set(&self.function.key, reason);
        self.function.failed(reason);
    }

    /// Watches the process of an instance that calls are let into. To be called after they are: an end that comes at once
    /// must not be overwritten.
    pub(super) fn serve(&mut self, instance: Instance, endpoint: Arc<Endpoint>) {
        let watching = watch(self.world.clone(), self.function.clone(), instance.clone(), endpoint.clone());
        let mut watchers = vec![tokio::spawn(watching).abort_handle()];
        let probes = self.document.as_ref().map(|d| Probes::of(&d.annotations)).unwrap_or_default();
        if probes != Probes::default() {
            let following = follow(probes, self.function.clone(), instance.id.clone(), endpoint.clone());
            watchers.push(tokio::spawn(following).abort_handle());
        }
        self.serving.push(Serving { instance, endpoint, since: Instant::now(), watchers });
    }

    pub(super) fn held(&self) -> Option<Duration> {
        self.not_before
            .map(|moment| moment.saturating_duration_since(Instant::now()))
            .filter(|left| !left.is_zero())
    }

    /// Begins to remove all instances but those that serve or rest. Returns when to try again, if something could not be
    /// removed.
    pub(super) fn clear(&mut self, instances: &[Instance]) -> Option<Duration> {
        let grace = self.world.grace(self.document.as_ref());
        let kept: Vec<_> = self.serving.iter().map(|serving| &serving.instance.id).collect();
        let rests = self.resting.as_ref().map(|resting| &resting.instance.id);
        let others = instances.iter().filter(|i| !kept.contains(&&i.id) && rests != Some(&i.id));
        self.removals.begin(&self.world, &self.function, others, grace)
    }

    /// An instance's control group, where there are any.
    pub(super) fn group(&self, instance: &Instance) -> Option<std::path::PathBuf> {
        group::folder(&self.world.settings.cgroup_root, &instance.key, instance.replica)
    }
}

/// Where an instance will answer.
pub fn address(instance: &Instance) -> Result<SocketAddr> {
    let ip = instance.address.ok_or_else(|| Error::Invalid {
        what: format!("container {}", instance.id),
        reason: "has no address".into(),
    })?;
    Ok((ip, PORT).into())
}

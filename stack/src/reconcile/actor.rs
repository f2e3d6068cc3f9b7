//! The one place that changes a function's containers: what is, and how it comes to be what should be. It never waits for
//! what takes long: starts, removals, pulls are tasks whose end it is told. What it is told to do is in `orders`, how it
//! keeps as many instances as are wanted in `replicas`, what it keeps while none should run in `rest`.

use std::collections::{HashMap, VecDeque};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::backoff::Backoff;
use super::command::Command;
use super::deployment::Deployment;
use super::endpoint::Endpoint;
use super::farewell::Farewells;
use super::fetch::Fetch;
use super::function::Function;
use super::functions::Functions;
use super::instance::{Instance, id_of};
use super::pen::Pen;
use super::probe::{Probes, follow};
use super::removal::Removals;
use super::rest::Resting;
use super::serving::Serving;
use super::start::{Purpose, Source, Start};
use super::watcher::watch;
use super::{World, group, pause};
use crate::containerd::Task;
use crate::desired::Document;
use crate::error::{Error, Result};

/// Looks at containerd that may fail in a row before those who wait for an instance's end are told so.
const BLIND: u32 = 8;

/// Looks in a row at an instance whose shim does not tell, before it counts as lost. containerd waits 2 s each time.
const UNCLEAR: u32 = 5;

/// containerd may be away for so long before calls are turned away.
const AWAY: Duration = Duration::from_secs(10);

/// A function's actor.
pub struct Actor {
    pub(super) world: Arc<World>,
    pub(super) functions: Arc<Functions>,
    pub(super) function: Arc<Function>,
    pub(super) document: Option<Document>,
    /// The document's digest, while it is not deleted.
    pub(super) digest: Option<String>,
    mail: mpsc::UnboundedReceiver<Command>,
    /// What it was told while it looked.
    pub(super) heard: VecDeque<Command>,
    /// Instances that calls are let into.
    pub(super) serving: Vec<Serving>,
    /// What the next call finds at hand while the function is scaled to none.
    pub(super) resting: Option<Resting>,
    /// The image of what should run, on its way.
    pub(super) fetch: Option<Fetch>,
    /// Instances on their way to answering, by their numbers.
    pub(super) starts: HashMap<u32, Start>,
    /// Instances on their way out.
    pub(super) removals: Removals,
    /// Who waits for the end of instances.
    pub(super) farewells: Farewells,
    /// A new version on its way, and what it has been told since that must wait for it.
    pub(super) deployment: Option<Deployment>,
    pub(super) later: VecDeque<Command>,
    /// How the processes ended of which nothing was made yet.
    pub(super) ends: HashMap<String, Option<u32>>,
    pub(super) backoff: Backoff,
    /// No start before that moment.
    pub(super) not_before: Option<Instant>,
    /// Since when starts have failed because containerd is away.
    pub(super) away: Option<Instant>,
    /// Looks in a row that found an instance whose shim does not tell what it does.
    pub(super) unclear: u32,
    /// Whether what a former life left was looked at.
    pub(super) inherited: bool,
    /// Looks at containerd that failed in a row, since when, and whether calls were turned away for that.
    blind: u32,
    blind_since: Option<Instant>,
    turned_away: bool,
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
        let digest = digest_of(document.as_ref());
        Self {
            world,
            functions,
            function,
            document,
            digest,
            mail,
            heard: VecDeque::new(),
            serving: Vec::new(),
            resting: None,
            fetch: None,
            starts: HashMap::new(),
            removals: Removals::default(),
            farewells: Farewells::default(),
            deployment: None,
            later: VecDeque::new(),
            ends: HashMap::new(),
            backoff: Backoff::default(),
            not_before: None,
            away: None,
            unclear: 0,
            inherited: false,
            blind: 0,
            blind_since: None,
            turned_away: false,
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
            let opening = self.starts.values().any(|start| matches!(start.purpose, Purpose::Serve));
            if self.blind == 0 && self.fetch.is_none() && !opening {
                self.function.set_attempted();
            }
            let again = again.into_iter().chain(self.forgive()).min();
            if again.is_none()
                && self.has_nothing_to_do()
                && self.functions.retire(&self.function.key, &self.mail)
            {
                return;
            }
            let mut command = match (self.heard.pop_front(), again) {
                (Some(command), _) => command,
                (None, Some(delay)) => match tokio::time::timeout(delay, self.mail.recv()).await {
                    Ok(Some(command)) => command,
                    Ok(None) => return,
                    Err(_) => Command::Look,
                },
                (None, None) => match self.mail.recv().await {
                    Some(command) => command,
                    None => return,
                },
            };
            // One look for all that it has been told.
            loop {
                self.obey(command).await;
                match self.heard.pop_front().or_else(|| self.mail.try_recv().ok()) {
                    Some(next) => command = next,
                    None => break,
                }
            }
        }
    }

    fn has_nothing_to_do(&self) -> bool {
        self.document.is_none()
            && self.deployment.is_none()
            && self.starts.is_empty()
            && self.removals.is_empty()
            && self.farewells.is_empty()
            && self.heard.is_empty()
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
        for (id, error) in self.removals.settle() {
            self.farewells.fail(&id, error);
        }
        let instances = match self.look().await {
            Ok(instances) => instances,
            Err(error) => {
                // containerd is away; what runs goes on running and answering.
                if self.blind == BLIND {
                    tracing::warn!("{}: {error}", self.function.key);
                }
                self.blind = self.blind.saturating_add(1);
                self.turn_away(&error);
                if self.blind > BLIND {
                    self.farewells.fail_blindly(error);
                }
                return Some(pause(self.blind));
            }
        };
        (self.blind, self.blind_since) = (0, None);
        if std::mem::take(&mut self.turned_away)
            && self.document.as_ref().is_some_and(Document::wants_instance)
        {
            self.function.starting();
        }
        self.removals.keep(&instances);
        self.bury(&instances).await;
        let unclear = self.good(&instances, Task::Unclear).next().is_some();
        self.unclear = if unclear { self.unclear.saturating_add(1) } else { 0 };
        let starts = &self.starts;
        self.farewells.tell(|id| {
            instances.iter().any(|instance| instance.id == id)
                || starts.keys().any(|replica| id_of(&self.function.key, *replica) == id)
        });
        let again = match self.document.clone() {
            Some(document) if document.wants_instance() => self.keep_running(&document, &instances).await,
            Some(document) if !document.deleted => self.keep_resting(&document, &instances).await,
            _ => {
                self.let_go();
                None
            }
        };
        [again, self.clear(&instances)].into_iter().flatten().min()
    }

    /// Nothing can be started while containerd is away: after a while calls that wait for an instance hear so. A start
    /// that is under way ends by itself, well or not.
    fn turn_away(&mut self, error: &Error) {
        let over = self.blind_since.get_or_insert_with(Instant::now).elapsed() >= AWAY;
        if over && self.starts.is_empty() && self.function.turn_away(&error.to_string()) {
            self.turned_away = true;
        }
    }

    /// Lists what is. A call that comes meanwhile does not wait for that: containerd may take its time.
    async fn look(&mut self) -> Result<Vec<Instance>> {
        let (world, key) = (self.world.clone(), self.function.key.clone());
        let mut looking = pin!(async move { world.instances(&key).await });
        loop {
            tokio::select! {
                seen = &mut looking => return seen,
                Some(command) = self.mail.recv() => match command {
                    Command::Wake => self.wake().await,
                    other => self.heard.push_back(other),
                },
            }
        }
    }

    /// What the function should be from now on, for us and for everybody.
    pub(super) fn set_document(&mut self, document: Option<Document>) {
        self.digest = digest_of(document.as_ref());
        self.world.hosts.set(&self.function.key, self.digest.is_some());
        self.function.set_document(document.clone());
        self.document = document;
    }

    /// Those of the instances that the document asks for, in a state, of which nothing has been made yet.
    pub(super) fn good<'a>(
        &'a self,
        instances: &'a [Instance],
        task: Task,
    ) -> impl Iterator<Item = &'a Instance> {
        let is_good = move |i: &&Instance| i.task == task && self.is_wanted(i) && !self.has(i);
        instances.iter().filter(is_good)
    }

    fn is_wanted(&self, instance: &Instance) -> bool {
        self.digest.as_ref() == Some(&instance.digest) && !self.removals.has(&instance.id)
    }

    /// Whether something is made of an instance: it serves, rests, or is on its way to that.
    fn has(&self, instance: &Instance) -> bool {
        self.serving.iter().any(|serving| serving.instance.id == instance.id)
            || self.resting.as_ref().is_some_and(|resting| resting.instance.id == instance.id)
            || self.starts.contains_key(&instance.replica)
            || self.deployment.as_ref().is_some_and(|deployment| deployment.has(&instance.id))
    }

    /// A start came to nothing: the next one is held back. That containerd is away for a moment is nobody's fault, and the
    /// calls wait.
    pub(super) fn fail(&mut self, error: &Error) {
        if error.is_containerd_away() && self.away.get_or_insert_with(Instant::now).elapsed() < AWAY {
            self.not_before = Some(Instant::now() + pause(3));
            return;
        }
        let (delay, reason) = (self.backoff.failed(), error.to_string());
        self.hold_back(delay, &reason);
    }

    /// No start before that time is over.
    pub(super) fn hold_back(&mut self, delay: Duration, reason: &str) {
        self.not_before = Some(Instant::now() + delay);
        self.functions.notices.set(&self.function.key, reason);
        self.function.failed(reason);
    }

    pub(super) fn held(&self) -> Option<Duration> {
        self.not_before
            .map(|moment| moment.saturating_duration_since(Instant::now()))
            .filter(|left| !left.is_zero())
    }

    /// Begins to start an instance; its end is a message.
    pub(super) fn start(&mut self, document: &Document, replica: u32, purpose: Purpose, source: Source) {
        let start = Start::begin(&self.world, &self.function, document, replica, purpose, source);
        self.starts.insert(replica, start);
    }

    /// Numbers that no instance has, whatever its state.
    pub(super) fn free(&self, instances: &[Instance], count: usize) -> Vec<u32> {
        let taken = |replica: &u32| {
            let own = self.serving.iter().map(|serving| &serving.instance);
            self.starts.contains_key(replica)
                || own.chain(instances).any(|other| other.replica == *replica)
                || self.removals.has(&id_of(&self.function.key, *replica))
                || !self.world.is_free(&self.function.key, *replica)
        };
        (0..).filter(|replica| !taken(replica)).take(count).collect()
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
        let grace = self.world.grace(self.document.as_ref());
        self.serving.push(Serving { instance, endpoint, grace, since: Instant::now(), watchers });
    }

    /// Lets nobody into an instance any more, and remembers that it may still have calls.
    pub(super) fn leave(&mut self, serving: &Serving) {
        self.function.left(&serving.endpoint);
        self.removals.let_end(&serving.instance.id, serving.endpoint.clone(), serving.grace);
    }

    /// Keeps nothing: `clear` removes what there is.
    pub(super) fn let_go(&mut self) {
        self.functions.notices.clear(&self.function.key);
        self.function.rest();
        self.give_up_rest();
        self.fetch = None;
        for start in self.starts.values_mut().filter(|start| !matches!(start.purpose, Purpose::Deploy)) {
            start.give_up();
        }
        for serving in std::mem::take(&mut self.serving) {
            self.leave(&serving);
        }
    }

    /// Begins to remove all instances of which nothing is made. Returns when to try again, if something could not be
    /// removed, or is not clear.
    fn clear(&mut self, instances: &[Instance]) -> Option<Duration> {
        let grace = self.world.grace(self.document.as_ref());
        let others = instances.iter().filter(|instance| !self.has(instance));
        // A shim that does not tell may be slow: what may be good is not removed at once.
        let (spared, others): (Vec<_>, Vec<_>) = others.partition(|instance| {
            instance.task == Task::Unclear && self.is_wanted(instance) && self.has_patience()
        });
        let again = (!spared.is_empty()).then(|| pause(self.unclear));
        let failed = self.removals.begin(&self.world, &self.function, others.into_iter(), grace);
        [again, failed].into_iter().flatten().min()
    }

    /// Whether an instance whose shim does not tell may still be well.
    pub(super) fn has_patience(&self) -> bool {
        self.unclear <= UNCLEAR
    }

    /// An instance's control group, where there are any.
    pub(super) fn group(&self, instance: &Instance) -> Option<std::path::PathBuf> {
        group::folder(&self.world.settings.cgroup_root, &instance.key, instance.replica)
    }
}

fn digest_of(document: Option<&Document>) -> Option<String> {
    document.filter(|document| !document.deleted).map(Document::digest)
}

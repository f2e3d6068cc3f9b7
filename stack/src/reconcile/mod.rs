//! Makes what is match what should be.
//!
//! One actor per function looks at its containers, compares, and acts; it does so when it starts, when a document
//! changes, when a task ends, when containerd was away, and when a restart is due. It looks at what is, never at what
//! happened: the same code serves the first boot, a crash and an update.
//!
//! An *instance* is a container with its snapshot, network namespace, address, FIFOs and task. It is made and removed
//! as a whole: a restart is a new instance, with a fresh root file system.

mod activity;
mod actor;
mod backoff;
mod collection;
mod command;
mod counts;
mod deployment;
mod endpoint;
mod ends;
mod exit;
mod farewell;
mod fetch;
mod function;
mod functions;
mod garbage;
mod group;
mod hosts;
mod images;
mod instance;
mod knock;
mod namespace;
mod notices;
mod orders;
mod pen;
mod pool;
mod probe;
mod ready;
mod removal;
mod replicas;
mod resolvers;
mod rest;
mod room;
mod secrets;
mod serving;
mod shim;
mod start;
mod supply;
mod surroundings;
mod sweep;
mod usage;
mod watcher;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinHandle;

pub use counts::{Reason, Tally};
pub use endpoint::{Endpoint, Running};
pub use exit::Means;
pub use function::{Entry, Function, State};
pub use functions::{Functions, Refused};
pub use instance::is_instance_name;
pub use pool::Pool;
pub use probe::Probes;
pub use secrets::{LARGEST_SECRETS_BYTES, Secrets};
pub use usage::{Present, Usage, between};

use crate::containerd::{Containerd, Layout};
use crate::desired::{Namespaces, Store, on_disk};
use crate::key::Key;
use crate::network::Network;
use crate::registry;

/// Instances that are started at the same time: more would only take each other's processor time.
const STARTS_AT_ONCE: usize = 4;

/// The reconciler's own settings.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Folder of the FIFOs that carry the functions' output.
    pub fifos: PathBuf,
    /// Folder of files that are made for instances, such as their `/etc/hosts`.
    pub run: PathBuf,
    /// The machine's own resolv.conf.
    pub resolv_conf: PathBuf,
    /// Where images come from that the appliance did not bring.
    pub registries: registry::Settings,
    /// cgroup above the functions'; empty: no cgroups and no limits.
    pub cgroup_root: String,
    /// Whether those groups have limits.
    pub limits: bool,
    /// containerd's folder of what runs.
    pub containerd_state: PathBuf,
    /// How long a new instance may take to become ready.
    pub ready_timeout: Duration,
    /// How long a call may take: what a function's watchdog is told of it, and what an instance on its way out is given.
    pub call_timeout: Duration,
    /// How long a function may take to end after SIGTERM, unless its `grace_period` says otherwise.
    pub grace: Duration,
    /// Functions at most that have an instance prepared while they are scaled to none.
    pub prepared: usize,
    /// How long images stay that no function is of.
    pub images: provisioning::Images,
    /// Pause between two looks at how full the disk is.
    pub disk_look: Duration,
}

/// What the actors work with.
pub struct World {
    /// containerd.
    pub containerd: Containerd,
    /// The network.
    pub network: Network,
    /// The documents on disk.
    pub store: Store,
    /// The secrets, and the instances' copies of them.
    pub secrets: Secrets,
    /// The namespaces that the API made.
    pub namespaces: Namespaces,
    /// The images that the appliance brought.
    pub baked: Vec<Layout>,
    /// Settings.
    pub settings: Settings,
    /// The names that instances find in their `/etc/hosts`.
    hosts: hosts::Hosts,
    starts: Semaphore,
    /// Places for instances that are prepared and wait for a call.
    prepared: Arc<Semaphore>,
    /// Held while the resolv.conf that instances share is written.
    refreshing: Mutex<()>,
    /// Whether the leftovers of former lives are gone, and actors may begin.
    swept: watch::Sender<bool>,
    /// An instance or image was removed.
    removed: Notify,
    /// Images of deployments under way.
    holds: images::Holds,
    /// When images were of use.
    moments: images::Moments,
    /// Held while images are removed; why none can be, as it was told.
    collecting: tokio::sync::Mutex<Option<String>>,
    /// Held while a namespace is made, changed or removed.
    pub changing_namespaces: Arc<tokio::sync::Mutex<()>>,
    runtime: Handle,
}

impl World {
    /// Puts it together; actors wait until [`begin`] has swept. What works on it does so on the threads of the caller's
    /// runtime.
    ///
    /// # Panics
    /// Outside a runtime.
    pub fn new(
        containerd: Containerd,
        network: Network,
        store: Store,
        secrets: Secrets,
        namespaces: Namespaces,
        baked: Vec<Layout>,
        settings: Settings,
    ) -> Self {
        let starts = Semaphore::new(STARTS_AT_ONCE);
        let prepared = Arc::new(Semaphore::new(settings.prepared));
        let hosts = hosts::Hosts::new(settings.run.join("hosts"), network.gateway());
        let (refreshing, swept, removed) = (Mutex::default(), watch::Sender::new(false), Notify::new());
        Self {
            containerd,
            network,
            store,
            secrets,
            namespaces,
            baked,
            settings,
            hosts,
            starts,
            prepared,
            refreshing,
            swept,
            removed,
            holds: images::Holds::default(),
            moments: images::Moments::default(),
            collecting: tokio::sync::Mutex::default(),
            changing_namespaces: Arc::default(),
            runtime: Handle::current(),
        }
    }

    /// Does something to its end, even where nobody waits for it, and whoever asks: the threads of calls have no time for it.
    pub fn spawn<T: Send + 'static>(&self, act: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        self.runtime.spawn(act)
    }

    /// What the instances use.
    pub fn usage(&self) -> Vec<Usage> {
        usage::of(&self.settings.cgroup_root, |_| true)
    }

    /// What the instances of some functions use. Waits for the kernel.
    pub fn usage_of(&self, wanted: impl Fn(&Key) -> bool) -> Vec<Usage> {
        usage::of(&self.settings.cgroup_root, wanted)
    }

    /// Bytes that functions may still take; nothing where nobody tells. Waits for the kernel.
    pub fn room(&self) -> Option<u64> {
        room::left(&self.settings.cgroup_root)
    }

    /// What a function uses now; nothing where it has no instance. Takes a moment.
    pub async fn present(&self, key: &Key) -> Option<Present> {
        usage::at_present(&self.settings.cgroup_root, key).await
    }
}

/// How long to wait between two looks at a containerd that does not answer: soon at first, for it starts beside us.
fn pause(attempt: u32) -> Duration {
    Duration::from_millis(20 << attempt.min(6))
}

/// Brings the machine's network and containerd into order, and lets the actors begin.
pub async fn begin(world: &Arc<World>, functions: &Arc<Functions>) {
    tokio::spawn(set_up_network(world.clone(), functions.clone()));
    tokio::spawn(surroundings::follow(world.clone()));
    tokio::spawn(garbage::collect(world.clone(), functions.clone()));
    tokio::spawn(collection::make_room(world.clone(), functions.clone()));
    let mut attempt = 0;
    while let Err(error) = world.containerd.check(Duration::from_secs(5)).await {
        // It starts at the same time as we do: only a long silence is worth a line.
        if attempt == 10 {
            tracing::warn!("containerd does not answer yet: {error}");
        }
        tokio::time::sleep(pause(attempt)).await;
        attempt += 1;
    }
    attempt = 0;
    while let Err(error) = sweep::sweep(world, functions).await {
        tracing::warn!("clearing away what former lives left: {error}");
        tokio::time::sleep(pause(attempt + 3)).await;
        attempt += 1;
    }
    world.swept.send_replace(true);
    let (world, functions) = (world.clone(), functions.clone());
    on_disk(move || functions.note_missing_secrets(&world, None)).await;
}

/// Returns when each of the actors that were let begin has tried once.
pub async fn first_pass(functions: &Functions) {
    for function in functions.all() {
        function.first_attempt().await;
    }
}

/// Returns when the calls that came before their functions could answer have been answered, at most after so long.
pub async fn first_answers(functions: &Functions, patience: Duration) {
    let answered = async {
        for function in functions.all() {
            function.answered(patience).await;
        }
    };
    // Calls that take their time are no reason to wait longer.
    let _ = tokio::time::timeout(patience, answered).await;
}

async fn set_up_network(world: Arc<World>, functions: Arc<Functions>) {
    let mut attempt = 0;
    let servers = || resolvers::of(&world.settings.resolv_conf);
    while let Err(error) = world.network.set_up(servers).await {
        tracing::error!("the functions' network: {error}");
        functions.notice("network", Some(error.to_string()));
        tokio::time::sleep(pause(attempt + 3)).await;
        attempt += 1;
    }
    functions.notice("network", None);
}

/// Imports the baked images that no function has asked for yet, so that the first deployment finds them unpacked.
pub async fn import_baked(world: &World) {
    let namespace = provisioning::Namespace::default();
    for layout in &world.baked {
        let ensured =
            world.containerd.ensure_image(namespace.as_str(), &layout.reference, &world.baked).await;
        if let Err(error) = ensured {
            tracing::error!("import of {}: {error}", layout.folder.display());
        }
    }
}

//! One instance: made as a whole, removed as a whole. Every step of the removal is fine with what is not there, so an
//! interrupted one is simply done again.

use std::net::Ipv4Addr;
use std::time::Duration;

use containerd_client::services::v1::Container;
use containerd_client::types::Mount;

use super::{World, group, pause, shim, surroundings};
use crate::containerd::{
    Image, LABEL_ADDRESS, LABEL_DIGEST, LABEL_FUNCTION, LABEL_REPLICA, NewContainer, Task,
};
use crate::desired::{Document, on_disk};
use crate::duration;
use crate::error::{Error, Result};
use crate::key::Key;
use crate::runtime::{Limits, Paths, Requests, read_file, resolve, specification};

/// Port on which every function answers (OpenFaaS's workload contract).
pub const PORT: u16 = 8080;

/// The most that a function may ask for as its `grace_period`: the call that ended it waits.
const LONGEST_GRACE: Duration = Duration::from_secs(600);

/// How often a shim that does not answer is killed before its removal is put off.
const SHIMS_KILLED: u32 = 3;

/// Folders of containerd's shim (runtime v2) and of what it calls, below containerd's own: NAMESPACE/ID.
const BUNDLES: &str = "io.containerd.runtime.v2.task";
const RUNTIME_STATES: &str = "runc";

/// An instance that exists, at least in part.
#[derive(Debug, Clone)]
pub struct Instance {
    /// The function's name.
    pub key: Key,
    /// containerd's identifier of container and snapshot.
    pub id: String,
    /// Its number among the function's instances.
    pub replica: u32,
    /// Digest of the document that it was made from.
    pub digest: String,
    /// Its address.
    pub address: Option<Ipv4Addr>,
    /// What its process does.
    pub task: Task,
}

/// The name of an instance's namespace, FIFOs and cgroup: NAMESPACE.FUNCTION.NUMBER.
pub fn full_name(key: &Key, replica: u32) -> String {
    format!("{}.{}.{replica}", key.namespace, key.name)
}

/// Whether a text has that form.
pub fn is_instance_name(text: &str) -> bool {
    match text.split('.').collect::<Vec<_>>().as_slice() {
        [namespace, name, number] => Key::new(name, namespace).is_some() && number.parse::<u32>().is_ok(),
        _ => false,
    }
}

/// The name of an instance's container and snapshot: FUNCTION.NUMBER.
pub fn id_of(key: &Key, replica: u32) -> String {
    format!("{}.{replica}", key.name)
}

impl Instance {
    /// Reads containerd's record; nothing when its labels are not ours.
    pub fn from_container(namespace: &str, container: &Container) -> Option<Self> {
        let label = |name| container.labels.get(name);
        Some(Self {
            key: Key::new(label(LABEL_FUNCTION)?, namespace)?,
            id: container.id.clone(),
            replica: label(LABEL_REPLICA)?.parse().ok()?,
            digest: label(LABEL_DIGEST)?.clone(),
            address: label(LABEL_ADDRESS).and_then(|address| address.parse().ok()),
            task: Task::None,
        })
    }

    /// The instance's name on the machine.
    pub fn name(&self) -> String {
        full_name(&self.key, self.replica)
    }
}

/// What is made before containerd is told of an instance.
struct Furnished {
    image: String,
    spec: String,
    mounts: Vec<Mount>,
    fifos: surroundings::Fifos,
}

/// What cannot be cleared away after a failed start is worth a line.
fn told(instance: &Instance, error: &Error) {
    tracing::warn!("clearing away {} after a failed start: {error}", instance.name());
}

impl World {
    /// A function's instances, whatever state they are in.
    pub(super) async fn instances(&self, key: &Key) -> Result<Vec<Instance>> {
        let namespace = key.namespace.as_str();
        let containers = self.containerd.containers_of(namespace, Some(key.name.as_str())).await?;
        let mut instances = Vec::new();
        for container in &containers {
            if let Some(instance) = Instance::from_container(namespace, container) {
                let task = self.containerd.task(namespace, &instance.id).await?;
                instances.push(Instance { task, ..instance });
            }
        }
        Ok(instances)
    }

    /// Whether nothing on the machine bears an instance's name. A container that could not be cleared away leaves a
    /// bundle, the runtime's state or a group, and the next one of its number does not start ("file exists").
    pub(super) fn is_free(&self, key: &Key, replica: u32) -> bool {
        let (state, id) =
            (&self.settings.containerd_state, format!("{}/{}.{replica}", key.namespace, key.name));
        let folders = [BUNDLES, RUNTIME_STATES].map(|folder| state.join(folder).join(&id));
        let group = group::folder(&self.settings.cgroup_root, key, replica);
        folders.iter().chain(&group).all(|folder| !folder.exists())
    }

    /// Makes an instance of an image that is here, so that nobody else waits for a pull or an import; its process waits to
    /// be begun. On failure nothing of it stays.
    pub(super) async fn prepare(
        &self,
        key: &Key,
        document: &Document,
        replica: u32,
        image: &Image,
    ) -> Result<Instance> {
        // Never closed: it lives as long as the world.
        let _turn = self.starts.acquire().await;
        let address = self.network.allocate()?;
        let instance = Instance {
            key: key.clone(),
            id: id_of(key, replica),
            replica,
            digest: document.digest(),
            address: Some(address),
            task: Task::None,
        };
        let new = match self.furnish(&instance, document, address, image).await {
            Ok(new) => new,
            Err(error) => {
                // Nobody knows of it: no record leads to it, and no process is in it.
                let cleared = self.strip(&instance).await;
                cleared.unwrap_or_else(|second| told(&instance, &second));
                self.network.release(address);
                return Err(error);
            }
        };
        match self.record(&instance, new).await {
            Ok(()) => {
                if document.requests.is_some() {
                    self.keep_promises(&instance).await;
                }
                Ok(Instance { task: Task::Created, ..instance })
            }
            Err(error) => {
                // Where that fails, the record leads to it at the next look.
                let cleared = self.remove(&instance, Duration::ZERO).await;
                cleared.unwrap_or_else(|second| told(&instance, &second));
                Err(error)
            }
        }
    }

    /// Lets a prepared instance's process begin. A shim that does not answer is killed: what it has of the instance can be
    /// removed then, and another one takes its place.
    pub(super) async fn begin(&self, instance: &Instance) -> Result<()> {
        let begun = self.containerd.begin_task(instance.key.namespace.as_str(), &instance.id).await;
        if let Err(error) = &begun
            && self.is_shim_silent(instance, error).await
        {
            self.end_shim(instance);
        }
        begun
    }

    /// Whether it was the shim that did not answer, and still does not; a slow disk or a busy containerd is no fault of it.
    async fn is_shim_silent(&self, instance: &Instance, error: &Error) -> bool {
        matches!(error, Error::ContainerdSilent { .. })
            && matches!(
                self.containerd.task(instance.key.namespace.as_str(), &instance.id).await,
                Ok(Task::Unclear)
            )
    }

    fn end_shim(&self, instance: &Instance) {
        if shim::end(instance.key.namespace.as_str(), &instance.id) {
            tracing::warn!("{}: its shim does not answer, and was killed", instance.name());
        }
    }

    /// Gives an instance's namespace the memory that its instances are promised.
    async fn keep_promises(&self, instance: &Instance) {
        if !self.settings.limits {
            return;
        }
        let (root, namespace) = (self.settings.cgroup_root.clone(), instance.key.namespace.clone());
        if let Err(error) = on_disk(move || group::keep_promises(&root, &namespace)).await {
            tracing::warn!("{}: what its namespace is promised of memory: {error}", instance.name());
        }
    }

    /// All that an instance has beside containerd's record and task.
    async fn furnish(
        &self,
        instance: &Instance,
        document: &Document,
        address: Ipv4Addr,
        image: &Image,
    ) -> Result<Furnished> {
        let (key, name) = (&instance.key, instance.name());
        let namespace = key.namespace.as_str();
        let limits = Limits::parse(document.limits.as_ref())?;
        let requests = Requests::parse(document.requests.as_ref())?;
        let (all, of) = (self.secrets.clone(), document.clone());
        let secrets = on_disk(move || all.of(&of)).await?;
        // The network takes as long as the snapshot: both at once.
        let root = async {
            self.containerd.remove_snapshot(namespace, &instance.id).await?;
            self.containerd.prepare_root(namespace, &instance.id, key.name.as_str(), &image.chain_id).await
        };
        let (root, attached) = tokio::join!(root, self.network.attach(&name, address));
        let (mounts, ()) = (root?, attached?);
        let unusable = |reason| Error::ImageUnusable { reference: image.reference.clone(), reason };
        let (passwd, group) = (read_file(&mounts, "/etc/passwd"), read_file(&mounts, "/etc/group"));
        let identity = resolve(&image.process.user, &passwd, &group).map_err(unusable)?;
        let (all, of, user) = (self.secrets.clone(), instance.clone(), identity.clone());
        let copied = on_disk(move || all.copy(&of.name(), &of.key.namespace, &secrets, &user));
        let secrets = copied.await?;
        let (resolv_conf, hosts) = (surroundings::refresh(self)?, self.hosts.file()?);
        let fifos = surroundings::make_fifos(&self.settings.fifos, &name)?;
        let paths = Paths {
            netns: self.network.netns(&name),
            resolv_conf,
            hosts,
            secrets,
            cgroup: surroundings::cgroup(&self.settings.cgroup_root, key, instance.replica),
        };
        let time = self.settings.call_timeout;
        let limits = self.settings.limits.then_some((limits, requests));
        let spec = specification(document, &image.process, &identity, limits, &paths, time).to_string();
        Ok(Furnished { image: image.reference.clone(), spec, mounts, fifos })
    }

    async fn record(&self, instance: &Instance, furnished: Furnished) -> Result<()> {
        let namespace = instance.key.namespace.as_str();
        let Furnished { image, spec, mounts, fifos: ([stdout, stderr], held) } = furnished;
        let address = instance.address.map(|address| (LABEL_ADDRESS, address.to_string()));
        let labels = [
            (LABEL_FUNCTION, instance.key.name.to_string()),
            (LABEL_REPLICA, instance.replica.to_string()),
            (LABEL_DIGEST, instance.digest.clone()),
        ];
        let labels = labels.into_iter().chain(address).collect();
        let new = NewContainer { id: &instance.id, image: &image, labels, spec: spec.into_bytes() };
        self.containerd.create_container(namespace, new).await?;
        let created = self.containerd.create_task(namespace, &instance.id, mounts, &stdout, &stderr).await;
        // From now on the shim holds them.
        drop(held);
        created
    }

    /// Ends an instance and removes all of it. One that cannot be ended stays whole: it may go on serving, and is not to be
    /// taken for one that can.
    pub(super) async fn remove(&self, instance: &Instance, grace: Duration) -> Result<()> {
        let namespace = instance.key.namespace.as_str();
        // Who is frozen hears no SIGTERM.
        if let Some(folder) = group::folder(&self.settings.cgroup_root, &instance.key, instance.replica)
            && let Err(error) = group::thaw(&folder)
        {
            tracing::warn!("thawing {} to end it: {error}", instance.name());
        }
        self.stop(instance, grace).await?;
        self.strip(instance).await?;
        // Last, and only then, because it holds the labels that lead to the rest.
        self.containerd.delete_container(namespace, &instance.id).await?;
        if let Some(address) = instance.address {
            // Not before: a removal that is done again must not meet the link of somebody else.
            self.network.release(address);
        }
        self.keep_promises(instance).await;
        self.removed.notify_one();
        Ok(())
    }

    /// Ends its process. A shim that does not answer, where containerd itself does, is killed: nobody could ever get rid of
    /// its function otherwise.
    async fn stop(&self, instance: &Instance, grace: Duration) -> Result<()> {
        let (namespace, id) = (instance.key.namespace.as_str(), instance.id.as_str());
        let mut stopped = self.containerd.stop_task(namespace, id, grace).await;
        for attempt in 0..SHIMS_KILLED {
            match &stopped {
                Err(error) if self.is_shim_silent(instance, error).await => {}
                // What containerd says while it clears away after one.
                Err(_) if attempt > 0 => {}
                _ => break,
            }
            self.end_shim(instance);
            tokio::time::sleep(pause(6)).await;
            stopped = self.containerd.stop_task(namespace, id, Duration::ZERO).await;
        }
        stopped
    }

    /// Removes what an instance has beside containerd's record. A step that fails does not keep the others from being
    /// taken; the first error is told.
    async fn strip(&self, instance: &Instance) -> Result<()> {
        let name = instance.name();
        // What its process left behind, or what containerd does not know of.
        let group = match group::folder(&self.settings.cgroup_root, &instance.key, instance.replica) {
            Some(folder) => group::end(&folder).await,
            None => Ok(()),
        };
        let detached = self.network.detach(&name, instance.address).await;
        let fifos = surroundings::remove_fifos(&self.settings.fifos, &name);
        let all = self.secrets.clone();
        let secrets = on_disk(move || all.forget(&name)).await;
        let snapshot = self.containerd.remove_snapshot(instance.key.namespace.as_str(), &instance.id).await;
        group.and(detached).and(fifos).and(secrets).and(snapshot)
    }

    /// How long a function may take to end: its own `grace_period`, else the machine's default.
    pub(super) fn grace(&self, document: Option<&Document>) -> Duration {
        let own = document.and_then(|document| document.environment.get("grace_period"));
        own.and_then(|text| duration::parse(text)).unwrap_or(self.settings.grace).min(LONGEST_GRACE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let key = Key::new("figlet", "dev").unwrap();
        assert_eq!(full_name(&key, 3), "dev.figlet.3");
        assert!(is_instance_name("dev.figlet.3"));
        for other in ["cni-1234", "dev.figlet", "dev.figlet.x", "a.b.c.1", ""] {
            assert!(!is_instance_name(other), "{other}");
        }
    }
}

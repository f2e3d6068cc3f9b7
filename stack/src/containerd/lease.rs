//! Leases: what they hold is no garbage. One that is dropped and not released is left to `reconcile/garbage.rs`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use containerd_client::services::v1::leases_client::LeasesClient;
use containerd_client::services::v1::{
    AddResourceRequest, CreateRequest, DeleteRequest, ListRequest, Resource,
};
use tokio::sync::Notify;

use super::client::{Containerd, call, request};
use crate::error::{Error, Result, absent_is_fine};

/// Start of our leases' names.
const LEASE: &str = "bothy-import-";

/// Leases that nobody needs any more, and that may still be there: by namespace and name. Clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct Leftovers(Arc<Left>);

#[derive(Debug, Default)]
struct Left {
    leases: Mutex<Vec<(String, String)>>,
    told: Notify,
}

impl Leftovers {
    fn add(&self, namespace: String, lease: String) {
        self.0.leases.lock().unwrap_or_else(PoisonError::into_inner).push((namespace, lease));
    }

    fn take(&self) -> Option<(String, String)> {
        self.0.leases.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    fn tell(&self) {
        self.0.told.notify_one();
    }
}

/// A lease that somebody works under.
#[derive(Debug)]
pub(super) struct Lease {
    /// Its name.
    pub id: String,
    namespace: String,
    containerd: Containerd,
    released: bool,
}

impl Drop for Lease {
    fn drop(&mut self) {
        if !self.released {
            let leftovers = &self.containerd.leftovers;
            leftovers.add(std::mem::take(&mut self.namespace), std::mem::take(&mut self.id));
            leftovers.tell();
        }
    }
}

impl Lease {
    /// Has the lease hold something, there or not yet.
    pub async fn hold(&self, kind: &str, id: &str) -> Result<()> {
        let resource = Some(Resource { id: id.to_owned(), r#type: kind.to_owned() });
        let add = AddResourceRequest { id: self.id.clone(), resource };
        let mut client = LeasesClient::new(self.containerd.channel.clone());
        let answer = client.add_resource(request(&self.namespace, None, add));
        call(format!("hold {id} in lease {}", self.id), answer).await.map(drop)
    }

    /// Removes it. Where that fails it is tried again in the background, like everything that is left over.
    pub async fn release(mut self) {
        match self.containerd.release(&self.namespace, &self.id, false).await {
            Ok(()) => {
                self.released = true;
                // What it held and nobody names is garbage now.
                self.containerd.leftovers.tell();
            }
            Err(error) => tracing::warn!("{error}; it is tried again"),
        }
    }
}

impl Containerd {
    /// Makes a lease of one's own. `about` is for whoever looks at them.
    pub(super) async fn lease(&self, namespace: &str, about: &str) -> Result<Lease> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let id = format!("{LEASE}{about}-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        // Before it is there: who stops waiting for the answer leaves it to the collector.
        let lease = Lease { id, namespace: namespace.to_owned(), containerd: self.clone(), released: false };
        self.make_lease(namespace, &lease.id).await?;
        Ok(lease)
    }

    async fn make_lease(&self, namespace: &str, lease: &str) -> Result<()> {
        let mut client = LeasesClient::new(self.channel.clone());
        let create = CreateRequest { id: lease.to_owned(), ..Default::default() };
        match call(format!("create lease {lease}"), client.create(request(namespace, None, create))).await {
            Err(error) if !error.is_already_there() => Err(error),
            _ => Ok(()),
        }
    }

    /// Removes a lease; `sync` waits until what nothing holds any more is gone.
    async fn release(&self, namespace: &str, lease: &str, sync: bool) -> Result<()> {
        let delete = DeleteRequest { id: lease.to_owned(), sync };
        let mut client = LeasesClient::new(self.channel.clone());
        let answer = client.delete(request(namespace, None, delete));
        absent_is_fine(call(format!("delete lease {lease}"), answer).await.map(drop))
    }

    /// Has containerd remove the files of what nothing holds any more, and waits for it.
    pub async fn collect(&self, namespace: &str) -> Result<()> {
        // The removal of a lease is what can be told to wait for the collection of garbage. Of one's own: that of a
        // lease which somebody else has removed returns at once.
        let mut lease = self.lease(namespace, "collect").await?;
        self.release(namespace, &lease.id, true).await?;
        lease.released = true;
        Ok(())
    }

    /// Returns when a pull or an import has left something.
    pub async fn leftover(&self) {
        self.leftovers.0.told.notified().await;
    }

    /// Removes the leases that could not be removed, or of which nobody was left to do it.
    pub async fn release_leftovers(&self) -> Result<()> {
        while let Some((namespace, lease)) = self.leftovers.take() {
            if let Err(error) = self.release(&namespace, &lease, false).await {
                self.leftovers.add(namespace, lease);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Our leases in a namespace.
    pub async fn leases(&self, namespace: &str) -> Result<Vec<String>> {
        let mut client = LeasesClient::new(self.channel.clone());
        let list = client.list(request(namespace, None, ListRequest::default()));
        let leases = call("list leases", list).await?.leases;
        Ok(leases.into_iter().map(|lease| lease.id).filter(|id| id.starts_with(LEASE)).collect())
    }

    /// Removes the leases of pulls and imports that a former life did not finish.
    pub async fn release_stale(&self, namespace: &str) -> Result<()> {
        let mut first = Ok::<(), Error>(());
        for lease in self.leases(namespace).await? {
            first = first.and(self.release(namespace, &lease, false).await);
        }
        first
    }
}

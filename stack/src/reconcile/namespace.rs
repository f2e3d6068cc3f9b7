//! The end of a namespace.

use provisioning::Namespace;

use super::{World, group};
use crate::desired::on_disk;
use crate::error::Result;

impl World {
    /// Removes a namespace in which nothing runs: its secrets, what containerd has of it, and last its document, so that the
    /// same request can be made again after whatever interrupted this one, also where only containerd knows it.
    pub async fn remove_namespace(&self, namespace: &Namespace) -> Result<()> {
        let (secrets, of) = (self.secrets.stored.clone(), namespace.clone());
        on_disk(move || secrets.clear(&of)).await?;
        let removed = self.containerd.remove_namespace(namespace.as_str()).await;
        // Of an interrupted one, too, the files can go.
        self.removed.notify_one();
        removed?;
        let (namespaces, store, namespace) = (self.namespaces.clone(), self.store.clone(), namespace.clone());
        let groups = group::of_namespace(&self.settings.cgroup_root, &namespace);
        on_disk(move || {
            // Folders that are empty now. One that is not holds what is not ours to remove.
            store.forget(&namespace);
            if let Some(folder) = groups {
                let _ = std::fs::remove_dir(folder);
            }
            namespaces.remove(&namespace)
        })
        .await
    }
}

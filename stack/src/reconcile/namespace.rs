//! The end of a namespace.

use provisioning::Namespace;

use super::World;
use crate::desired::on_disk;
use crate::error::Result;

impl World {
    /// Removes a namespace in which nothing runs: what containerd has of it, its secrets, and last its document, so that
    /// the same request can be made again after whatever interrupted this one.
    pub async fn remove_namespace(&self, namespace: &Namespace) -> Result<()> {
        let removed = self.containerd.remove_namespace(namespace.as_str()).await;
        // Of an interrupted one, too, the files can go.
        self.removed.notify_one();
        removed?;
        let (secrets, namespaces, namespace) =
            (self.secrets.stored.clone(), self.namespaces.clone(), namespace.clone());
        on_disk(move || {
            secrets.clear(&namespace)?;
            namespaces.remove(&namespace)
        })
        .await
    }
}

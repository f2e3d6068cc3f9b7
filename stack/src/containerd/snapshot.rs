//! Snapshots: unpacked layers, and the writable one of each instance.

use std::collections::HashMap;

use containerd_client::services::v1::ApplyRequest;
use containerd_client::services::v1::diff_client::DiffClient;
use containerd_client::services::v1::snapshots::snapshots_client::SnapshotsClient;
use containerd_client::services::v1::snapshots::{
    CommitSnapshotRequest, ListSnapshotsRequest, PrepareSnapshotRequest, RemoveSnapshotRequest,
    StatSnapshotRequest,
};
use containerd_client::types::Mount;
use tonic::transport::Channel;

use super::client::{Containerd, LARGEST_MESSAGE_BYTES, TRANSFER, call, next, request, within};
use super::container::LABEL_FUNCTION;
use super::image::{Image, chain_ids};
use super::import::size;
use crate::error::{Error, Result, absent_is_fine};

impl Containerd {
    fn snapshots(&self) -> SnapshotsClient<Channel> {
        SnapshotsClient::new(self.channel.clone()).max_decoding_message_size(LARGEST_MESSAGE_BYTES)
    }

    pub(super) async fn has_snapshot(&self, namespace: &str, key: &str) -> Result<bool> {
        let stat = StatSnapshotRequest { snapshotter: self.snapshotter.clone(), key: key.to_owned() };
        match call(format!("stat snapshot {key}"), self.snapshots().stat(request(namespace, None, stat)))
            .await
        {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Makes sure that an image's layers lie unpacked; each one's bytes are checked against its diff id.
    pub(super) async fn unpack(&self, namespace: &str, lease: &str, image: &Image) -> Result<()> {
        // One at a time: two that share a layer would unpack it twice. Whoever waited finds it done.
        let _turn = self.unpacking.lock().await;
        let chain = chain_ids(&image.diff_ids);
        let (mut there, mut missing) = (Vec::new(), 0_u64);
        for (layer, chain_id) in image.layers.iter().zip(&chain) {
            let known = self.has_snapshot(namespace, chain_id).await?;
            missing = missing.saturating_add(if known { 0 } else { size(layer) });
            there.push(known);
        }
        self.room(&image.reference, missing).await?;
        let mut parent = String::new();
        let layers = image.layers.iter().zip(&image.diff_ids).zip(&chain);
        for (((layer, diff_id), chain_id), known) in layers.zip(there) {
            if !known {
                let key = format!("extract-{lease}-{chain_id}");
                self.remove_snapshot(namespace, &key).await?;
                let mounts = self.prepare(namespace, Some(lease), &key, &parent, HashMap::new()).await?;
                let apply =
                    ApplyRequest { diff: Some(layer.clone()), mounts, sync_fs: true, ..Default::default() };
                let mut diff = DiffClient::new(self.channel.clone());
                let applied = diff.apply(request(namespace, Some(lease), apply));
                let applied = within(TRANSFER, format!("unpack {}", layer.digest), applied);
                let applied = match self.while_room(&image.reference, applied).await {
                    Ok(applied) => applied,
                    Err(error) => {
                        if let Err(second) = self.remove_snapshot(namespace, &key).await {
                            tracing::warn!("{second}");
                        }
                        return Err(error);
                    }
                };
                let found = applied.applied.map(|applied| applied.digest).unwrap_or_default();
                if found != *diff_id {
                    self.remove_snapshot(namespace, &key).await?;
                    let reason = format!("layer {} unpacks to {found}, expected {diff_id}", layer.digest);
                    return Err(Error::ImageUnusable { reference: image.reference.clone(), reason });
                }
                let commit = CommitSnapshotRequest {
                    snapshotter: self.snapshotter.clone(),
                    name: chain_id.clone(),
                    key,
                    ..Default::default()
                };
                let committed = self
                    .beside_garbage(namespace, chain_id, || self.commit(namespace, lease, commit.clone()));
                match committed.await {
                    Err(error) if !error.is_already_there() => return Err(error),
                    _ => {}
                }
            }
            parent.clone_from(chain_id);
        }
        // From here the image holds its snapshots, not the lease.
        let label = format!("containerd.io/gc.ref.snapshot.{}", self.snapshotter);
        self.label_blob(namespace, &image.config_digest, [(label, image.chain_id.clone())].into()).await
    }

    async fn prepare(
        &self,
        namespace: &str,
        lease: Option<&str>,
        key: &str,
        parent: &str,
        labels: HashMap<String, String>,
    ) -> Result<Vec<Mount>> {
        let prepare = PrepareSnapshotRequest {
            snapshotter: self.snapshotter.clone(),
            key: key.to_owned(),
            parent: parent.to_owned(),
            labels,
        };
        self.beside_garbage(namespace, key, || async {
            let mut client = self.snapshots();
            let answer = client.prepare(request(namespace, lease, prepare.clone()));
            Ok(call(format!("prepare snapshot {key}"), answer).await?.mounts)
        })
        .await
    }

    async fn commit(&self, namespace: &str, lease: &str, commit: CommitSnapshotRequest) -> Result<()> {
        let (act, mut client) = (format!("commit snapshot {}", commit.name), self.snapshots());
        call(act, client.commit(request(namespace, Some(lease), commit))).await.map(drop)
    }

    /// Makes a snapshot. containerd gives it a name beside its own (pkg `metadata`: namespace, number, key), and may find
    /// that of one which is removed and not collected yet: the numbers of a namespace begin anew when it is made again.
    async fn beside_garbage<T, M: Future<Output = Result<T>>>(
        &self,
        namespace: &str,
        key: &str,
        make: impl Fn() -> M,
    ) -> Result<T> {
        match make().await {
            Err(error) if error.is_already_there() && !self.has_snapshot(namespace, key).await? => {
                self.collect(namespace).await?;
                make().await
            }
            made => made,
        }
    }

    /// A writable snapshot for an instance. It lives until it is removed by name: `gc.root` keeps the garbage
    /// collector away in the moment before the container refers to it.
    pub async fn prepare_root(
        &self,
        namespace: &str,
        id: &str,
        function: &str,
        parent: &str,
    ) -> Result<Vec<Mount>> {
        let labels = [
            ("containerd.io/gc.root".to_owned(), "bothy".to_owned()),
            (LABEL_FUNCTION.to_owned(), function.to_owned()),
        ];
        self.prepare(namespace, None, id, parent, labels.into()).await
    }

    /// Removes a snapshot; one that is not there is fine.
    pub async fn remove_snapshot(&self, namespace: &str, key: &str) -> Result<()> {
        let remove = RemoveSnapshotRequest { snapshotter: self.snapshotter.clone(), key: key.to_owned() };
        let mut client = self.snapshots();
        let answer = client.remove(request(namespace, None, remove));
        absent_is_fine(call(format!("remove snapshot {key}"), answer).await.map(drop))
    }

    /// The instances' snapshots in a namespace.
    pub async fn instance_snapshots(&self, namespace: &str) -> Result<Vec<String>> {
        let list = ListSnapshotsRequest {
            snapshotter: self.snapshotter.clone(),
            filters: vec![format!("labels.{LABEL_FUNCTION:?}")],
        };
        let act = "list snapshots";
        let mut parts = call(act, self.snapshots().list(request(namespace, None, list))).await?;
        let mut names = Vec::new();
        while let Some(part) = next(act, &mut parts).await? {
            names.extend(part.info.into_iter().map(|info| info.name));
        }
        Ok(names)
    }
}

//! The end of a namespace: containerd deletes only one that holds nothing.

use std::collections::HashSet;

use containerd_client::services::v1::containers_client::ContainersClient;
use containerd_client::services::v1::content_client::ContentClient;
use containerd_client::services::v1::images_client::ImagesClient;
use containerd_client::services::v1::leases_client::LeasesClient;
use containerd_client::services::v1::namespaces_client::NamespacesClient;
use containerd_client::services::v1::snapshots::ListSnapshotsRequest;
use containerd_client::services::v1::snapshots::snapshots_client::SnapshotsClient;
use containerd_client::services::v1::{
    DeleteImageRequest, DeleteNamespaceRequest, DeleteRequest, ListContainersRequest, ListContentRequest,
    ListImagesRequest, ListRequest,
};
use tonic::Request;

use super::client::{Containerd, LARGEST_MESSAGE_BYTES, call, next, request};
use crate::error::{Result, absent_is_fine};

impl Containerd {
    /// Removes a namespace with its images, leases, snapshots and blobs; one that is not there is fine. A container in
    /// it is an error, and the caller looks for them first. An interrupted removal is simply done again.
    pub async fn remove_namespace(&self, name: &str) -> Result<()> {
        self.remove_images(name).await?;
        self.remove_leases(name).await?;
        self.remove_snapshots(name).await?;
        self.remove_blobs(name).await?;
        let mut client = NamespacesClient::new(self.channel.clone());
        let delete = client.delete(Request::new(DeleteNamespaceRequest { name: name.to_owned() }));
        absent_is_fine(call(format!("delete namespace {name}"), delete).await.map(drop))
    }

    /// All containers of a namespace, those of others too.
    pub async fn container_names(&self, namespace: &str) -> Result<Vec<String>> {
        let mut client =
            ContainersClient::new(self.channel.clone()).max_decoding_message_size(LARGEST_MESSAGE_BYTES);
        let list = client.list(request(namespace, None, ListContainersRequest::default()));
        let containers = call("list containers", list).await?.containers;
        Ok(containers.into_iter().map(|container| container.id).collect())
    }

    async fn remove_images(&self, namespace: &str) -> Result<()> {
        let mut client =
            ImagesClient::new(self.channel.clone()).max_decoding_message_size(LARGEST_MESSAGE_BYTES);
        let list = client.list(request(namespace, None, ListImagesRequest::default()));
        for image in call("list images", list).await?.images {
            let delete = DeleteImageRequest { name: image.name.clone(), sync: false, ..Default::default() };
            let answer = client.delete(request(namespace, None, delete));
            absent_is_fine(call(format!("delete image {}", image.name), answer).await.map(drop))?;
        }
        Ok(())
    }

    async fn remove_leases(&self, namespace: &str) -> Result<()> {
        let mut client = LeasesClient::new(self.channel.clone());
        let list = client.list(request(namespace, None, ListRequest::default()));
        for lease in call("list leases", list).await?.leases {
            let answer =
                client.delete(request(namespace, None, DeleteRequest { id: lease.id.clone(), sync: false }));
            absent_is_fine(call(format!("delete lease {}", lease.id), answer).await.map(drop))?;
        }
        Ok(())
    }

    /// Those on top first: one that others lie on cannot go.
    async fn remove_snapshots(&self, namespace: &str) -> Result<()> {
        let mut client =
            SnapshotsClient::new(self.channel.clone()).max_decoding_message_size(LARGEST_MESSAGE_BYTES);
        let act = "list snapshots";
        let list = ListSnapshotsRequest { snapshotter: self.snapshotter.clone(), filters: Vec::new() };
        let mut parts = call(act, client.list(request(namespace, None, list))).await?;
        let mut left = Vec::new();
        while let Some(part) = next(act, &mut parts).await? {
            left.extend(part.info.into_iter().map(|info| (info.name, info.parent)));
        }
        while !left.is_empty() {
            let below: HashSet<String> = left.iter().map(|(_, parent)| parent.clone()).collect();
            let (top, rest): (Vec<_>, Vec<_>) = left.into_iter().partition(|(name, _)| !below.contains(name));
            if top.is_empty() {
                // Each on another one: containerd's own records are wrong, and its answer to the rest will say so.
                break;
            }
            for (name, _) in top {
                self.remove_snapshot(namespace, &name).await?;
            }
            left = rest;
        }
        Ok(())
    }

    async fn remove_blobs(&self, namespace: &str) -> Result<()> {
        let mut client =
            ContentClient::new(self.channel.clone()).max_decoding_message_size(LARGEST_MESSAGE_BYTES);
        let act = "list blobs";
        let mut parts =
            call(act, client.list(request(namespace, None, ListContentRequest::default()))).await?;
        let mut digests = Vec::new();
        while let Some(part) = next(act, &mut parts).await? {
            digests.extend(part.info.into_iter().map(|info| info.digest));
        }
        for digest in digests {
            self.delete_blob(namespace, &digest).await?;
        }
        Ok(())
    }
}

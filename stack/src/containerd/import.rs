//! Baked images: from a layout on the read-only root into containerd, only what is missing.
//!
//! Order (and why nothing is lost half-way): everything is written under a lease, the image's name comes last, the
//! lease goes after it. A lease of an interrupted import is removed when the gateway starts.

use std::collections::HashMap;
use std::path::PathBuf;

use containerd_client::services::v1::images_client::ImagesClient;
use containerd_client::services::v1::{
    CreateImageRequest, DeleteImageRequest, Image as Named, UpdateImageRequest,
};
use containerd_client::types::Descriptor;
use serde::Deserialize;

use super::blob::FileBytes;
use super::client::{Containerd, call, request};
use super::image::Image;
use super::layout::{JsonDescriptor, Layout};
use crate::error::{Error, Result, absent_is_fine};

/// Start of the labels that tell the garbage collector what a blob needs.
pub(super) const CONTENT_LABEL: &str = "containerd.io/gc.ref.content";

#[derive(Deserialize)]
struct Manifest {
    config: JsonDescriptor,
    layers: Vec<JsonDescriptor>,
}

impl Containerd {
    /// The image that a reference stands for, ready to be run: taken from a baked layout when containerd lacks it or
    /// has another version of it, unpacked when it is not.
    pub async fn ensure_image(&self, namespace: &str, reference: &str, baked: &[Layout]) -> Result<Image> {
        let layout = baked.iter().find(|layout| layout.reference == reference);
        if let Some(image) = self.runnable(namespace, reference, layout).await? {
            return Ok(image);
        }
        // Whoever waited finds the work done. Of two images that share a layer, the layer's turn takes care.
        let _turn = self.turns.take(&format!("{namespace} import {reference}")).await;
        if let Some(image) = self.runnable(namespace, reference, layout).await? {
            return Ok(image);
        }
        match layout {
            Some(layout) => {
                if self.is_damaged(namespace, reference).await? {
                    tracing::warn!("what containerd has of {reference} is damaged: it is imported again");
                    let (_, manifest) = read_manifest(layout).await?;
                    let layers = manifest.layers.iter().map(|layer| layer.digest.as_str());
                    let documents = [manifest.config.digest.as_str(), layout.manifest.digest.as_str()];
                    self.forget(namespace, reference, layers.chain(documents)).await?;
                }
                let import = async |lease: &str| self.import(namespace, lease, layout).await;
                self.under_lease(namespace, &layout.manifest.digest, import).await
            }
            None => {
                let image = self.image(namespace, reference).await?;
                let unpack = async |lease: &str| self.unpack(namespace, lease, &image).await;
                self.under_lease(namespace, &image.config_digest, unpack).await?;
                Ok(image)
            }
        }
    }

    /// The image, if it is there in the version that is wanted, and unpacked.
    pub async fn runnable(
        &self,
        namespace: &str,
        reference: &str,
        layout: Option<&Layout>,
    ) -> Result<Option<Image>> {
        let Some(target) = self.image_target(namespace, reference).await? else {
            return match layout {
                Some(_) => Ok(None),
                None => Err(Error::ImageMissing { reference: reference.to_owned() }),
            };
        };
        if layout.is_some_and(|layout| layout.manifest.digest != target.digest) {
            return Ok(None);
        }
        if let Some(image) = self.records.get(namespace, reference, &target.digest)
            && self.is_unpacked(namespace, &image).await?
        {
            return Ok(Some(image));
        }
        match self.image(namespace, reference).await {
            Ok(image) if self.is_unpacked(namespace, &image).await? => {
                self.records.put(namespace, &target.digest, &image);
                Ok(Some(image))
            }
            Ok(_) => Ok(None),
            // There is a good copy of it.
            Err(error) if layout.is_some() && is_damage(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether containerd knows an image and cannot read it.
    pub(super) async fn is_damaged(&self, namespace: &str, reference: &str) -> Result<bool> {
        match self.image(namespace, reference).await {
            Err(error) => Ok(is_damage(&error)),
            Ok(_) => Ok(false),
        }
    }

    /// Takes an image's name and documents out of containerd, and waits until their files are gone: files that stay are
    /// taken for good when the same digests are written again.
    pub(super) async fn forget<'a>(
        &self,
        namespace: &str,
        reference: &str,
        digests: impl Iterator<Item = &'a str>,
    ) -> Result<()> {
        self.remove_name(namespace, reference).await?;
        for digest in digests {
            self.delete_blob(namespace, digest).await?;
        }
        self.collect(namespace).await
    }

    async fn is_unpacked(&self, namespace: &str, image: &Image) -> Result<bool> {
        Ok(image.layers.is_empty() || self.has_snapshot(namespace, &image.chain_id).await?)
    }

    async fn import(&self, namespace: &str, lease: &str, layout: &Layout) -> Result<Image> {
        let (path, manifest) = read_manifest(layout).await?;
        let config = Descriptor::from(manifest.config);
        let layers: Vec<Descriptor> = manifest.layers.into_iter().map(Descriptor::from).collect();
        let mut missing = 0_u64;
        for layer in &layers {
            if !self.has_blob(namespace, &layer.digest).await? {
                missing = missing.saturating_add(size(layer));
            }
        }
        // Each is stored as it came and unpacked, which takes no less.
        self.room(&layout.reference, missing.saturating_mul(2)).await?;
        let mut references = HashMap::new();
        for (number, layer) in layers.iter().enumerate() {
            references.insert(format!("{CONTENT_LABEL}.l.{number}"), layer.digest.clone());
            let bytes = FileBytes::new(layout.blob(&layer.digest)?);
            self.write_blob(namespace, lease, bytes, layer, HashMap::new()).await?;
        }
        references.insert(format!("{CONTENT_LABEL}.config"), config.digest.clone());
        let bytes = FileBytes::new(layout.blob(&config.digest)?);
        self.write_blob(namespace, lease, bytes, &config, HashMap::new()).await?;
        self.write_blob(namespace, lease, FileBytes::new(path), &layout.manifest, references).await?;
        self.name_image(namespace, lease, &layout.reference, &layout.manifest).await?;
        let image = self.image(namespace, &layout.reference).await?;
        self.unpack(namespace, lease, &image).await?;
        Ok(image)
    }

    /// Points a reference at a manifest, whether it is known or not.
    pub(super) async fn name_image(
        &self,
        namespace: &str,
        lease: &str,
        reference: &str,
        manifest: &Descriptor,
    ) -> Result<()> {
        let image =
            Named { name: reference.to_owned(), target: Some(manifest.clone()), ..Default::default() };
        let mut client = ImagesClient::new(self.channel.clone());
        let create = CreateImageRequest { image: Some(image.clone()), ..Default::default() };
        let act = format!("name image {reference}");
        match call(act.clone(), client.create(request(namespace, Some(lease), create))).await {
            Err(error) if error.is_already_there() => {
                let update = UpdateImageRequest { image: Some(image), ..Default::default() };
                call(act, client.update(request(namespace, Some(lease), update))).await.map(drop)
            }
            other => other.map(drop),
        }
    }

    /// Runs an act that the garbage collector must not disturb.
    async fn under_lease<T>(
        &self,
        namespace: &str,
        about: &str,
        act: impl AsyncFnOnce(&str) -> Result<T>,
    ) -> Result<T> {
        let lease = self.lease(namespace, &about.replace(':', "-")).await?;
        let done = act(&lease.id).await?;
        lease.release().await;
        Ok(done)
    }

    /// Takes a reference out of containerd; what it stood for is garbage then. One that is not there is fine.
    pub async fn remove_name(&self, namespace: &str, reference: &str) -> Result<()> {
        self.records.forget(namespace, reference);
        let mut client = ImagesClient::new(self.channel.clone());
        let delete = DeleteImageRequest { name: reference.to_owned(), sync: false, ..Default::default() };
        let answer = client.delete(request(namespace, None, delete));
        absent_is_fine(call(format!("delete image {reference}"), answer).await.map(drop))
    }
}

/// A layer's own bytes; what a manifest says of less than none is none.
pub(super) fn size(layer: &Descriptor) -> u64 {
    u64::try_from(layer.size).unwrap_or(0)
}

/// The manifest of a layout, and where it lies.
async fn read_manifest(layout: &Layout) -> Result<(PathBuf, Manifest)> {
    let path = layout.blob(&layout.manifest.digest)?;
    let text = tokio::fs::read(&path).await.map_err(|source| Error::Read { path: path.clone(), source })?;
    let manifest = serde_json::from_slice(&text)
        .map_err(|source| Error::Parse { what: path.display().to_string(), source })?;
    Ok((path, manifest))
}

/// What a power cut or a worn card leaves of an image: files that are gone, short or full of zeroes.
pub fn is_damage(error: &Error) -> bool {
    let short = |source: &tonic::Status| source.code() == tonic::Code::OutOfRange;
    error.is_not_found()
        || matches!(error, Error::Parse { .. })
        || matches!(error, Error::Containerd { source, .. } if short(source))
}

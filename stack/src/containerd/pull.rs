//! Images of registries: from the wire into containerd, only what is missing.
//!
//! Everything is written under a lease, and unpacked; the image's name comes last, and only when its caller says that it
//! is good: a deployment that fails leaves under a tag what was there. The lease goes after that, or with whoever is
//! not waited for any more; one of a former life when the gateway starts.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use containerd_client::types::Descriptor;
use futures_util::stream::{self, TryStreamExt};

use super::client::Containerd;
use super::image::{Image, Manifest, chain_ids, choose};
use super::import::{CONTENT_LABEL, size};
use super::lease::Lease;
use super::reference::{Reference, is_digest};
use crate::error::{Error, Result, Trouble};
use crate::registry::{Blob, Document, Source, Sources, is_index};

/// Layers of one image that are fetched at the same time.
const LAYERS_AT_ONCE: usize = 3;

/// Pause between two lines about how far a pull is.
const PROGRESS: Duration = Duration::from_secs(10);

/// An image for an instance, ready to be run.
#[derive(Debug)]
pub struct Supply {
    /// The image.
    pub image: Image,
    fresh: Option<Fresh>,
}

/// What was fetched and has no name yet.
#[derive(Debug)]
struct Fresh {
    namespace: String,
    lease: Lease,
    target: Descriptor,
}

/// What a reference stood for before it got another meaning.
#[derive(Debug)]
pub struct Former(Option<Descriptor>);

impl Supply {
    /// An image that containerd has under its name.
    pub fn here(image: Image) -> Self {
        Self { image, fresh: None }
    }
}

/// One pull.
struct Pull<'a> {
    namespace: &'a str,
    name: &'a str,
    lease: &'a Lease,
    sources: Sources,
}

impl Containerd {
    /// Fetches what a registry has under a reference. Where that is what containerd has, nothing is fetched. What was
    /// fetched stays until [`Containerd::let_go`], and after it if [`Containerd::keep`] gave it its name.
    pub async fn pull(&self, namespace: &str, reference: &Reference, sources: &Sources) -> Result<Supply> {
        let name = reference.to_string();
        // Two who want the same image: the second one finds it fetched.
        let _turn = self.turns.take(&format!("{namespace} {name}")).await;
        let (document, sources) = sources.manifest(reference.version()).await?;
        let known = self.image_target(namespace, &name).await?;
        if known.is_some_and(|target| target.digest == document.digest)
            && let Ok(Some(image)) = self.runnable(namespace, &name, None).await
        {
            tracing::info!("{name} is what the registry has");
            return Ok(Supply::here(image));
        }
        // Dropped with everything that it holds where the pull fails, or is not waited for any more.
        let lease = self.lease(namespace, "pull").await?;
        let pull = Pull { namespace, name: &name, lease: &lease, sources };
        let (image, target) = self.fetch(&pull, document).await?;
        Ok(Supply { image, fresh: Some(Fresh { namespace: namespace.to_owned(), lease, target }) })
    }

    /// Gives what was fetched its name: from now on it is what the reference stands for. What it was before stays until
    /// [`Containerd::let_go`].
    pub async fn keep(&self, supply: &Supply) -> Result<Former> {
        let Some(Fresh { namespace, lease, target }) = &supply.fresh else { return Ok(Former(None)) };
        let reference = &supply.image.reference;
        let former = self.image_target(namespace, reference).await?;
        if let Some(former) = &former {
            lease.hold("content", &former.digest).await?;
        }
        self.name_image(namespace, &lease.id, reference, target).await?;
        Ok(Former(former))
    }

    /// Undoes [`Containerd::keep`].
    pub async fn restore(&self, supply: &Supply, former: Former) -> Result<()> {
        let Some(Fresh { namespace, lease, .. }) = &supply.fresh else { return Ok(()) };
        match former.0 {
            Some(former) => self.name_image(namespace, &lease.id, &supply.image.reference, &former).await,
            None => self.remove_name(namespace, &supply.image.reference).await,
        }
    }

    /// Leaves what has no name, and is not used, to the garbage collector.
    pub async fn let_go(&self, supply: Supply) {
        if let Some(fresh) = supply.fresh {
            fresh.lease.release().await;
        }
    }

    /// Fetches and unpacks what a manifest or index stands for. Whether it can be run here is known before the first
    /// layer is fetched.
    async fn fetch(&self, pull: &Pull<'_>, document: Document) -> Result<(Image, Descriptor)> {
        let Pull { namespace, name, lease, sources } = pull;
        let target = descriptor(&document);
        let (document, index) = if is_index(&document.media_type) {
            let chosen = choose(&document.bytes, name)?;
            check(name, &chosen)?;
            let manifest = sources.manifest(&chosen.digest).await?.0;
            if manifest.bytes.len() as u64 != size(&chosen) {
                return Err(unusable(name, "its manifest is not as long as its index says"));
            }
            (manifest, Some(document))
        } else {
            (document, None)
        };
        if is_index(&document.media_type) {
            return Err(unusable(name, "its index leads to another index"));
        }
        let manifest = Manifest::parse(&document.bytes, name)?;
        for blob in manifest.layers.iter().chain([&manifest.config]) {
            check(name, blob)?;
        }
        let config = manifest.config.clone();
        let configuration = sources.configuration(&config.digest).await?;
        if configuration.bytes.len() as u64 != size(&config) {
            return Err(unusable(name, "its configuration is not as long as its manifest says"));
        }
        let image = manifest.image(&configuration.bytes, name)?;
        let layers = image.layers.iter().map(|layer| layer.digest.as_str());
        let digests: Vec<_> =
            layers.chain([config.digest.as_str(), &document.digest, &target.digest]).collect();
        if self.is_damaged(namespace, name).await? {
            tracing::warn!("what containerd has of {name} is damaged: it is fetched again");
            self.forget(namespace, name, digests.iter().copied()).await?;
        }
        // What is there already belongs to others, who may remove it meanwhile.
        for digest in digests {
            lease.hold("content", digest).await?;
        }
        for chain_id in chain_ids(&image.diff_ids) {
            lease.hold(&format!("snapshots/{}", self.snapshotter), &chain_id).await?;
        }
        let fetched = self.fetch_layers(pull, &image).await?;
        self.write_blob(
            namespace,
            &lease.id,
            Some(Bytes::from(configuration.bytes)),
            &config,
            HashMap::new(),
        )
        .await?;
        let numbered = image.layers.iter().enumerate();
        let mut references: HashMap<_, _> =
            numbered.map(|(at, layer)| (format!("{CONTENT_LABEL}.l.{at}"), layer.digest.clone())).collect();
        references.insert(format!("{CONTENT_LABEL}.config"), config.digest);
        let manifest = descriptor(&document);
        self.write_blob(namespace, &lease.id, Some(Bytes::from(document.bytes)), &manifest, references)
            .await?;
        if let Some(index) = index {
            let references = [(format!("{CONTENT_LABEL}.m.0"), manifest.digest)].into();
            self.write_blob(namespace, &lease.id, Some(Bytes::from(index.bytes)), &target, references)
                .await?;
        }
        if let Err(error) = self.unpack(namespace, &lease.id, &image).await {
            let known = self.not_unpacked(namespace, &image).await?.filter(|bad| !fetched.contains(bad));
            let (Some(bad), false) =
                (known, matches!(error, Error::NoRoom { .. } | Error::ContainerdSilent { .. }))
            else {
                return Err(error);
            };
            tracing::warn!("{error}: the layer was here already, and is fetched again");
            self.delete_blob(namespace, &bad).await?;
            self.collect(namespace).await?;
            lease.hold("content", &bad).await?;
            self.fetch_layers(pull, &image).await?;
            self.unpack(namespace, &lease.id, &image).await?;
        }
        Ok((image, target))
    }

    /// The lowest of an image's layers that does not lie unpacked: after a failure, the one that it was about.
    async fn not_unpacked(&self, namespace: &str, image: &Image) -> Result<Option<String>> {
        for (layer, chain_id) in image.layers.iter().zip(chain_ids(&image.diff_ids)) {
            if !self.has_snapshot(namespace, &chain_id).await? {
                return Ok(Some(layer.digest.clone()));
            }
        }
        Ok(None)
    }

    /// Fetches the layers that containerd lacks, and tells how it goes. Gives their digests.
    async fn fetch_layers(&self, pull: &Pull<'_>, image: &Image) -> Result<HashSet<String>> {
        let (mut missing, mut seen) = (Vec::new(), HashSet::new());
        for layer in &image.layers {
            if seen.insert(&layer.digest) && !self.has_blob(pull.namespace, &layer.digest).await? {
                missing.push(layer);
            }
        }
        let total = missing.iter().map(|layer| size(layer)).fold(0, u64::saturating_add);
        // Each is stored as it came and unpacked, which takes no less.
        self.room(pull.name, total.saturating_mul(2)).await?;
        let from = pull.sources.all().first().map(|source| source.name()).unwrap_or_default();
        tracing::info!(
            "pull of {} from {from}: {} of {} layers, {} MiB",
            pull.name,
            missing.len(),
            image.layers.len(),
            mebibytes(total)
        );
        let (began, counter) = (Instant::now(), Arc::new(AtomicU64::new(0)));
        let fetched = stream::iter(missing.iter().map(Ok))
            .try_for_each_concurrent(LAYERS_AT_ONCE, |layer| self.fetch_layer(pull, layer, &counter));
        // Others write at the same time: what fitted at the start may not fit any more.
        let fetched = self.while_room(pull.name, fetched);
        tokio::pin!(fetched);
        let came = || mebibytes(counter.load(Ordering::Relaxed));
        loop {
            match tokio::time::timeout(PROGRESS, &mut fetched).await {
                Ok(done) => {
                    done?;
                    break;
                }
                Err(_) => tracing::info!("pull of {}: {} of {} MiB", pull.name, came(), mebibytes(total)),
            }
        }
        let seconds = began.elapsed().as_secs_f64();
        tracing::info!("pull of {}: {} MiB in {seconds:.1} s", pull.name, came());
        Ok(missing.iter().map(|layer| layer.digest.clone()).collect())
    }

    /// Fetches one layer, from the first source that gives it.
    async fn fetch_layer(&self, pull: &Pull<'_>, layer: &Descriptor, counter: &Arc<AtomicU64>) -> Result<()> {
        let mut causes = Vec::new();
        // Never closed: it lives as long as the connection.
        let _place = self.layers.acquire().await;
        for source in pull.sources.all() {
            let blob = Blob::new(source.clone(), &layer.digest, size(layer), counter.clone());
            match self.write_blob(pull.namespace, &pull.lease.id, blob, layer, HashMap::new()).await {
                Ok(()) => return Ok(()),
                Err(error @ Error::Registry { .. }) => causes.push(error),
                Err(error) if error.is_mismatch() => causes.push(corrupt(source, layer)),
                Err(error) => return Err(error),
            }
        }
        Err(Error::Registries { causes })
    }
}

fn descriptor(document: &Document) -> Descriptor {
    Descriptor {
        media_type: document.media_type.clone(),
        digest: document.digest.clone(),
        size: i64::try_from(document.bytes.len()).unwrap_or(i64::MAX),
        ..Default::default()
    }
}

/// Refuses what a stranger may have written into a manifest.
fn check(name: &str, blob: &Descriptor) -> Result<()> {
    if !is_digest(&blob.digest) {
        return Err(unusable(name, "one of its digests is no sha256 digest"));
    }
    if blob.size < 0 {
        return Err(unusable(name, "one of its parts has less than no bytes"));
    }
    Ok(())
}

fn unusable(name: &str, reason: &str) -> Error {
    Error::ImageUnusable { reference: name.to_owned(), reason: reason.to_owned() }
}

fn corrupt(source: &Source, layer: &Descriptor) -> Error {
    Error::Registry {
        registry: source.name().to_owned(),
        act: format!("fetch the blob {}", layer.digest),
        trouble: Trouble::Wrong,
        reason: "what came has another digest: it is damaged there, or on the way".into(),
    }
}

/// Mebibytes with one decimal.
fn mebibytes(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / f64::from(1 << 20))
}

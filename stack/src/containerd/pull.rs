//! Images of registries: from the wire into containerd, only what is missing.
//!
//! Everything is written under a lease, and unpacked; the image's name comes last, and only when its caller says that it
//! is good: a deployment that fails leaves under a tag what was there. The lease goes after that. One that is left over
//! is removed when the gateway starts.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use containerd_client::services::v1::leases_client::LeasesClient;
use containerd_client::services::v1::{AddResourceRequest, Resource};
use containerd_client::types::Descriptor;
use futures_util::stream::{self, TryStreamExt};

use super::client::{Containerd, call, request};
use super::image::{Image, Manifest, chain_ids, choose};
use super::import::{CONTENT_LABEL, LEASE, size};
use super::reference::{Reference, is_digest};
use crate::error::{Error, Result, Trouble};
use crate::registry::{Blob, Document, Source, Sources, is_index};

/// Layers that are fetched at the same time.
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
    lease: String,
    target: Descriptor,
}

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
    lease: &'a str,
    sources: Sources,
}

impl Containerd {
    /// Fetches what a registry has under a reference. Where that is what containerd has, nothing is fetched. What was
    /// fetched stays until [`Containerd::let_go`], and after it if [`Containerd::keep`] gave it its name.
    pub async fn pull(&self, namespace: &str, reference: &Reference, sources: &Sources) -> Result<Supply> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
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
        let lease = format!("{LEASE}pull-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        self.make_lease(namespace, &lease).await?;
        let pull = Pull { namespace, name: &name, lease: &lease, sources };
        match self.fetch(&pull, document).await {
            Ok((image, target)) => {
                let fresh = Some(Fresh { namespace: namespace.to_owned(), lease, target });
                Ok(Supply { image, fresh })
            }
            Err(error) => {
                self.release_or_tell(namespace, &lease).await;
                Err(error)
            }
        }
    }

    /// Gives what was fetched its name: from now on it is what the reference stands for.
    pub async fn keep(&self, supply: &Supply) -> Result<()> {
        let Some(Fresh { namespace, lease, target }) = &supply.fresh else { return Ok(()) };
        self.name_image(namespace, lease, &supply.image.reference, target).await
    }

    /// Leaves what has no name, and is not used, to the garbage collector.
    pub async fn let_go(&self, supply: Supply) {
        if let Some(fresh) = supply.fresh {
            self.release_or_tell(&fresh.namespace, &fresh.lease).await;
        }
    }

    async fn release_or_tell(&self, namespace: &str, lease: &str) {
        if let Err(error) = self.release(namespace, lease, false).await {
            tracing::warn!("what was fetched stays until the next start: {error}");
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
            (sources.manifest(&chosen.digest).await?.0, Some(document))
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
            self.hold(pull, "content", digest).await?;
        }
        for chain_id in chain_ids(&image.diff_ids) {
            self.hold(pull, &format!("snapshots/{}", self.snapshotter), &chain_id).await?;
        }
        self.fetch_layers(pull, &image).await?;
        self.write_blob(namespace, lease, Some(Bytes::from(configuration.bytes)), &config, HashMap::new())
            .await?;
        let numbered = image.layers.iter().enumerate();
        let mut references: HashMap<_, _> =
            numbered.map(|(at, layer)| (format!("{CONTENT_LABEL}.l.{at}"), layer.digest.clone())).collect();
        references.insert(format!("{CONTENT_LABEL}.config"), config.digest);
        let manifest = descriptor(&document);
        self.write_blob(namespace, lease, Some(Bytes::from(document.bytes)), &manifest, references).await?;
        if let Some(index) = index {
            let references = [(format!("{CONTENT_LABEL}.m.0"), manifest.digest)].into();
            self.write_blob(namespace, lease, Some(Bytes::from(index.bytes)), &target, references).await?;
        }
        let _turn = self.importing.lock().await;
        self.unpack(namespace, lease, &image).await?;
        Ok((image, target))
    }

    /// Fetches the layers that containerd lacks, and tells how it goes.
    async fn fetch_layers(&self, pull: &Pull<'_>, image: &Image) -> Result<()> {
        let (mut missing, mut seen) = (Vec::new(), HashSet::new());
        for layer in &image.layers {
            if seen.insert(&layer.digest) && !self.has_blob(pull.namespace, &layer.digest).await? {
                missing.push(layer);
            }
        }
        let total = missing.iter().map(|layer| size(layer)).fold(0, u64::saturating_add);
        // Each is stored as it came and unpacked, which takes no less.
        self.room(pull.name, total.saturating_mul(2))?;
        let from = pull.sources.all().first().map(|source| source.name()).unwrap_or_default();
        tracing::info!(
            "pull of {} from {from}: {} of {} layers, {} MiB",
            pull.name,
            missing.len(),
            image.layers.len(),
            mebibytes(total)
        );
        let (began, counter) = (Instant::now(), Arc::new(AtomicU64::new(0)));
        let fetched = stream::iter(missing.into_iter().map(Ok))
            .try_for_each_concurrent(LAYERS_AT_ONCE, |layer| self.fetch_layer(pull, layer, &counter));
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
        Ok(())
    }

    /// Fetches one layer, from the first source that gives it.
    async fn fetch_layer(&self, pull: &Pull<'_>, layer: &Descriptor, counter: &Arc<AtomicU64>) -> Result<()> {
        let mut causes = Vec::new();
        for source in pull.sources.all() {
            let blob = Blob::new(source.clone(), &layer.digest, size(layer), counter.clone());
            match self.write_blob(pull.namespace, pull.lease, blob, layer, HashMap::new()).await {
                Ok(()) => return Ok(()),
                Err(error @ Error::Registry { .. }) => causes.push(error),
                Err(error) if error.is_mismatch() => causes.push(corrupt(source, layer)),
                Err(error) => return Err(error),
            }
        }
        Err(Error::Registries { causes })
    }

    /// Has the lease hold something, there or not yet.
    async fn hold(&self, pull: &Pull<'_>, kind: &str, id: &str) -> Result<()> {
        let resource = Some(Resource { id: id.to_owned(), r#type: kind.to_owned() });
        let add = AddResourceRequest { id: pull.lease.to_owned(), resource };
        let mut client = LeasesClient::new(self.channel.clone());
        let answer = client.add_resource(request(pull.namespace, None, add));
        call(format!("hold {id} in lease {}", pull.lease), answer).await.map(drop)
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

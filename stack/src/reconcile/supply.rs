//! Where a function's image comes from: the appliance, containerd, or a registry.

use provisioning::PullPolicy;

use super::World;
use crate::containerd::{Image, Reference, Supply, is_damage, normalise};
use crate::desired::Document;
use crate::error::{Error, Result};
use crate::runtime::constraints;

/// Why an image is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Occasion {
    /// Somebody deploys.
    Deployment,
    /// What is deployed starts: at boot, after its end, or because of a call.
    Start,
}

/// What is done for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Course {
    /// It is here, or cannot be had.
    Here,
    /// It is here, or is pulled.
    HereElsePull,
    /// The registry is asked whether it has another one.
    Pull,
}

/// A start must not depend on the network while the image is here. A digest stands for one image for ever: nothing newer
/// can be had by asking.
fn course(policy: PullPolicy, occasion: Occasion, reference: &Reference, brought: bool) -> Course {
    match (policy, occasion) {
        _ if brought || reference.is_local() => Course::Here,
        (PullPolicy::Never, _) => Course::Here,
        (PullPolicy::Always, Occasion::Deployment) if reference.digest.is_none() => Course::Pull,
        _ => Course::HereElsePull,
    }
}

impl World {
    /// The image of what is to be deployed. It is given back with `keep` and `let_go` of containerd's.
    pub(super) async fn supply(&self, document: &Document) -> Result<Supply> {
        // What is fetched before that would be taken for a leftover.
        let mut swept = self.swept.subscribe();
        let _ = swept.wait_for(|swept| *swept).await;
        drop(swept);
        self.obtain(document, Occasion::Deployment).await
    }

    /// Whether the appliance brought a document's image.
    pub(super) fn brought(&self, document: &Document) -> bool {
        let reference = normalise(&document.image);
        self.baked.iter().any(|layout| Some(&layout.reference) == reference.as_ref())
    }

    /// The image of what starts again, if nothing has to be done for it.
    pub(super) async fn at_hand(&self, document: &Document) -> Option<Image> {
        // What is wrong is found, and told, by `image`.
        constraints::check(&document.constraints).ok()?;
        let reference = normalise(&document.image)?;
        let layout = self.baked.iter().find(|layout| layout.reference == reference);
        self.containerd.runnable(document.namespace.as_str(), &reference, layout).await.ok().flatten()
    }

    /// The image of what starts again.
    pub(super) async fn image(&self, document: &Document) -> Result<Image> {
        let supply = self.obtain(document, Occasion::Start).await?;
        let (kept, image) = (self.containerd.keep(&supply).await, supply.image.clone());
        self.containerd.let_go(supply).await;
        kept.map(|_| image)
    }

    async fn obtain(&self, document: &Document, occasion: Occasion) -> Result<Supply> {
        // A deployment was asked at the API, and what was kept before anybody asked runs on. Only an entry of the
        // configuration, which may have come with a card from another machine, is asked here.
        if document.declared.is_some() {
            constraints::check(&document.constraints)?;
        }
        let reference = Reference::parse(&document.image).ok_or_else(|| Error::Invalid {
            what: format!("image {:?}", document.image),
            reason: "is no image reference".into(),
        })?;
        let (namespace, name) = (document.namespace.as_str(), reference.to_string());
        let brought = self.baked.iter().any(|layout| layout.reference == name);
        let course = course(self.settings.registries.policy, occasion, &reference, brought);
        if course != Course::Pull {
            match self.containerd.ensure_image(namespace, &name, &self.baked).await {
                Err(error) if course == Course::HereElsePull && is_lacking(&error) => {
                    tracing::info!("{error}: it is pulled");
                }
                other => return other.map(Supply::here),
            }
        }
        let pull = async {
            let sources = self.settings.registries.sources(&reference)?;
            self.containerd.pull(namespace, &reference, &sources).await
        };
        match pull.await {
            Ok(supply) => Ok(supply),
            Err(error) => {
                let lasting = error.is_lasting();
                let here = course == Course::Pull
                    && error.is_away()
                    && self
                        .containerd
                        .runnable(namespace, &name, None)
                        .await
                        .is_ok_and(|image| image.is_some());
                Err(Error::Pull { reason: advise(here, &error), reference: name, lasting })
            }
        }
    }
}

/// Why a pull failed, and what to do about it. `here` is whether there is an image that could be used instead.
fn advise(here: bool, error: &Error) -> String {
    if here {
        return format!(
            "{error}; with pull_policy = \"{}\" in [registries] of bothy.toml an image that is on this machine is \
                 used without asking",
            PullPolicy::IfNotPresent
        );
    }
    error.to_string()
}

/// The image is not here, or not to be read.
fn is_lacking(error: &Error) -> bool {
    matches!(error, Error::ImageMissing { .. }) || is_damage(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies() {
        use Occasion::{Deployment, Start};
        use PullPolicy::{Always, IfNotPresent, Never};
        let digest = format!("ghcr.io/a/b:1@sha256:{}", "a".repeat(64));
        for (policy, occasion, reference, brought, wanted) in [
            (Always, Deployment, "a", false, Course::Pull),
            (Always, Deployment, "localhost:5000/a", false, Course::Pull),
            (Always, Deployment, &digest, false, Course::HereElsePull),
            (Always, Deployment, "a", true, Course::Here),
            (Always, Deployment, "localhost/a", false, Course::Here),
            (Always, Start, "a", false, Course::HereElsePull),
            (Always, Start, "localhost/a", false, Course::Here),
            (IfNotPresent, Deployment, "a", false, Course::HereElsePull),
            (IfNotPresent, Deployment, "a", true, Course::Here),
            (IfNotPresent, Start, "a", false, Course::HereElsePull),
            (Never, Deployment, "a", false, Course::Here),
            (Never, Deployment, &digest, false, Course::Here),
            (Never, Start, "a", false, Course::Here),
        ] {
            let found = course(policy, occasion, &Reference::parse(reference).unwrap(), brought);
            assert_eq!(found, wanted, "{policy} {occasion:?} {reference} {brought}");
        }
    }
}

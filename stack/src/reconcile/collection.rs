//! The end of images that nobody names: those that were not used for longest go first, when the disk is fuller than it
//! should be, or when an image that somebody wants does not fit.

use std::collections::HashSet;
use std::sync::Arc;

use provisioning::Images;

use super::{Functions, World};
use crate::containerd::{Containerd, Plea, Record};
use crate::desired::on_disk;
use crate::error::Result;
use crate::space::Space;
use crate::timestamp::rfc3339;

/// What images are removed for.
pub(super) enum Goal<'a> {
    /// That the disk is no fuller than it should be.
    Thresholds(Images),
    /// That an image fits.
    Room(&'a Plea),
}

impl Goal<'_> {
    /// Whether something has to be done for it.
    fn is_due(&self, containerd: &Containerd) -> Result<bool> {
        match self {
            // Whatever is taken.
            Self::Thresholds(Images { high_threshold: 0, .. }) => Ok(true),
            Self::Thresholds(images) => Ok(containerd.space()?.is_above(images.high_threshold)),
            Self::Room(_) => self.is_missed(containerd),
        }
    }

    /// Whether it is not reached yet.
    fn is_missed(&self, containerd: &Containerd) -> Result<bool> {
        match self {
            Self::Thresholds(Images { high_threshold: 0, .. }) => Ok(true),
            Self::Thresholds(images) => Ok(containerd.space()?.is_above(images.low_threshold)),
            Self::Room(plea) => Ok(!plea.is_over() && containerd.free()? < plea.needs),
        }
    }

    /// In words, given how full the disk was.
    fn why(&self, before: Space) -> String {
        match self {
            Self::Thresholds(Images { high_threshold: 0, .. }) => "none is to be kept".to_owned(),
            Self::Thresholds(images) => {
                let Images { high_threshold: high, low_threshold: low } = images;
                format!("the disk was {}% full: above {high}% they go until it is {low}%", before.percent())
            }
            Self::Room(Plea { reference, needs, .. }) => {
                format!("{reference} needs {} MiB or more", needs.div_ceil(1 << 20))
            }
        }
    }
}

/// Makes room for who needs it, for ever.
pub async fn make_room(world: Arc<World>, functions: Arc<Functions>) {
    let mut pleas = world.containerd.pleas();
    while let Some(plea) = pleas.recv().await {
        if let Err(error) = world.collect_images(&functions, Goal::Room(&plea)).await {
            tracing::warn!("no room could be made for {}: {error}", plea.reference);
        }
    }
}

impl World {
    /// Removes images until the goal is reached, or none is left that may go.
    pub(super) async fn collect_images(&self, functions: &Functions, goal: Goal<'_>) -> Result<()> {
        // Two at once would take each other's freed bytes for their own, and remove too many.
        let mut turn = self.collecting.lock().await;
        if !goal.is_due(&self.containerd)? {
            return Ok(());
        }
        let unnamed = self.unnamed(functions).await?;
        if unnamed.is_empty() || self.is_a_document_closed(&mut turn).await {
            return Ok(());
        }
        for (namespace, Record { reference, last_used }) in unnamed {
            if !goal.is_missed(&self.containerd)? {
                break;
            }
            let before = self.containerd.space()?;
            match self.remove_unnamed(functions, &namespace, &reference).await {
                Ok(true) => {}
                Ok(false) => continue,
                Err(error) if error.is_containerd_away() => return Err(error),
                Err(error) => {
                    tracing::warn!("the image {reference} of {namespace} stays: {error}");
                    continue;
                }
            }
            // How much that gives is known only when the files are gone: others may have the same layers.
            self.containerd.collect(&namespace).await?;
            let freed = self.containerd.space()?.free.saturating_sub(before.free);
            tracing::info!(
                "the image {reference} of {namespace} is removed, {:.1} MiB are freed: no function is of it since {}, and {}",
                freed as f64 / f64::from(1 << 20),
                rfc3339(last_used / 1_000_000),
                goal.why(before)
            );
        }
        Ok(())
    }

    /// Takes note of when images were used in former lives.
    pub(super) async fn recall_uses(&self) -> Result<()> {
        for namespace in self.our_namespaces().await? {
            for record in self.containerd.image_records(&namespace).await? {
                self.moments.saw(record.last_used);
            }
        }
        Ok(())
    }

    /// The images that may go, with their namespaces, in the order in which they do. One that an instance on its way out is
    /// of stays until that has gone: its layers would stay anyhow.
    async fn unnamed(&self, functions: &Functions) -> Result<Vec<(String, Record)>> {
        let mut unnamed = Vec::new();
        for namespace in self.our_namespaces().await? {
            let containers = self.containerd.containers_of(&namespace, None).await?;
            let used: HashSet<_> = containers.into_iter().map(|container| container.image).collect();
            let records = self.containerd.image_records(&namespace).await?.into_iter().filter(|record| {
                !used.contains(&record.reference) && !self.is_named(functions, &namespace, &record.reference)
            });
            unnamed.extend(records.map(|record| (namespace.clone(), record)));
        }
        unnamed.sort_by_key(|(_, record)| record.last_used);
        Ok(unnamed)
    }

    async fn our_namespaces(&self) -> Result<Vec<String>> {
        let all = self.containerd.namespaces().await?.into_iter();
        Ok(all.filter(|namespace| namespace.labels.contains_key("openfaas")).map(|n| n.name).collect())
    }

    /// Whether there is a document that may be good and cannot be read: nobody knows what it names. `told` is what was said
    /// of it last, which is not said at each look.
    async fn is_a_document_closed(&self, told: &mut Option<String>) -> bool {
        let store = self.store.clone();
        let wrong = match on_disk(move || store.closed()).await {
            Ok(closed) => closed.map(|bad| format!("{} {}", bad.path.display(), bad.reason)),
            Err(error) => Some(error.to_string()),
        };
        if let Some(wrong) = &wrong
            && told.as_ref() != Some(wrong)
        {
            tracing::warn!("no image is removed, because nobody knows what is needed: {wrong}");
        }
        told.clone_from(&wrong);
        wrong.is_some()
    }
}

//! What removals and pulls leave to containerd's collector of garbage, and the images that nobody names. containerd
//! overlooks a removal that comes while it collects (pkg `gc/scheduler`: events older than the last collection's end are
//! dropped), and the files of that instance would stay until the next one: so it is asked once more, a little later.

use std::sync::Arc;
use std::time::Duration;

use super::collection::Goal;
use super::{Functions, World, pause};
use crate::error::Result;

/// Time after a removal in which others may come, for which one collection is enough.
const QUIET: Duration = Duration::from_secs(2);

/// Waits for removals and for what pulls leave, for ever. Functions and logs fill the disk, too: without either it looks at
/// intervals, beginning at once.
pub async fn collect(world: Arc<World>, functions: Arc<Functions>) {
    let mut swept = world.swept.subscribe();
    let _ = swept.wait_for(|swept| *swept).await;
    drop(swept);
    if let Err(error) = world.recall_uses().await {
        tracing::warn!("when images were used in former lives: {error}");
    }
    let mut looks = tokio::time::interval(world.settings.disk_look);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let left = tokio::select! {
            () = world.removed.notified() => true,
            () = world.containerd.leftover() => true,
            _ = looks.tick() => false,
        };
        if left {
            tokio::time::sleep(QUIET).await;
        }
        let mut attempt = 0;
        while let Err(error) = clear(&world, &functions, left).await {
            tracing::debug!("collecting garbage: {error}");
            tokio::time::sleep(pause(attempt + 3)).await;
            attempt += 1;
        }
    }
}

async fn clear(world: &World, functions: &Functions, left: bool) -> Result<()> {
    if left {
        world.containerd.release_leftovers().await?;
        world.containerd.collect(provisioning::Namespace::default().as_str()).await?;
    }
    world.collect_images(functions, Goal::Thresholds(world.settings.images)).await
}

//! What removals and pulls leave to containerd's collector of garbage. containerd overlooks a removal that comes while it
//! collects (pkg `gc/scheduler`: events older than the last collection's end are dropped), and the files of that
//! instance would stay until the next one: so it is asked once more, a little later.

use std::sync::Arc;
use std::time::Duration;

use super::{World, pause};
use crate::error::Result;

/// Time after a removal in which others may come, for which one collection is enough.
const QUIET: Duration = Duration::from_secs(2);

/// Waits for removals and for what pulls leave, for ever.
pub async fn collect(world: Arc<World>) {
    loop {
        tokio::select! {
            () = world.removed.notified() => {}
            () = world.containerd.leftover() => {}
        }
        tokio::time::sleep(QUIET).await;
        let mut attempt = 0;
        while let Err(error) = clear(&world).await {
            tracing::debug!("collecting what removals left: {error}");
            tokio::time::sleep(pause(attempt + 3)).await;
            attempt += 1;
        }
    }
}

async fn clear(world: &World) -> Result<()> {
    world.containerd.release_leftovers().await?;
    world.containerd.collect(provisioning::Namespace::default().as_str()).await
}

//! Room on the disk: what an image may take, and what it must leave to the appliance's own files.

use std::time::Duration;

use super::client::Containerd;
use crate::error::{Error, Result};

/// What no image may take: documents, secrets and logs are written, too. containerd runs as root, so the kernel would
/// let it have everything.
const RESERVE: u64 = 64 << 20;

/// Pause between two looks at what is left. A fast disk must not be able to use up the reserve meanwhile.
const TICK: Duration = Duration::from_millis(250);

impl Containerd {
    /// Refuses what cannot fit: `needs` bytes are the least that it takes.
    pub(super) fn room(&self, reference: &str, needs: u64) -> Result<()> {
        let free = self.free()?;
        if free >= needs { Ok(()) } else { Err(no_room(reference, needs, free)) }
    }

    /// Does what writes an image's files, whose size nobody knows before. It is dropped when there is no room any more.
    pub(super) async fn while_room<T>(
        &self,
        reference: &str,
        act: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let before = self.free()?;
        tokio::pin!(act);
        loop {
            match tokio::time::timeout(TICK, &mut act).await {
                Ok(done) => return done,
                Err(_) if self.free()? == 0 => {
                    return Err(no_room(reference, before.saturating_add(1), before));
                }
                Err(_) => {}
            }
        }
    }

    /// Bytes that images may take.
    fn free(&self) -> Result<u64> {
        let (blocks, block) = crate::desired::free(&self.data)?;
        Ok(blocks.saturating_mul(block).saturating_sub(RESERVE))
    }
}

fn no_room(reference: &str, needs: u64, free: u64) -> Error {
    Error::NoRoom { reference: reference.to_owned(), needs: needs.div_ceil(1 << 20), free: free >> 20 }
}

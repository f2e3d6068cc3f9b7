//! Room on the disk: what an image may take, and what it must leave to the appliance's own files.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::client::Containerd;
use crate::error::{Error, Result};
use crate::space::Space;

/// What no image may take: documents, secrets and logs are written, too. containerd runs as root, so the kernel would
/// let it have everything.
const RESERVE: u64 = 64 << 20;

/// Pause between two looks at what is left. A fast disk must not be able to use up the reserve meanwhile.
const TICK: Duration = Duration::from_millis(250);

/// Somebody needs room for an image, and waits until this is dropped: then there is some, or as much as can be made.
#[derive(Debug)]
pub struct Plea {
    /// The image.
    pub reference: String,
    /// Bytes that must be free for images.
    pub needs: u64,
    /// Closed with it.
    heard: oneshot::Sender<()>,
}

impl Plea {
    /// Whether nobody waits any more.
    pub fn is_over(&self) -> bool {
        self.heard.is_closed()
    }
}

/// The way to who can make room; nobody, at first. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Pleas(Arc<OnceLock<mpsc::UnboundedSender<Plea>>>);

impl Containerd {
    /// Whoever takes this makes room for images that do not fit, from now on. Only the first one hears of any.
    pub fn pleas(&self) -> mpsc::UnboundedReceiver<Plea> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let _ = self.pleas.0.set(sender);
        receiver
    }

    /// How full the file system of the images is.
    pub fn space(&self) -> Result<Space> {
        Space::below(&self.data)
    }

    /// Bytes that images may take.
    pub fn free(&self) -> Result<u64> {
        Ok(self.space()?.free.saturating_sub(RESERVE))
    }

    /// Refuses what cannot fit, where no room can be made for it: `needs` bytes are the least that it takes.
    pub(super) async fn room(&self, reference: &str, needs: u64) -> Result<()> {
        let free = self.make_room(reference, needs).await?;
        if free >= needs { Ok(()) } else { Err(no_room(reference, needs, free)) }
    }

    /// Does what writes an image's files, whose size nobody knows before. It is dropped when there is no room any more, and
    /// none can be made.
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
                // As much as may be written until the next look.
                Err(_) if self.free()? == 0 && self.make_room(reference, RESERVE).await? == 0 => {
                    return Err(no_room(reference, before.saturating_add(1), before));
                }
                Err(_) => {}
            }
        }
    }

    /// Sees to it that so many bytes are free for images, where that can be had. Gives how many are.
    async fn make_room(&self, reference: &str, needs: u64) -> Result<u64> {
        let (free, all) = (self.free()?, self.space()?.all().saturating_sub(RESERVE));
        // What would not fit on an empty disk is worth nobody else's image.
        let Some(way) = self.pleas.0.get().filter(|_| free < needs && needs <= all) else { return Ok(free) };
        let (heard, answer) = oneshot::channel();
        let plea = Plea { reference: reference.to_owned(), needs, heard };
        if way.send(plea).is_ok() {
            // Never sent: it ends when the plea does.
            let _ = answer.await;
        }
        self.free()
    }
}

fn no_room(reference: &str, needs: u64, free: u64) -> Error {
    Error::NoRoom { reference: reference.to_owned(), needs: needs.div_ceil(1 << 20), free: free >> 20 }
}

//! An image on its way to an instance that starts: fetched beside the actor, which goes on doing what it is told.

use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use super::World;
use super::command::Command;
use super::function::Function;
use crate::containerd::Image;
use crate::desired::Document;
use crate::error::{Error, Result};

/// One of them. Whoever drops it does not want the image any more.
pub struct Fetch {
    /// As the document has it.
    image: String,
    told: oneshot::Receiver<Result<Image>>,
    task: AbortHandle,
}

impl Drop for Fetch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Fetch {
    /// Begins to fetch a document's image. The actor is told of the end.
    pub fn begin(world: &Arc<World>, function: &Arc<Function>, document: &Document) -> Self {
        let (tell, told) = oneshot::channel();
        let image = document.image.clone();
        let (world, function, document) = (world.clone(), function.clone(), document.clone());
        let fetching = async move {
            // Nobody listens when the actor has gone.
            let _ = tell.send(world.image(&document).await);
            let _ = function.mailbox.send(Command::Look);
        };
        Self { image, told, task: tokio::spawn(fetching).abort_handle() }
    }

    /// Whether it is a document's image.
    pub fn is_for(&self, document: &Document) -> bool {
        self.image == document.image
    }

    /// Whether it has ended.
    pub fn is_over(&self) -> bool {
        self.task.is_finished()
    }

    /// What came of it; nothing while it goes on.
    pub fn outcome(&mut self) -> Option<Result<Image>> {
        match self.told.try_recv() {
            Ok(outcome) => Some(outcome),
            Err(oneshot::error::TryRecvError::Empty) => None,
            Err(oneshot::error::TryRecvError::Closed) => {
                let what = format!("fetching the image {}", self.image);
                Some(Err(Error::Invalid { what, reason: "ended before its end".into() }))
            }
        }
    }
}

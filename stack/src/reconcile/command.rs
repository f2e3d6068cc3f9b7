//! What may be in an actor's mailbox.

use std::time::Duration;

use tokio::sync::oneshot;

use super::functions::Refused;
use super::start::Outcome;
use crate::containerd::Supply;
use crate::desired::Document;

/// What an actor is told.
pub enum Command {
    /// Look at what is.
    Look,
    /// An instance's process ended.
    Ended {
        /// Its container.
        id: String,
        /// Its status, where containerd told; a signal is 128 and more.
        status: Option<u32>,
    },
    /// An instance's process runs, and is not well.
    Unwell {
        /// Its container.
        id: String,
        /// What it said.
        reason: String,
    },
    /// The start of an instance is over.
    Started {
        /// Its number.
        replica: u32,
        /// What came of it.
        outcome: Outcome,
    },
    /// An instance was removed, or could not be.
    Removed,
    /// Start this, and if it becomes ready let it take over.
    Deploy {
        /// What the function should be.
        document: Box<Document>,
        /// Its image.
        supply: Box<Supply>,
        /// Whether there must be one already, or must not.
        replace: bool,
        /// Told when it is done.
        reply: oneshot::Sender<Result<(), Refused>>,
    },
    /// A call came for a function that rests.
    Wake,
    /// Let none run, if nobody has called for so long.
    Rest {
        /// How long.
        idle: Duration,
    },
    /// Let so many instances run as the load asks for.
    Fit {
        /// How many there were when it did.
        before: u64,
        /// How many there should be.
        replicas: u64,
    },
    /// Let so many instances run.
    Scale {
        /// How many.
        replicas: u64,
        /// Told when it is done.
        reply: oneshot::Sender<Result<(), Refused>>,
    },
    /// Remove the function.
    Delete {
        /// Told when it is done.
        reply: oneshot::Sender<Result<(), Refused>>,
    },
}

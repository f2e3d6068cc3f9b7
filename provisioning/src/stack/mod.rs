//! The services of the stack: the queue of asynchronous calls, and what scales functions to zero.

mod idler;
mod nats;
mod queue;
mod retries;

use std::collections::BTreeMap;

pub use idler::Idler;
pub use nats::{Login, Nats, NatsUrl};
pub use queue::{NamedQueue, Queue, QueueName};
pub use retries::{Backoff, Retries};

/// `[stack]`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Stack {
    /// The NATS server that keeps the queues.
    pub nats: Nats,
    /// How calls wait in queues, and leave them.
    pub queue: Queue,
    /// What is different for single queues.
    pub queues: BTreeMap<QueueName, NamedQueue>,
    /// When functions are scaled to zero.
    pub idler: Idler,
}

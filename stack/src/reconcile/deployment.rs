//! A new version of a function on its way: its instances start beside those that serve, and take over together.

use std::collections::HashSet;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::endpoint::Endpoint;
use super::functions::Refused;
use super::instance::Instance;
use super::start::Outcome;
use crate::containerd::Supply;
use crate::desired::Document;
use crate::error::Error;

/// One of them.
pub struct Deployment {
    /// What the function is to be.
    pub document: Document,
    /// Its image.
    pub supply: Box<Supply>,
    /// Told when it is done.
    pub reply: oneshot::Sender<Result<(), Refused>>,
    /// Numbers of the instances that are on their way.
    pub coming: HashSet<u32>,
    /// Those that are ready.
    pub up: Vec<(Instance, Arc<Endpoint>)>,
    /// Those that are not, and could not be removed.
    pub left: Vec<Instance>,
    /// Why it cannot be done.
    pub failure: Option<Error>,
}

impl Deployment {
    /// With so many instances on their way.
    pub fn new(
        document: Document,
        supply: Box<Supply>,
        reply: oneshot::Sender<Result<(), Refused>>,
        coming: HashSet<u32>,
    ) -> Self {
        Self { document, supply, reply, coming, up: Vec::new(), left: Vec::new(), failure: None }
    }

    /// Takes note of one's end. Returns whether it was the last.
    pub fn note(&mut self, replica: u32, outcome: Outcome) -> bool {
        self.coming.remove(&replica);
        match outcome {
            Outcome::Up(instance, endpoint) => self.up.push((instance, endpoint)),
            Outcome::Failed(error, left) => {
                self.left.extend(left);
                self.failure = Some(error);
            }
            // Not what is asked of a deployment's.
            Outcome::Prepared(instance) | Outcome::Unready(instance, ..) => self.left.push(instance),
        }
        self.coming.is_empty()
    }

    /// Whether an instance is one of its.
    pub fn has(&self, id: &str) -> bool {
        self.up.iter().any(|(instance, _)| instance.id == id)
    }
}

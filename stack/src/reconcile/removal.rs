//! Instances on their way out: each is left to its last calls and removed in a task of its own, so that a function
//! whose old instance takes its time goes on being looked after.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::World;
use super::backoff::Backoff;
use super::command::Command;
use super::endpoint::Endpoint;
use super::functions::Function;
use super::instance::Instance;
use crate::error::Result;

/// The removals of one function.
#[derive(Default)]
pub struct Removals {
    running: HashMap<String, oneshot::Receiver<Result<()>>>,
    /// Ways in that are closed, and may still have calls behind them.
    calls: HashMap<String, Arc<Endpoint>>,
    backoff: Backoff,
    not_before: Option<Instant>,
}

impl Removals {
    /// Remembers that an instance, which nobody is let into any more, may still have calls.
    pub fn let_end(&mut self, id: &str, endpoint: Arc<Endpoint>) {
        self.calls.insert(id.to_owned(), endpoint);
    }

    /// Whether an instance is being removed.
    pub fn has(&self, id: &str) -> bool {
        self.running.contains_key(id)
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    /// Begins to remove what is not being removed yet. Returns when to try again what could not be removed. The actor is
    /// told of each end. The instances must have been listed after the last `settle`: what is gone since then still
    /// counts as being removed, or the next one of its name would be taken for it.
    pub fn begin<'a>(
        &mut self,
        world: &Arc<World>,
        function: &Arc<Function>,
        instances: impl Iterator<Item = &'a Instance>,
        grace: Duration,
    ) -> Option<Duration> {
        for instance in instances {
            if self.has(&instance.id) {
                continue;
            }
            let left = self.not_before.map(|moment| moment.saturating_duration_since(Instant::now()));
            if let Some(left) = left.filter(|left| !left.is_zero()) {
                return Some(left);
            }
            let (tell, told) = oneshot::channel();
            let calls = self.calls.remove(&instance.id);
            self.running.insert(instance.id.clone(), told);
            let (world, function, instance) = (world.clone(), function.clone(), instance.clone());
            tokio::spawn(async move {
                if let Some(endpoint) = calls {
                    endpoint.drained(grace).await;
                }
                let removed = world.remove(&instance, grace).await;
                if let Err(error) = &removed {
                    tracing::warn!("removing {}: {error}", instance.name());
                }
                // Nobody listens when the actor has gone.
                let _ = tell.send(removed);
                let _ = function.mailbox.send(Command::Removed);
            });
        }
        None
    }

    /// Waits for all that run; gives the first error.
    pub async fn finish(&mut self) -> Result<()> {
        let mut first = Ok(());
        for (_, told) in std::mem::take(&mut self.running) {
            // Only a panic keeps a removal from telling; what it left is found at the next look.
            let outcome = told.await.unwrap_or(Ok(()));
            self.note(outcome.is_ok());
            first = first.and(outcome);
        }
        first
    }

    /// Takes note of those that have ended. To be called before instances are listed.
    pub fn settle(&mut self) {
        let mut ended = Vec::new();
        self.running.retain(|_, told| match told.try_recv() {
            Err(oneshot::error::TryRecvError::Empty) => true,
            Ok(outcome) => {
                ended.push(outcome.is_ok());
                false
            }
            Err(oneshot::error::TryRecvError::Closed) => false,
        });
        ended.into_iter().for_each(|well| self.note(well));
    }

    fn note(&mut self, well: bool) {
        if well {
            self.backoff.reset();
            self.not_before = None;
        } else {
            self.not_before = Some(Instant::now() + self.backoff.failed());
        }
    }
}

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
use super::function::Function;
use super::instance::Instance;
use crate::error::{Error, Result};

/// The removals of one function: of each instance from the moment that it is to go until it is gone.
#[derive(Default)]
pub struct Removals(HashMap<String, Removal>);

#[derive(Default)]
struct Removal {
    /// The way in, which is closed and may still have calls behind it, and how long its process may take to end.
    last: Option<(Arc<Endpoint>, Duration)>,
    running: Option<oneshot::Receiver<Result<()>>>,
    backoff: Backoff,
    not_before: Option<Instant>,
}

impl Removals {
    /// Remembers that an instance, which nobody is let into any more, may still have calls.
    pub fn let_end(&mut self, id: &str, endpoint: Arc<Endpoint>, grace: Duration) {
        self.0.entry(id.to_owned()).or_default().last = Some((endpoint, grace));
    }

    /// Whether an instance is to go, or has gone since the last `settle`.
    pub fn has(&self, id: &str) -> bool {
        self.0.contains_key(id)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Begins to remove what is not being removed yet. Returns when to try again what could not be removed. The actor is
    /// told of each end.
    ///
    /// The instances must have been listed after the last `settle`: what is gone since then still counts as being
    /// removed, or the next one of its name would be taken for it.
    pub fn begin<'a>(
        &mut self,
        world: &Arc<World>,
        function: &Arc<Function>,
        instances: impl Iterator<Item = &'a Instance>,
        grace: Duration,
    ) -> Option<Duration> {
        let mut again = None::<Duration>;
        for instance in instances {
            let removal = self.0.entry(instance.id.clone()).or_default();
            if removal.running.is_some() {
                continue;
            }
            let left = removal.not_before.map(|moment| moment.saturating_duration_since(Instant::now()));
            if let Some(left) = left.filter(|left| !left.is_zero()) {
                again = again.into_iter().chain([left]).min();
                continue;
            }
            let (tell, told) = oneshot::channel();
            removal.running = Some(told);
            let (calls, grace) = match &removal.last {
                Some((endpoint, grace)) => (Some(endpoint.clone()), *grace),
                None => (None, grace),
            };
            let (world, function, instance) = (world.clone(), function.clone(), instance.clone());
            tokio::spawn(async move {
                if let Some(endpoint) = calls {
                    endpoint.drained(world.settings.call_timeout).await;
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
        again
    }

    /// Takes note of those that have ended; gives those that could not be removed, and why. To be called before instances
    /// are listed.
    pub fn settle(&mut self) -> Vec<(String, Error)> {
        let mut failures = Vec::new();
        self.0.retain(|id, removal| {
            let Some(running) = &mut removal.running else { return true };
            match running.try_recv() {
                Err(oneshot::error::TryRecvError::Empty) => return true,
                Ok(Ok(())) => return false,
                Ok(Err(error)) => failures.push((id.clone(), error)),
                // It panicked. What it left is removed at the next look.
                Err(oneshot::error::TryRecvError::Closed) => {}
            }
            removal.running = None;
            removal.not_before = Some(Instant::now() + removal.backoff.failed());
            true
        });
        failures
    }

    /// Forgets those that were to go and are not there, given what was listed.
    pub fn keep(&mut self, instances: &[Instance]) {
        self.0.retain(|id, removal| removal.running.is_some() || instances.iter().any(|i| i.id == *id));
    }
}

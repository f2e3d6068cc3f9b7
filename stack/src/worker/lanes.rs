//! Which functions have calls, and a lane for each of them while it has.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt};
use provisioning::QueueName;

use super::Worker;
use super::lane::Lane;
use super::places::Places;
use crate::queue::{Route, WAKE, stream};

/// Pause between two looks into the queues: a word of the gateway's may have been lost.
const LOOK: Duration = Duration::from_secs(5);

/// All lanes.
pub struct Lanes {
    worker: Arc<Worker>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Whether there is something new for a lane that is about to end.
    lanes: HashMap<Route, bool>,
    places: HashMap<QueueName, Arc<Places>>,
}

impl Lanes {
    /// None yet.
    pub fn new(worker: Arc<Worker>) -> Arc<Self> {
        Arc::new(Self { worker, state: Mutex::default() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sees to it for ever that each function with calls has a lane.
    pub async fn look(self: Arc<Self>) {
        loop {
            let mut told = match self.worker.broker.client.subscribe(WAKE).await {
                Ok(told) => told,
                Err(error) => {
                    tracing::debug!("listening to the gateway: {error}");
                    tokio::time::sleep(LOOK).await;
                    continue;
                }
            };
            let mut look = tokio::time::interval(LOOK);
            loop {
                tokio::select! {
                    message = told.next() => match message {
                        Some(message) => {
                            let subject = std::str::from_utf8(&message.payload).unwrap_or_default();
                            if let Some(route) = Route::parse(subject) {
                                self.open(route);
                            }
                        }
                        None => break,
                    },
                    _ = look.tick() => if let Err(error) = self.search().await {
                        tracing::debug!("looking into the queues: {error}");
                    },
                }
            }
        }
    }

    /// Looks into all queues.
    async fn search(self: &Arc<Self>) -> Result<(), String> {
        let broker = &self.worker.broker;
        let mut waiting = Vec::new();
        for queue in broker.queues().await? {
            match self.subjects(&queue).await {
                Ok(found) => waiting.extend(found),
                Err(error) => tracing::debug!("looking into queue {queue}: {error}"),
            }
        }
        for (route, _) in &waiting {
            self.open(route.clone());
        }
        self.worker.statistics.waiting(waiting);
        Ok(())
    }

    /// The functions with calls in a queue, and how many.
    async fn subjects(&self, queue: &QueueName) -> Result<Vec<(Route, usize)>, String> {
        let stream = self.worker.broker.stream(&stream(queue)).await?;
        let subjects = stream.info_with_subjects(">").await.map_err(|error| error.to_string())?;
        let subjects: Vec<(String, usize)> =
            subjects.try_collect().await.map_err(|error| error.to_string())?;
        Ok(subjects.iter().filter_map(|(subject, calls)| Some((Route::parse(subject)?, *calls))).collect())
    }

    /// A lane for a function, unless it has one.
    fn open(self: &Arc<Self>, route: Route) {
        if self.worker.ending.is_cancelled() {
            return;
        }
        let mut state = self.state();
        if let Some(more) = state.lanes.get_mut(&route) {
            *more = true;
            return;
        }
        state.lanes.insert(route.clone(), false);
        let stack = &self.worker.settings;
        let named = stack.queues.get(&route.queue).and_then(|queue| queue.max_inflight);
        let total = named.unwrap_or(stack.queue.max_inflight);
        let places = state.places.entry(route.queue.clone()).or_insert_with(|| Places::new(total));
        let lane = Lane::new(self.worker.clone(), route.clone(), places.share(&route.key));
        let lanes = self.clone();
        tokio::spawn(async move {
            loop {
                lane.run().await;
                if lanes.close(&route) {
                    return;
                }
            }
        });
    }

    /// Ends a lane, unless there is something new for it.
    fn close(&self, route: &Route) -> bool {
        let mut state = self.state();
        let more = state.lanes.get_mut(route).is_some_and(std::mem::take);
        let ends = !more || self.worker.ending.is_cancelled();
        if ends {
            state.lanes.remove(route);
        }
        ends
    }
}

//! What the worker counts, as Prometheus reads it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Worker;
use crate::gateway::text::{Kind, Text};
use crate::queue::Route;

/// The counts, since it began.
#[derive(Default)]
pub struct Statistics(Mutex<State>);

#[derive(Default)]
struct State {
    /// By queue.
    queues: BTreeMap<String, Counts>,
    /// Calls in the queues when they were looked into last: running ones and those that wait for another attempt, too.
    waiting: Vec<(Route, usize)>,
}

/// One of the counts.
type Count = fn(&Counts) -> u64;

#[derive(Default)]
struct Counts {
    done: u64,
    retried: u64,
    dead: u64,
}

impl Statistics {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, route: &Route, count: impl FnOnce(&mut Counts)) {
        let mut state = self.state();
        match state.queues.get_mut(route.queue.as_str()) {
            Some(counts) => count(counts),
            None => count(state.queues.entry(route.queue.to_string()).or_default()),
        }
    }

    /// A call is over.
    pub fn done(&self, route: &Route) {
        self.count(route, |counts| counts.done += 1);
    }

    /// An attempt failed, and another is to come.
    pub fn retried(&self, route: &Route) {
        self.count(route, |counts| counts.retried += 1);
    }

    /// A call was given up.
    pub fn dead(&self, route: &Route) {
        self.count(route, |counts| counts.dead += 1);
    }

    /// What is in the queues.
    pub fn waiting(&self, waiting: Vec<(Route, usize)>) {
        self.state().waiting = waiting;
    }

    fn write(&self, text: &mut Text, running: usize) {
        let state = self.state();
        let families: [(&str, &str, Count); 3] = [
            ("queue_worker_messages_processed_total", "Asynchronous calls that are over.", |counts| {
                counts.done
            }),
            (
                "queue_worker_messages_retried_total",
                "Attempts that failed and were followed by another.",
                |counts| counts.retried,
            ),
            ("queue_worker_messages_dead_total", "Asynchronous calls that became dead letters.", |counts| {
                counts.dead
            }),
        ];
        for (name, help, value) in families {
            text.family(Kind::Counter, name, help);
            for (queue, counts) in &state.queues {
                text.sample(&[("queue_name", queue)], value(counts));
            }
        }
        text.family(
            Kind::Gauge,
            "queue_worker_pending_messages",
            "Asynchronous calls in the queues: waiting, running, or between two attempts.",
        );
        for (route, calls) in &state.waiting {
            text.sample(&[("queue_name", &route.queue), ("function_name", &route.key)], calls);
        }
        text.family(
            Kind::Gauge,
            "queue_worker_function_invocation_inflight",
            "Asynchronous calls that this worker has running.",
        );
        text.sample(&[], running);
    }
}

/// Serves `/metrics` for ever.
pub async fn serve(address: SocketAddr, worker: Arc<Worker>) {
    let exposition = move || {
        let mut text = Text::default();
        worker.statistics.write(&mut text, worker.roll.running());
        crate::gateway::process_metrics(&mut text);
        text.finish()
    };
    crate::gateway::serve_metrics(address, Arc::new(exposition)).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Key;

    #[test]
    fn what_is_told() {
        let statistics = Statistics::default();
        let route = Route { queue: "slow".parse().unwrap(), key: Key::new("f", "dev").unwrap() };
        statistics.done(&route);
        statistics.done(&route);
        statistics.dead(&route);
        statistics.retried(&route);
        statistics.waiting(vec![(route, 7)]);
        let mut text = Text::default();
        statistics.write(&mut text, 3);
        let text = text.finish();
        for line in [
            "queue_worker_messages_processed_total{queue_name=\"slow\"} 2",
            "queue_worker_messages_retried_total{queue_name=\"slow\"} 1",
            "queue_worker_messages_dead_total{queue_name=\"slow\"} 1",
            "queue_worker_pending_messages{queue_name=\"slow\",function_name=\"f.dev\"} 7",
            "queue_worker_function_invocation_inflight 3",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}: {text}");
        }
    }
}

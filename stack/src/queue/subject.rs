//! Names of streams and subjects.

use provisioning::{Namespace, QueueName};

use crate::key::Key;

/// Stream of what became of calls.
pub const LEDGER: &str = "CALLS";
/// Its subject.
pub const LEDGER_SUBJECT: &str = "ledger.lines";
/// Stream of the calls that were given up.
pub const DEAD_LETTERS: &str = "DEAD_LETTERS";

/// Stream of the bodies that are too large for a message.
pub const BODIES: &str = "BODIES";

/// What streams of queues are called: OpenFaaS's queue-worker calls them so.
const STREAM_PREFIX: &str = "OF_";

/// Where a function's calls wait.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Route {
    /// The queue.
    pub queue: QueueName,
    /// The function.
    pub key: Key,
}

impl Route {
    /// Subject of the calls: names of queues, namespaces and functions have no dot.
    pub fn subject(&self) -> String {
        format!("calls.{}", self.tail())
    }

    /// Subject of those that were given up.
    pub fn dead(&self) -> String {
        format!("dead.{}", self.tail())
    }

    /// Name of the consumer that all workers share. A queue's stream has one for each function.
    pub fn consumer(&self) -> String {
        format!("{}_{}", self.key.namespace, self.key.name)
    }

    /// Reads a subject of either kind.
    pub fn parse(subject: &str) -> Option<Self> {
        let mut parts = subject.split('.').skip(1);
        let (queue, namespace, name) = (parts.next()?, parts.next()?, parts.next()?);
        let namespace: Namespace = namespace.parse().ok()?;
        let key = Key { namespace, name: name.parse().ok()? };
        parts.next().is_none().then_some(Self { queue: queue.parse().ok()?, key })
    }

    fn tail(&self) -> String {
        format!("{}.{}.{}", self.queue, self.key.namespace, self.key.name)
    }
}

/// A queue's stream.
pub fn stream(queue: &QueueName) -> String {
    format!("{STREAM_PREFIX}{queue}")
}

/// The queue of a stream.
pub fn queue_of(stream: &str) -> Option<QueueName> {
    stream.strip_prefix(STREAM_PREFIX)?.parse().ok()
}

/// Subjects of a queue's stream.
pub fn all_of(queue: &QueueName) -> String {
    format!("calls.{queue}.>")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        let route = Route { queue: "slow_lane".parse().unwrap(), key: Key::new("figlet", "dev").unwrap() };
        assert_eq!(route.subject(), "calls.slow_lane.dev.figlet");
        assert_eq!(Route::parse(&route.subject()), Some(route.clone()));
        assert_eq!(Route::parse(&route.dead()), Some(route.clone()));
        assert_eq!(queue_of(&stream(&route.queue)), Some(route.queue));
        for bad in ["", "calls", "calls.q.dev", "calls.q.dev.figlet.x", "calls.q.DEV.figlet"] {
            assert_eq!(Route::parse(bad), None, "{bad}");
        }
        for bad in ["CALLS", "OF_", "OF_a b"] {
            assert_eq!(queue_of(bad), None, "{bad}");
        }
    }
}

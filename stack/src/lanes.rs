//! Threads for connections: one for each processor, with a runtime of its own. A connection stays on its thread, with the calls
//! that it carries and the connections that these use: no thread wakes another one for a call.

use std::cell::Cell;
use std::future::pending;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::thread;

use tokio::runtime::{Builder, Handle};

/// More than so many are of no use where functions run beside them, and each has memory of its own.
const MOST: usize = 4;

thread_local! {
    /// Number of the lane that the thread is.
    static LANE: Cell<usize> = const { Cell::new(0) };
}

/// All lanes.
pub struct Lanes(Vec<Lane>);

struct Lane {
    handle: Handle,
    connections: Arc<AtomicUsize>,
}

/// A connection's place on a lane; left when it is dropped.
pub struct OnLane(Arc<AtomicUsize>);

impl Drop for OnLane {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Lanes {
    /// How many there are to be.
    pub fn number() -> usize {
        // Once: what the machine gives us may change.
        static NUMBER: LazyLock<usize> =
            LazyLock::new(|| thread::available_parallelism().map_or(1, Into::into).min(MOST));
        *NUMBER
    }

    /// Starts the threads. They end with the process.
    pub fn start() -> io::Result<Self> {
        let mut lanes = Vec::new();
        for number in 0..Self::number() {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            lanes.push(Lane { handle: runtime.handle().clone(), connections: Arc::default() });
            thread::Builder::new().name(format!("lane-{number}")).spawn(move || {
                LANE.set(number);
                runtime.block_on(pending::<()>());
            })?;
        }
        Ok(Self(lanes))
    }

    /// A place on the lane with the fewest connections.
    pub fn enter(&self) -> (&Handle, OnLane) {
        let idlest = self.0.iter().min_by_key(|lane| lane.connections.load(Ordering::Relaxed));
        #[expect(clippy::expect_used, reason = "there is one at least")]
        let Lane { handle, connections } = idlest.expect("a lane");
        connections.fetch_add(1, Ordering::Relaxed);
        (handle, OnLane(connections.clone()))
    }
}

/// Number of the lane that we are on; 0 outside them.
pub fn here() -> usize {
    LANE.get()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_go_where_the_fewest_are() {
        let lanes = Lanes::start().unwrap();
        let on = |lane: &Lane| lane.connections.load(Ordering::Relaxed);
        let held: Vec<_> = (0..Lanes::number() * 3).map(|_| lanes.enter().1).collect();
        assert!(lanes.0.iter().all(|lane| on(lane) == 3));
        // All of one lane leave, and the next ones are its.
        let (left, stay): (Vec<_>, Vec<_>) =
            held.into_iter().partition(|place| Arc::ptr_eq(&place.0, &lanes.0[0].connections));
        drop(left);
        let next: Vec<_> = (0..3).map(|_| lanes.enter().1).collect();
        assert!(lanes.0.iter().all(|lane| on(lane) == 3));
        drop((stay, next));
        assert!(lanes.0.iter().all(|lane| on(lane) == 0));
    }
}

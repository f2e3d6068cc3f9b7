//! Threads for connections: one for each processor, with a runtime of its own. A connection stays on its thread, with the calls
//! that it carries and the connections that these use: no thread wakes another one for a call.

use std::cell::Cell;
use std::future::pending;
use std::io;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use tokio::runtime::{Builder, Handle};

/// More than so many are of no use where functions run beside them, and each has memory of its own.
const MOST: usize = 4;

thread_local! {
    /// Number of the lane that the thread is.
    static LANE: Cell<usize> = const { Cell::new(0) };
}

/// All lanes.
pub struct Lanes {
    handles: Vec<Handle>,
    turn: AtomicUsize,
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
        let mut handles = Vec::new();
        for number in 0..Self::number() {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            handles.push(runtime.handle().clone());
            thread::Builder::new().name(format!("lane-{number}")).spawn(move || {
                LANE.set(number);
                runtime.block_on(pending::<()>());
            })?;
        }
        Ok(Self { handles, turn: AtomicUsize::new(0) })
    }

    /// The one whose turn it is.
    pub fn next(&self) -> &Handle {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        #[expect(clippy::indexing_slicing, reason = "there is one at least")]
        &self.handles[turn % self.handles.len()]
    }
}

/// Number of the lane that we are on; 0 outside them.
pub fn here() -> usize {
    LANE.get()
}

//! Tells on standard error what is being done, and how long it took.

use std::time::{Duration, Instant};

/// A step that is under way; says how long it took when it ends.
pub struct Step {
    name: String,
    begun: Instant,
}

/// What is worth a line of its own.
const WORTH_TELLING: Duration = Duration::from_millis(500);

/// Begins a step that may take seconds.
pub fn step(name: impl Into<String>) -> Step {
    let name = name.into();
    eprintln!("bothy: {name} ...");
    Step { name, begun: Instant::now() }
}

impl Drop for Step {
    fn drop(&mut self) {
        let took = self.begun.elapsed();
        if took >= WORTH_TELLING && !std::thread::panicking() {
            eprintln!("bothy: {}: {:.1} s", self.name, took.as_secs_f64());
        }
    }
}

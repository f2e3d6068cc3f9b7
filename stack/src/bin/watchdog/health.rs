//! Whether the watchdog takes calls: the lock file that outsiders look at.

use std::cell::Cell;
use std::fs;
use std::path::Path;

use crate::output::say;

/// Made when the watchdog is ready, removed when it is told to end.
const LOCK: &str = "/tmp/.lock";

/// Whether the lock file is there (`--run-healthcheck`).
pub fn is_locked() -> bool {
    Path::new(LOCK).exists()
}

/// The state of one watchdog.
pub struct Health {
    lock: bool,
    accepting: Cell<bool>,
}

impl Health {
    /// Makes the lock file unless it is not wanted. An image without a writable `/tmp` still works; it only cannot be
    /// watched through the file.
    pub fn start(wanted: bool) -> Self {
        let made = wanted
            && match fs::write(LOCK, b"") {
                Ok(()) => true,
                Err(error) => {
                    say(format_args!("{LOCK} cannot be made, health is told without it: {error}"));
                    false
                }
            };
        Self { lock: made, accepting: Cell::new(true) }
    }

    /// Whether calls are taken. Whoever removes the lock file turns the function off.
    pub fn is_well(&self) -> bool {
        self.accepting.get() && (!self.lock || is_locked())
    }

    /// No more calls.
    pub fn stop(&self) {
        self.accepting.set(false);
        if self.lock {
            // It may be gone already: that is what is wanted.
            let _ = fs::remove_file(LOCK);
        }
    }
}

//! Whether the watchdog takes calls: the lock file that outsiders look at.

use std::cell::Cell;
use std::fs;
use std::path::PathBuf;

use crate::output::say;

/// Made when the watchdog is ready, removed when it is told to end: `/tmp/.lock`, or in the folder that `TMPDIR` names.
fn lock() -> PathBuf {
    std::env::temp_dir().join(".lock")
}

/// Whether the lock file is there (`--run-healthcheck`).
pub fn is_locked() -> bool {
    lock().exists()
}

/// The state of one watchdog.
pub struct Health {
    /// The lock file, if there is one.
    lock: Option<PathBuf>,
    accepting: Cell<bool>,
}

impl Health {
    /// Makes the lock file unless it is not wanted. An image without a writable `/tmp` still works; it only cannot be
    /// watched through the file.
    pub fn start(wanted: bool) -> Self {
        let path = wanted.then(lock);
        let made = path.filter(|path| match fs::write(path, b"") {
            Ok(()) => true,
            Err(error) => {
                say(format_args!("{} cannot be made, health is told without it: {error}", path.display()));
                false
            }
        });
        Self { lock: made, accepting: Cell::new(true) }
    }

    /// Whether calls are taken. Whoever removes the lock file turns the function off.
    pub fn is_well(&self) -> bool {
        self.accepting.get() && self.lock.as_ref().is_none_or(|lock| lock.exists())
    }

    /// No more calls.
    pub fn stop(&self) {
        self.accepting.set(false);
        if let Some(lock) = &self.lock {
            // It may be gone already: that is what is wanted.
            let _ = fs::remove_file(lock);
        }
    }
}

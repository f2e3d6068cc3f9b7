//! How far something is that takes long: a line on the terminal that is written over.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// What takes no longer says nothing.
const QUIET: Duration = Duration::from_secs(2);
/// The pause between two lines: a slow serial line must not be what is waited for.
const PAUSE: Duration = Duration::from_millis(500);

/// How far it is.
pub(super) struct Progress {
    began: Instant,
    said: Option<Instant>,
    is_shown: bool,
    on_terminal: bool,
    done: usize,
    all: usize,
}

impl Progress {
    /// Of so many things.
    pub(super) fn new(all: usize) -> Self {
        let on_terminal = std::io::stderr().is_terminal();
        Self { began: Instant::now(), said: None, is_shown: false, on_terminal, done: 0, all }
    }

    /// One more is done.
    pub(super) fn step(&mut self) {
        self.done += 1;
        let line = self.line(Instant::now()).filter(|_| self.on_terminal);
        if let Some(line) = line {
            let mut err = std::io::stderr();
            let _ = write!(err, "{line}").and_then(|()| err.flush());
            self.is_shown = true;
        }
    }

    /// Makes room for another line. (ECMA-48: EL.)
    pub(super) fn clear(&mut self) {
        if std::mem::take(&mut self.is_shown) {
            eprint!("\r\x1b[K");
        }
    }

    /// What is to be said now, if anything.
    fn line(&mut self, now: Instant) -> Option<String> {
        let due = match self.said {
            None => now.duration_since(self.began) >= QUIET,
            Some(said) => now.duration_since(said) >= PAUSE,
        };
        due.then(|| {
            self.said = Some(now);
            format!("\r{} of {}", self.done, self.all)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_long_is_said_now_and_then() {
        let mut progress = Progress::new(9);
        progress.done = 3;
        let at = |millis: u64| progress.began + Duration::from_millis(millis);
        let times = [1999, 2000, 2499, 2500].map(at);
        let said = times.map(|now| progress.line(now).is_some());
        assert_eq!(said, [false, true, false, true]);
        progress.said = None;
        assert_eq!(progress.line(times[3]).as_deref(), Some("\r3 of 9"));
    }
}

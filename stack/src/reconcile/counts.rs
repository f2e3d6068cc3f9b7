//! What is counted of one function: its calls, its restarts, the ends of its processes. It goes with the function.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::activity::Activity;
use super::exit::{Exit, Exits, Means};
use super::function::Function;
use crate::error::Error;
use crate::histogram::Histogram;

/// Status of a call that nothing answered.
const NO_ANSWER: u16 = 502;

/// Why a function was started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Its process ended by itself.
    Exit,
    /// A signal ended it.
    Signal,
    /// It, or all functions together, took too much memory.
    Oom,
    /// It ran and said that it is not well.
    Unwell,
    /// It ran and did not become ready in time.
    Unready,
    /// It could not be started at all.
    Failed,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Exit, Self::Signal, Self::Oom, Self::Unwell, Self::Unready, Self::Failed];

    /// As the label of a metric has it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Exit => "exit",
            Self::Signal => "signal",
            Self::Oom => "oom",
            Self::Unwell => "unwell",
            Self::Unready => "unready",
            Self::Failed => "failed",
        }
    }
}

impl From<Exit> for Reason {
    fn from(exit: Exit) -> Self {
        match exit.means() {
            Means::Exit => Self::Exit,
            Means::Signal => Self::Signal,
            Means::Oom => Self::Oom,
        }
    }
}

impl From<&Error> for Reason {
    fn from(error: &Error) -> Self {
        match (Exit::told_by(error), error) {
            (Some(exit), _) => exit.into(),
            (None, Error::NotReady { .. }) => Self::Unready,
            _ => Self::Failed,
        }
    }
}

/// The counts, since this process or the function began.
#[derive(Debug, Default)]
pub struct Counts {
    activity: Activity,
    running: AtomicU64,
    refused: AtomicU64,
    wish: AtomicU64,
    /// By the answer's status; a lock of the function's own, held for some additions.
    answers: Mutex<BTreeMap<u16, Histogram>>,
    restarts: [AtomicU64; Reason::ALL.len()],
    /// The ends of its processes.
    pub exits: Exits,
}

impl Counts {
    /// Calls that are here now.
    pub fn running(&self) -> u64 {
        self.running.load(Ordering::Acquire)
    }

    /// For how long there has been no call, and nothing else for which it should stay; nothing while there is one.
    pub fn idle(&self) -> Option<Duration> {
        (self.running() == 0).then(|| self.activity.quiet(Instant::now()))
    }

    /// It should stay for a while: it was made, woken or scaled.
    pub(super) fn touch(&self) {
        self.activity.mark(Instant::now());
    }

    /// Notes how many instances its load asks for.
    pub fn wish(&self, instances: u64) {
        self.wish.store(instances, Ordering::Relaxed);
    }

    /// How many instances its load asked for when that was looked at last.
    pub fn wished(&self) -> u64 {
        self.wish.load(Ordering::Relaxed)
    }

    /// Calls that no instance took.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// How long the calls took, by their answers' status.
    pub fn answers(&self) -> BTreeMap<u16, Histogram> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How often it was started again for a reason.
    pub fn restarts(&self, reason: Reason) -> u64 {
        self.restarts.get(reason as usize).map_or(0, |count| count.load(Ordering::Relaxed))
    }

    /// An instance is lost, or a start came to nothing: there is to be another.
    pub(super) fn restarted(&self, reason: impl Into<Reason>) {
        if let Some(count) = self.restarts.get(reason.into() as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A call. Dropped, it is counted under its answer's status.
pub struct Tally {
    function: Arc<Function>,
    /// When it came, or was let in.
    begun: Instant,
    status: u16,
}

impl Tally {
    /// A call comes.
    pub fn begin(function: Arc<Function>) -> Self {
        function.calls.fetch_add(1, Ordering::Relaxed);
        function.counts.running.fetch_add(1, Ordering::Relaxed);
        let begun = Instant::now();
        function.counts.activity.mark(begun);
        Self { function, begun, status: NO_ANSWER }
    }

    /// An instance takes it: what it waited until now was not the function's time.
    pub fn let_in(&mut self) {
        self.begun = Instant::now();
    }

    /// No instance takes it.
    pub fn refused(&mut self, status: u16) {
        self.function.counts.refused.fetch_add(1, Ordering::Relaxed);
        self.answered(status);
    }

    /// It has an answer, whose body may still be on its way.
    pub fn answered(&mut self, status: u16) {
        self.status = status;
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        let (counts, now) = (&self.function.counts, Instant::now());
        // Before it is no more: whoever sees no call sees when the last one ended.
        counts.activity.mark(now);
        counts.running.fetch_sub(1, Ordering::Release);
        let mut answers = counts.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.entry(self.status).or_default().observe(now.saturating_duration_since(self.begun));
    }
}

#[cfg(test)]
mod tests {
    use super::super::function::alone;
    use super::*;

    #[test]
    fn calls() {
        let (function, _mail) = alone();
        let function = Arc::new(function);
        let begin = || Tally::begin(function.clone());
        let (mut answered, mut turned_away, left) = (begin(), begin(), begin());
        answered.let_in();
        answered.answered(200);
        turned_away.refused(503);
        assert_eq!((function.counts.running(), function.counts.refused()), (3, 1));
        assert!(function.counts.answers().is_empty());
        assert_eq!(function.counts.idle(), None);
        drop((answered, turned_away, left));
        assert!(function.counts.idle().is_some_and(|idle| idle < Duration::from_secs(60)));
        assert_eq!((function.counts.running(), function.calls.load(Ordering::Relaxed)), (0, 3));
        let answers = function.counts.answers();
        assert_eq!(answers.keys().copied().collect::<Vec<_>>(), [200, 502, 503]);
        assert!(answers.values().all(|answers| answers.count == 1));
    }

    #[test]
    fn reasons() {
        let counts = Counts::default();
        for error in [
            Error::Exited { status: Some(0), killed: None },
            Error::Exited { status: Some(137), killed: None },
            Error::Exited { status: Some(137), killed: Some("killed") },
            Error::NotReady { seconds: 1, last: String::new() },
            Error::ImageMissing { reference: String::new() },
        ] {
            counts.restarted(&error);
        }
        counts.restarted(Reason::Unwell);
        counts.restarted(Reason::Exit);
        let told = Reason::ALL.map(|reason| (reason.word(), counts.restarts(reason)));
        let wanted = [("exit", 2), ("signal", 1), ("oom", 1), ("unwell", 1), ("unready", 1), ("failed", 1)];
        assert_eq!(told, wanted);
    }
}

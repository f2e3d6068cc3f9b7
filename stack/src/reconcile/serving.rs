//! The instance that serves.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::AbortHandle;

use super::endpoint::Endpoint;
use super::instance::Instance;

/// An instance that serves this long is well, whatever its function's last ones were.
const WELL: Duration = Duration::from_secs(60);

/// An instance that calls are let into.
pub struct Serving {
    /// Which.
    pub instance: Instance,
    /// Its way in.
    pub endpoint: Arc<Endpoint>,
    /// How long its process may take to end.
    pub grace: Duration,
    /// Since when.
    pub since: Instant,
    /// The tasks that wait for the end of its process, and ask whether it is well.
    pub watchers: Vec<AbortHandle>,
}

impl Serving {
    /// How long until it counts as well; nothing when it does.
    pub fn until_well(&self) -> Option<Duration> {
        Some(WELL.saturating_sub(self.since.elapsed())).filter(|left| !left.is_zero())
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.watchers.iter().for_each(AbortHandle::abort);
    }
}

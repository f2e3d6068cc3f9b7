//! When functions that nobody calls are scaled to zero.

use std::time::Duration;

/// `[stack.idler]`. The names are those of OpenFaaS's idler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Idler {
    /// How long a function is not called before it is; the function's own label goes before it.
    pub inactivity: Duration,
    /// How often it is looked.
    pub interval: Duration,
}

impl Default for Idler {
    fn default() -> Self {
        Self { inactivity: Duration::from_secs(15 * 60), interval: Duration::from_secs(30) }
    }
}

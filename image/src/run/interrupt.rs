//! Ctrl-C, once a machine runs: counted, not obeyed at once, so that the machine can be powered off in good order.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sys::signal::{SigSet, Signal};

use crate::qemu::{Error, Result};

/// How many times somebody must insist before this process ends without another word. QEMU ends with it.
const ENOUGH: u32 = 3;

/// Counts SIGINT, SIGTERM and SIGHUP.
pub(super) struct Interrupt(Arc<AtomicU32>);

impl Interrupt {
    /// From now on the three signals are counted. Threads that were started before are not reached: call it early.
    pub(super) fn take() -> Result<Self> {
        let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().collect();
        let failed = |errno: nix::Error| Error::file("take", "signals")(errno.into());
        signals.thread_block().map_err(failed)?;
        let count = Arc::new(AtomicU32::new(0));
        let theirs = Arc::clone(&count);
        std::thread::spawn(move || {
            while signals.wait().is_ok() {
                if theirs.fetch_add(1, Ordering::Relaxed) + 1 >= ENOUGH {
                    eprintln!("\nbothy: leaving at once");
                    std::process::exit(130);
                }
            }
        });
        Ok(Self(count))
    }

    /// How often so far.
    pub(super) fn count(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }

    /// Fails after the first time.
    pub(super) fn check(&self) -> Result<()> {
        if self.count() == 0 { Ok(()) } else { Err(Error::Interrupted) }
    }
}

//! Ctrl-C, once a machine runs: counted, not obeyed at once, so that the machine can be powered off in good order.

use std::sync::atomic::{AtomicU32, Ordering};

use nix::libc;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

use crate::qemu::{Error, Result};

/// How many times somebody must insist before this process ends without another word. QEMU ends with it.
const ENOUGH: u32 = 3;

/// How many signals came so far.
static COUNT: AtomicU32 = AtomicU32::new(0);

/// Counts SIGINT, SIGTERM and SIGHUP. A handler rather than a mask: threads of the build are there already.
pub(super) struct Interrupt(());

impl Interrupt {
    /// From now on the three signals are counted.
    pub(super) fn take() -> Result<Self> {
        let action = SigAction::new(SigHandler::Handler(count), SaFlags::SA_RESTART, SigSet::empty());
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            // SAFETY: the handler does nothing that signal-safety(7) forbids.
            let done = unsafe { sigaction(signal, &action) };
            done.map_err(|errno| Error::file("take", signal.as_str())(errno.into()))?;
        }
        Ok(Self(()))
    }

    /// How often so far.
    pub(super) fn count(&self) -> u32 {
        COUNT.load(Ordering::Relaxed)
    }

    /// Fails after the first time.
    pub(super) fn check(&self) -> Result<()> {
        if self.count() == 0 { Ok(()) } else { Err(Error::Interrupted) }
    }
}

extern "C" fn count(_signal: libc::c_int) {
    if COUNT.fetch_add(1, Ordering::Relaxed) + 1 >= ENOUGH {
        // SAFETY: _exit(2) may be called in a handler; exit(3) may not.
        unsafe { libc::_exit(130) };
    }
}

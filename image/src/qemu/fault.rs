//! The faults of the emulator that we know, and how to live with them.
//!
//! QEMU 7.2 (Debian 12) without hardware support sometimes executes guest code wrongly: 16-byte compare and exchange
//! in the kernel's memory allocator, and code that the kernel patches while another processor runs it. And on a host
//! that is too busy the kernel finds no timer. We start it
//! such that both are rare (no `cx16`, one thread for all processors), but not such that they never strike. A test
//! that met one says nothing about our image: it runs again, and the count is printed so that nobody forgets.

use std::fmt;

use super::{Error, Result};

/// How often something is tried when the emulator fails each time.
const ATTEMPTS: usize = 3;

/// A fault of the emulator, recognised by the oops that the guest's kernel prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// An oops in the slab allocator, whose lock-free lists use `cmpxchg16b`.
    Slab,
    /// An oops while kernel code was being patched: a stray `int3`, or a fault in `do_sync_core`.
    CodePatching,
    /// No tick of the timer in the moment in which the kernel waits for one: the host had no time for QEMU.
    Timer,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Slab => "oops in the slab allocator (cmpxchg16b)",
            Self::CodePatching => "oops while kernel code was patched (int3, do_sync_core)",
            Self::Timer => "no tick of the timer on a busy host (IO-APIC + timer doesn't work)",
        })
    }
}

/// What a console shows of the kernel's end, if anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// A known fault of the emulator.
    Emulator(Fault),
    /// The kernel gave up by itself; the line that says so.
    Panic(String),
}

/// Looks at a console's lines one by one.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    oops: Option<String>,
}

/// Functions of the slab allocator as they stand in an oops' `RIP:` line.
const SLAB: [&str; 7] =
    ["__kmalloc", "kmem_cache_alloc", "___slab_alloc", "__slab_", "__kmem_cache", "slab_alloc", "kfree"];
/// The places where a processor trips over code that another one patches.
const PATCHING: [&str; 3] = ["do_sync_core", "sched_clock_cpu", "text_poke"];

impl Watch {
    /// Looks at one more line. `emulated` says whether the guest's code is emulated at all.
    pub(crate) fn line(&mut self, line: &str, emulated: bool) -> Option<Trouble> {
        let is_oops = line.contains("Oops: ") || line.contains("BUG: unable to handle");
        if emulated && line.contains("Oops: int3") {
            return Some(Trouble::Emulator(Fault::CodePatching));
        }
        if emulated && line.contains("IO-APIC + timer doesn't work") {
            return Some(Trouble::Emulator(Fault::Timer));
        }
        if is_oops {
            self.oops = Some(line.to_owned());
        }
        if self.oops.is_some() && line.contains("RIP: 0010:") {
            self.oops = None;
            if emulated && SLAB.iter().any(|function| line.contains(function)) {
                return Some(Trouble::Emulator(Fault::Slab));
            }
            if emulated && PATCHING.iter().any(|function| line.contains(function)) {
                return Some(Trouble::Emulator(Fault::CodePatching));
            }
        }
        // Our init tells of the last run's.
        let panics =
            line.contains("Kernel panic - not syncing") && !line.trim_start().starts_with("bothy: problem: ");
        panics.then(|| Trouble::Panic(line.trim().to_owned()))
    }
}

/// Runs things again when the emulator failed, and counts.
#[derive(Debug, Default)]
pub struct Retries {
    /// The faults that were met, in order.
    pub met: Vec<Fault>,
}

impl Retries {
    /// Runs `attempt` until it ends otherwise than by a fault of the emulator, at most three times.
    ///
    /// # Errors
    /// Those of the last attempt.
    pub fn run<T>(&mut self, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
        let mut tries = 1;
        loop {
            match attempt() {
                Err(Error::Emulator(fault)) => {
                    self.met.push(fault);
                    eprintln!("emulator fault (attempt {tries} of {ATTEMPTS}): {fault}");
                    if tries == ATTEMPTS {
                        return Err(Error::Emulator(fault));
                    }
                    tries += 1;
                }
                other => return other,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trouble(console: &str, emulated: bool) -> Option<Trouble> {
        let mut watch = Watch::default();
        console.lines().find_map(|line| watch.line(line, emulated))
    }

    const SLAB_OOPS: &str = "\
[    1.8] BUG: unable to handle page fault for address: ffff9c2f00000010
[    1.8] Oops: Oops: 0002 [#1] PREEMPT SMP NOPTI
[    1.8] CPU: 1 UID: 0 PID: 61 Comm: kworker/1:1 Not tainted
[    1.8] RIP: 0010:__kmalloc_noprof+0x1a4/0x430
[    1.8] Kernel panic - not syncing: Fatal exception";

    #[test]
    fn knows_the_three_faults() {
        assert_eq!(trouble(SLAB_OOPS, true), Some(Trouble::Emulator(Fault::Slab)));
        let int3 =
            "[    1.4] Oops: int3: 0000 [#1] PREEMPT SMP NOPTI\n[ 1.4] RIP: 0010:sched_clock_cpu+0x11/0x190";
        assert_eq!(trouble(int3, true), Some(Trouble::Emulator(Fault::CodePatching)));
        let sync = "[    1.6] Oops: general protection fault\n[    1.6] RIP: 0010:do_sync_core+0x1e/0x30";
        assert_eq!(trouble(sync, true), Some(Trouble::Emulator(Fault::CodePatching)));
        let timer =
            "[    0.04] Kernel panic - not syncing: IO-APIC + timer doesn't work!  Boot with apic=debug";
        assert_eq!(trouble(timer, true), Some(Trouble::Emulator(Fault::Timer)));
    }

    #[test]
    fn blames_the_emulator_for_nothing_else() {
        assert!(matches!(trouble(SLAB_OOPS, false), Some(Trouble::Panic(_))));
        let own = SLAB_OOPS.replace("__kmalloc_noprof", "squashfs_readpage");
        assert!(
            matches!(trouble(&own, true), Some(Trouble::Panic(line)) if line.contains("Fatal exception"))
        );
        let told = "bothy: problem: the kernel crashed in the last run (Kernel panic - not syncing: Fatal exception)";
        assert_eq!(trouble(told, true), None);
        assert_eq!(trouble("RIP: 0010:__kmalloc_noprof+0x1a4 in a log that somebody printed", true), None);
        assert_eq!(trouble("[    5.0] bothy: ready: http://10.0.2.15:8080", true), None);
    }

    #[test]
    fn runs_again_and_counts() {
        let mut retries = Retries::default();
        let mut left = 2;
        let done = retries.run(|| {
            if left == 0 {
                return Ok("answer");
            }
            left -= 1;
            Err(Error::Emulator(Fault::Slab))
        });
        assert_eq!((done.unwrap(), retries.met.len()), ("answer", 2));
        let mut hopeless = Retries::default();
        assert!(hopeless.run(|| Err::<(), _>(Error::Emulator(Fault::Slab))).is_err());
        assert_eq!(hopeless.met.len(), ATTEMPTS);
    }
}

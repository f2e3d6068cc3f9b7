//! The machine's end: kill the rest, flush, unmount, reboot(2).

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Signal, kill_process};

use crate::console::{Level, alarm, kmsg, say};
use crate::watchdog::Device;
use crate::{mounts, storage};

/// Grace between SIGTERM and SIGKILL for what nobody stopped.
const GRACE: Duration = Duration::from_millis(1500);
/// A disk that does not answer must not keep the machine from ending.
const SYNC_LIMIT: Duration = Duration::from_secs(20);

/// After this the machine ends whatever still waits: a dead disk can hold an unmount for ever.
const LAST_LIMIT: Duration = Duration::from_secs(60);

/// Time between two feeds of the hardware watchdog meanwhile; the shortest time-out that it may have is 10 s.
const FEED: Duration = Duration::from_secs(3);

/// How the machine ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Power off.
    Poweroff,
    /// Start again.
    Reboot,
    /// Start again without any data: the next start erases the data partition before it makes a new one.
    Reset,
}

impl Ending {
    /// Its word on the sockets.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Poweroff => "poweroff",
            Self::Reboot => "reboot",
            Self::Reset => "reset",
        }
    }

    /// Reads its word.
    pub(crate) fn from_word(word: &str) -> Option<Self> {
        [Self::Poweroff, Self::Reboot, Self::Reset].into_iter().find(|ending| ending.word() == word)
    }
}

/// A last phase.
pub(crate) struct Phase {
    /// Name, as `bothyctl plan` prints it.
    pub name: &'static str,
    /// Whether it belongs to a reset alone.
    reset: bool,
    run: fn(&Last),
}

/// What the last phases know.
struct Last {
    ending: Ending,
    /// The device of the data partition, while that could still be seen.
    data: Option<PathBuf>,
    watchdog: Option<Arc<Device>>,
}

/// The last phases, in this order.
const PHASES: [Phase; 6] = [
    Phase { name: "kill what is left", reset: false, run: |_| kill_rest() },
    Phase { name: "sync", reset: false, run: |_| flush() },
    Phase { name: "unmount", reset: false, run: |_| unmount() },
    Phase { name: "mark data to be erased", reset: true, run: mark },
    Phase { name: "sync again", reset: false, run: |_| flush() },
    Phase { name: "reboot(2)", reset: false, run: leave },
];

/// Those of one ending.
pub(crate) fn phases(ending: Ending) -> impl Iterator<Item = Phase> {
    PHASES.into_iter().filter(move |phase| !phase.reset || ending == Ending::Reset)
}

/// The last phase of a shutdown, PID 1 only. Meanwhile the hardware watchdog is fed, as long as it may take.
pub(crate) fn finish(ending: Ending, watchdog: Option<Arc<Device>>) -> ! {
    let fed = watchdog.clone();
    let _ = std::thread::Builder::new().name("last".to_owned()).spawn(move || {
        let limit = Instant::now() + LAST_LIMIT;
        while Instant::now() < limit {
            if let Some(device) = &fed {
                device.feed();
            }
            std::thread::sleep(FEED.min(limit.saturating_duration_since(Instant::now())));
        }
        say("bothy: a disk holds the end, ending without it");
        end(ending)
    });
    let last = Last { ending, data: storage::data_device(), watchdog };
    for phase in phases(ending) {
        (phase.run)(&last);
    }
    end(ending)
}

fn unmount() {
    for target in mounts::unmount_all() {
        say(&format!("bothy: {} stayed busy", target.display()));
        kmsg(Level::Warning, &format!("{} stayed busy at the end", target.display()));
    }
}

/// One sector: whatever happens after it, the next start erases the rest.
fn mark(last: &Last) {
    let done = match &last.data {
        Some(device) => storage::mark_to_erase(device).map_err(|error| error.to_string()),
        None => Err("there is no data partition".to_owned()),
    };
    if let Err(error) = done {
        alarm(&format!("the data is not erased: {error}"));
    }
}

fn leave(last: &Last) {
    say(&format!("bothy: {}", last.ending.word()));
    if let (Ending::Poweroff, Some(device)) = (last.ending, &last.watchdog) {
        // What is off is to stay off. A restart that hangs is the watchdog's to end.
        device.disarm();
    }
    end(last.ending)
}

/// reboot(2), whatever happens.
pub(crate) fn end(ending: Ending) -> ! {
    let order = match ending {
        Ending::Poweroff => libc::RB_POWER_OFF,
        Ending::Reboot | Ending::Reset => libc::RB_AUTOBOOT,
    };
    loop {
        // SAFETY: plain call without pointers.
        unsafe { libc::reboot(order) };
        // It returned: no right to do it (not PID 1, a test), or a machine that cannot. Nothing else is left to do.
        say("bothy: the kernel refused to end, trying again");
        std::thread::sleep(Duration::from_secs(10));
    }
}

fn kill_rest() {
    signal_all(Signal::TERM);
    let end = Instant::now() + GRACE;
    while others_left() && Instant::now() < end {
        reap();
        std::thread::sleep(Duration::from_millis(10));
    }
    signal_all(Signal::KILL);
    let end = Instant::now() + GRACE;
    while others_left() && Instant::now() < end {
        reap();
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn reap() {
    // SAFETY: no status is asked for.
    while unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG | libc::__WALL) } > 0 {}
}

/// Whether a process with a program of its own lives besides this one; kernel threads have no command line.
fn others_left() -> bool {
    others().next().is_some()
}

fn others() -> impl Iterator<Item = i32> {
    let own = std::process::id() as i32;
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_string_lossy().parse::<i32>().ok());
    pids.filter(move |pid| {
        *pid != own && std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|c| !c.is_empty())
    })
}

fn signal_all(signal: Signal) {
    // kill(-1) would be shorter; by pid it also spares nobody, and a test that is not PID 1 cannot end a session.
    for pid in others() {
        if let Some(pid) = rustix::process::Pid::from_raw(pid) {
            let _ = kill_process(pid, signal);
        }
    }
}

/// sync(2) in a thread, with a limit.
fn flush() {
    let (done, wait) = std::sync::mpsc::channel();
    let thread = std::thread::Builder::new().name("sync".to_owned()).spawn(move || {
        rustix::fs::sync();
        let _ = done.send(());
    });
    match thread {
        Ok(_) if wait.recv_timeout(SYNC_LIMIT).is_err() => {
            say("bothy: a disk did not take its last data in time")
        }
        Ok(_) => {}
        Err(_) => rustix::fs::sync(),
    }
}

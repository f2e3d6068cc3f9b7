//! The machine's end: kill the rest, flush, unmount, reboot(2).

use std::time::{Duration, Instant};

use rustix::process::{Signal, kill_process};

use crate::console::{Level, kmsg, say};
use crate::mounts;

/// Grace between SIGTERM and SIGKILL for what nobody stopped.
const GRACE: Duration = Duration::from_millis(1500);
/// A disk that does not answer must not keep the machine from ending.
const SYNC_LIMIT: Duration = Duration::from_secs(20);

/// After this the machine ends whatever still waits: a dead disk can hold an unmount for ever.
const LAST_LIMIT: Duration = Duration::from_secs(60);

/// How the machine ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Power off.
    Poweroff,
    /// Start again.
    Reboot,
}

impl Ending {
    /// Its word on the sockets.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Poweroff => "poweroff",
            Self::Reboot => "reboot",
        }
    }

    /// Reads its word.
    pub(crate) fn from_word(word: &str) -> Option<Self> {
        [Self::Poweroff, Self::Reboot].into_iter().find(|ending| ending.word() == word)
    }
}

/// The last phases, by name; [`finish`] runs them in this order.
pub(crate) const PHASES: [&str; 4] = ["kill what is left", "sync", "unmount", "reboot(2)"];

/// The last phase of a shutdown, PID 1 only.
pub(crate) fn finish(ending: Ending) -> ! {
    let _ = std::thread::Builder::new().name("last".to_owned()).spawn(move || {
        std::thread::sleep(LAST_LIMIT);
        say("bothy: a disk holds the end, ending without it");
        end(ending)
    });
    kill_rest();
    flush();
    for target in mounts::unmount_all() {
        say(&format!("bothy: {} stayed busy", target.display()));
        kmsg(Level::Warning, &format!("{} stayed busy at the end", target.display()));
    }
    flush();
    say(&format!("bothy: {}", ending.word()));
    end(ending)
}

/// reboot(2), whatever happens.
pub(crate) fn end(ending: Ending) -> ! {
    let order = match ending {
        Ending::Poweroff => libc::RB_POWER_OFF,
        Ending::Reboot => libc::RB_AUTOBOOT,
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

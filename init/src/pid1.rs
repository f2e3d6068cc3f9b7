//! PID 1: mounts, cgroups, reaping, keeping a supervisor alive, the last phase of a shutdown.
//!
//! Single-threaded and synchronous. It must not end: a failed act is said and left, a panic is caught and the loop
//! starts again, and when nothing else is possible the machine restarts.

mod child;
mod keeper;
mod signals;

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::cgroup;
use crate::console::{Level, alarm, kmsg};
use crate::error::{Error, Result};
use crate::file;
use crate::mounts;
use crate::shelf;
use crate::watchdog::Watchdog;
use keeper::Keeper;

/// Early phases of PID 1, by name, in order.
pub(crate) const PHASES: [Phase; 8] = [
    Phase { name: "signals and Ctrl-Alt-Del", run: own_keys },
    Phase { name: "kernel file systems", run: kernel_file_systems },
    Phase { name: "protection from the memory killer", run: protect },
    Phase { name: "room for descriptors", run: room },
    Phase { name: "device links", run: device_links },
    Phase { name: "cgroup tree", run: cgroup::make_tree },
    Phase { name: "shared mounts", run: mounts::share_root },
    Phase { name: "/etc overlay", run: mounts::overlay_etc },
];

/// A phase: its name and what it does.
pub(crate) struct Phase {
    /// Name, as `bothyctl plan` prints it.
    pub name: &'static str,
    /// The act.
    pub run: fn() -> Result<()>,
}

/// Runs PID 1.
pub(crate) fn run() -> ! {
    let signals = catch_unwind(signals::block).unwrap_or_default();
    for phase in PHASES {
        // Half a machine that says what is wrong beats one that restarts for ever.
        match catch_unwind(phase.run) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => alarm(&format!("{}: {error}", phase.name)),
            Err(_) => alarm(&format!("{}: a fault in pid 1, going on", phase.name)),
        }
    }
    kmsg(Level::Info, "pid 1 is set up");
    let mut keeper = Keeper::new(Watchdog::configured());
    loop {
        // What is thrown away is at most one event; what PID 1 knows stays.
        let turn = catch_unwind(AssertUnwindSafe(|| keeper.turn(signals.as_ref())));
        if turn.is_err() {
            alarm("a fault in pid 1, going on");
            std::thread::sleep(Duration::from_secs(1));
        }
    }
}

/// Ctrl-Alt-Del becomes SIGINT. (The mask is set before: see [`signals::block`].)
fn own_keys() -> Result<()> {
    // SAFETY: plain call without pointers.
    if unsafe { libc::reboot(libc::RB_DISABLE_CAD) } < 0 {
        return Err(Error::control("take Ctrl-Alt-Del", "the kernel"));
    }
    Ok(())
}

fn kernel_file_systems() -> Result<()> {
    for mount in mounts::FIRST.iter().chain(&mounts::SECOND) {
        if let Err(error) = mount.mount() {
            alarm(&error.to_string());
        }
    }
    Ok(())
}

/// The supervisor inherits it; services set their own.
fn protect() -> Result<()> {
    file::poke("/proc/self/oom_score_adj", "-1000")
}

/// For what is kept on the shelf. The supervisor, which has a copy of it, inherits the limit; services set their own.
fn room() -> Result<()> {
    let hard = getrlimit(Resource::Nofile).maximum;
    let wanted = Rlimit { current: Some(shelf::LIMIT), maximum: hard.map(|hard| hard.max(shelf::LIMIT)) };
    setrlimit(Resource::Nofile, wanted).map_err(|_| Error::control("raise the number of open files", "pid 1"))
}

/// What udev would link.
fn device_links() -> Result<()> {
    const LINKS: [(&str, &str); 5] = [
        ("/dev/fd", "/proc/self/fd"),
        ("/dev/stdin", "/proc/self/fd/0"),
        ("/dev/stdout", "/proc/self/fd/1"),
        ("/dev/stderr", "/proc/self/fd/2"),
        ("/dev/log", "/run/systemd/journal/dev-log"),
    ];
    for (link, target) in LINKS {
        match std::os::unix::fs::symlink(target, link) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(Error::write(link)(error));
            }
            _ => {}
        }
    }
    Ok(())
}

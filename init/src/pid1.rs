//! PID 1: mounts, cgroups, reaping, keeping a supervisor alive, the last phase of a shutdown.
//!
//! Single-threaded and synchronous. It must not end: a failed act is said and left, a panic is caught and the loop
//! starts again, and when nothing else is possible the machine restarts.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::cgroup;
use crate::console::{Level, alarm, kmsg};
use crate::error::{Error, Result};
use crate::file;
use crate::link::{self, Report, ToPid1, ToSupervisor};
use crate::mounts;
use crate::power::{self, Ending};
use crate::process::{Exit, Identity};

/// How long a shutdown may take before PID 1 ends it.
const STOP_LIMIT: Duration = Duration::from_secs(25);
/// How long a supervisor has to begin a shutdown that was asked for.
const REQUEST_LIMIT: Duration = Duration::from_secs(10);
/// Longest pause before the next start of a supervisor that keeps dying.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A supervisor that lived this long starts again at once.
const STABLE: Duration = Duration::from_secs(60);
/// Reports kept for the supervisor. A machine that makes more orphans than this while none runs has lost track anyway.
const REPORTS: usize = 512;

/// Signals that PID 1 reads; all others are not for it.
const SIGNALS: [i32; 7] =
    [libc::SIGCHLD, libc::SIGTERM, libc::SIGINT, libc::SIGUSR1, libc::SIGUSR2, libc::SIGPWR, libc::SIGHUP];

/// Early phases of PID 1, by name, in order.
pub(crate) const PHASES: [Phase; 7] = [
    Phase { name: "signals and Ctrl-Alt-Del", run: own_keys },
    Phase { name: "kernel file systems", run: kernel_file_systems },
    Phase { name: "protection from the memory killer", run: protect },
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
    let signals = catch_unwind(block_signals).unwrap_or_default();
    for phase in PHASES {
        // Half a machine that says what is wrong beats one that restarts for ever.
        match catch_unwind(phase.run) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => alarm(&format!("{}: {error}", phase.name)),
            Err(_) => alarm(&format!("{}: a fault in pid 1, going on", phase.name)),
        }
    }
    kmsg(Level::Info, "pid 1 is set up");
    let mut keeper = Keeper::default();
    loop {
        // What is thrown away is at most one event; what PID 1 knows stays.
        let turn = catch_unwind(AssertUnwindSafe(|| keeper.turn(signals.as_ref())));
        if turn.is_err() {
            alarm("a fault in pid 1, going on");
            std::thread::sleep(Duration::from_secs(1));
        }
    }
}

/// Ctrl-Alt-Del becomes SIGINT. (The mask is set before: see [`block_signals`].)
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

/// Blocks [`SIGNALS`] and makes them readable. Done before anything starts: a signal without a handler is lost here.
fn block_signals() -> Option<OwnedFd> {
    // SAFETY: an empty set is filled by the C library; the descriptor is fresh.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in SIGNALS {
            libc::sigaddset(&raw mut set, signal);
        }
        libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
        let raw = libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
        (raw >= 0).then(|| OwnedFd::from_raw_fd(raw))
    }
}

/// A running supervisor.
struct Supervisor {
    pid: i32,
    socket: OwnedFd,
    since: Instant,
}

/// What PID 1 remembers.
#[derive(Default)]
struct Keeper {
    supervisor: Option<Supervisor>,
    /// When the next one may start, and how often in a row it died young.
    start_at: Option<Instant>,
    deaths: u32,
    reports: VecDeque<Report>,
    seq: u64,
    /// A shutdown under way or asked for, and when PID 1 stops waiting.
    ending: Option<(Ending, Instant)>,
    /// Whether the supervisor has begun it.
    begun: bool,
}

impl Keeper {
    /// Waits for one thing to happen and deals with it.
    fn turn(&mut self, signals: Option<&OwnedFd>) {
        if let Some((ending, end)) = self.ending
            && Instant::now() >= end
        {
            alarm("the shutdown took too long, ending it");
            power::finish(ending);
        }
        if self.supervisor.is_none() {
            if let (Some((ending, _)), true) = (self.ending, self.begun) {
                // It died while stopping things: what is left is PID 1's to kill.
                power::finish(ending);
            }
            if self.start_at.is_none_or(|at| Instant::now() >= at) {
                self.start();
            }
        }
        self.wait(signals);
        while let Some(signal) = signals.and_then(next_signal) {
            self.signal(signal);
        }
        self.packets();
        // Always: a SIGCHLD may stand for many, or have come before the mask.
        self.reap();
    }

    fn wait(&self, signals: Option<&OwnedFd>) {
        let mut fds = Vec::new();
        fds.extend(signals.map(|fd| PollFd::new(fd, PollFlags::IN)));
        fds.extend(self.supervisor.as_ref().map(|s| PollFd::new(&s.socket, PollFlags::IN)));
        let mut limit = Duration::from_secs(3600);
        let deadlines =
            [self.start_at.filter(|_| self.supervisor.is_none()), self.ending.map(|(_, end)| end)];
        for deadline in deadlines.into_iter().flatten() {
            limit = limit.min(deadline.saturating_duration_since(Instant::now()));
        }
        if signals.is_none() {
            limit = limit.min(Duration::from_secs(1));
        }
        let limit = Timespec { tv_sec: limit.as_secs() as i64, tv_nsec: limit.subsec_nanos().into() };
        let _ = poll(&mut fds, Some(&limit));
    }

    fn signal(&mut self, signal: i32) {
        match signal {
            libc::SIGTERM | libc::SIGINT => self.request(Ending::Reboot),
            libc::SIGUSR1 | libc::SIGUSR2 | libc::SIGPWR => self.request(Ending::Poweroff),
            _ => {}
        }
    }

    /// Passes on a wish for the end. Without a supervisor that acts on it, PID 1 does it alone after a while.
    fn request(&mut self, ending: Ending) {
        if self.begun {
            return;
        }
        let told = self.tell(ToSupervisor::Request(ending));
        let limit = if told { REQUEST_LIMIT } else { Duration::ZERO };
        self.ending = Some((ending, Instant::now() + limit));
    }

    fn tell(&self, packet: ToSupervisor) -> bool {
        self.supervisor.as_ref().is_some_and(|s| link::post(&s.socket, &packet.encode()).is_ok())
    }

    fn packets(&mut self) {
        while let Some(supervisor) = &self.supervisor {
            let Ok(Some(packet)) = link::take(&supervisor.socket) else { return };
            match ToPid1::decode(&packet) {
                Some(ToPid1::Stopping(ending)) => {
                    self.ending = Some((ending, Instant::now() + STOP_LIMIT));
                    self.begun = true;
                }
                Some(ToPid1::End(ending)) => power::finish(ending),
                Some(ToPid1::Ack(seq)) => self.reports.retain(|report| report.seq > seq),
                None => kmsg(Level::Warning, &format!("a packet that pid 1 does not know: {packet}")),
            }
        }
    }

    fn start(&mut self) {
        match spawn_supervisor() {
            Ok(supervisor) => {
                for report in &self.reports {
                    let _ = link::post(&supervisor.socket, &ToSupervisor::Reaped(*report).encode());
                }
                self.supervisor = Some(supervisor);
            }
            Err(error) => {
                alarm(&error.to_string());
                self.died_young();
            }
        }
    }

    fn died_young(&mut self) {
        let pause = Duration::from_millis(250) * 2_u32.saturating_pow(self.deaths.min(10));
        self.deaths = self.deaths.saturating_add(1);
        self.start_at = Some(Instant::now() + pause.min(LONGEST_PAUSE));
    }

    /// Reaps all that ended. The look before the wait tells the start time, which is gone after it.
    fn reap(&mut self) {
        while let Some(pid) = next_dead() {
            let who = Identity::of(pid);
            let mut status = 0;
            // SAFETY: the status is a live integer; the child is dead, so this returns.
            if unsafe { libc::waitpid(pid, &raw mut status, libc::__WALL) } != pid {
                return;
            }
            if self.supervisor.as_ref().is_some_and(|supervisor| supervisor.pid == pid) {
                self.supervisor_died(status);
            } else if let Some(who) = who {
                self.seq += 1;
                let report = Report { seq: self.seq, who, status };
                self.tell(ToSupervisor::Reaped(report));
                if self.reports.len() == REPORTS {
                    self.reports.pop_front();
                }
                self.reports.push_back(report);
            }
        }
    }

    fn supervisor_died(&mut self, status: i32) {
        let lived = self.supervisor.take().map_or(Duration::ZERO, |supervisor| supervisor.since.elapsed());
        alarm(&format!("the supervisor ended with {}", Exit::from_status(status)));
        if lived >= STABLE {
            self.deaths = 0;
            self.start_at = None;
        } else {
            self.died_young();
        }
    }
}

/// A child that ended and was not waited for.
fn next_dead() -> Option<i32> {
    // SAFETY: all zeroes is a valid siginfo, which the call fills; si_pid is 0 if there is none.
    unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT | libc::__WALL;
        let done = libc::waitid(libc::P_ALL, 0, &raw mut info, options);
        (done == 0 && info.si_pid() != 0).then(|| info.si_pid())
    }
}

fn next_signal(fd: &OwnedFd) -> Option<i32> {
    // SAFETY: all zeroes is a valid record, and read fills no more than its size.
    unsafe {
        let mut info: libc::signalfd_siginfo = std::mem::zeroed();
        let size = size_of_val(&info);
        let got = libc::read(fd.as_raw_fd(), (&raw mut info).cast(), size);
        (got == size as isize).then_some(info.ssi_signo as i32)
    }
}

fn spawn_supervisor() -> Result<Supervisor> {
    let (mine, theirs) = link::pair()?;
    let mut command = Command::new("/proc/self/exe");
    command.arg0("init").arg("supervise").env_clear().env("PATH", "/usr/sbin:/usr/bin");
    command.env(link::VARIABLE, link::FD.to_string());
    let raw = theirs.as_raw_fd();
    // SAFETY: only async-signal-safe calls; the descriptor is open until the spawn is done.
    unsafe {
        command.pre_exec(move || {
            let mut none: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut none);
            libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
            // dup2 onto itself would keep close-on-exec.
            let done =
                if raw == link::FD { libc::fcntl(raw, libc::F_SETFD, 0) } else { libc::dup2(raw, link::FD) };
            if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
        });
    }
    let child =
        command.spawn().map_err(|source| Error::Start { program: "init supervise".to_owned(), source })?;
    Ok(Supervisor { pid: child.id() as i32, socket: mine, since: Instant::now() })
}

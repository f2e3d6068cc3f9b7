//! Processes that have ended: ours, whose callers want to know, and orphans, which are ours to bury.
//!
//! The watchdog is a container's first process, and a function's program may leave children behind. Nobody but it can
//! take them off the kernel's list. Not tokio's processes: they take the status of a process as soon as it ends, and
//! from then on its number, which is its group's too, may be somebody else's.

use std::cell::RefCell;
use std::collections::HashMap;
use std::mem::MaybeUninit;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus};
use std::rc::Rc;

use nix::sys::prctl::set_child_subreaper;
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;
use rustix::fs::{Mode, OFlags, RawDir};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::task;

/// Who hears of the end of our programs.
#[derive(Default)]
pub struct Reaper {
    ours: RefCell<HashMap<i32, watch::Sender<Option<ExitStatus>>>>,
    /// How many run that programs have left behind.
    orphans: watch::Sender<usize>,
}

/// A program in a process group of its own; what is left of the group ends when this is dropped.
pub struct Program {
    group: Pid,
    ended: watch::Receiver<Option<ExitStatus>>,
    reaper: Rc<Reaper>,
}

impl Reaper {
    /// Begins to listen for ends; has to be called in a `LocalSet`, before anything is started.
    pub fn start() -> Result<Rc<Self>, String> {
        // For a watchdog that was started by another program than the container runtime: orphans come to it all the
        // same. Where the kernel refuses they go to somebody else, as everywhere.
        let _ = set_child_subreaper(true);
        let mut ends = signal(SignalKind::child()).map_err(|e| format!("signals: {e}"))?;
        let reaper = Rc::new(Self::default());
        let copy = Rc::downgrade(&reaper);
        task::spawn(async move {
            while ends.recv().await.is_some() {
                let Some(reaper) = copy.upgrade() else { return };
                reaper.look();
            }
        });
        Ok(reaper)
    }

    /// Starts a program. The child that is given too only lends its pipes.
    pub fn spawn(self: &Rc<Self>, command: &mut Command) -> std::io::Result<(Program, Child)> {
        let child = command.process_group(0).spawn()?;
        let (tell, ended) = watch::channel(None);
        // The kernel's numbers fit: pid_t is an int.
        let group = Pid::from_raw(child.id() as i32);
        self.ours.borrow_mut().insert(group.as_raw(), tell);
        Ok((Program { group, ended, reaper: self.clone() }, child))
    }

    /// Tells of our programs that have ended, without taking them off the list yet, and takes off everybody else. One
    /// signal may stand for many ends.
    fn look(&self) {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        for (pid, tell) in self.ours.borrow().iter() {
            let status = match waitid(Id::Pid(Pid::from_raw(*pid)), flags) {
                Ok(WaitStatus::Exited(_, code)) => ExitStatus::from_raw(code << 8),
                Ok(WaitStatus::Signaled(_, signal, _)) => ExitStatus::from_raw(signal as i32),
                _ => continue,
            };
            tell.send_replace(Some(status));
        }
        let mut orphans = 0;
        processes(|pid| {
            if !self.ours.borrow().contains_key(&pid) {
                // Of somebody else's child it says so and does nothing.
                let alive =
                    waitpid(Pid::from_raw(pid), Some(WaitPidFlag::WNOHANG)) == Ok(WaitStatus::StillAlive);
                orphans += usize::from(alive);
            }
        });
        self.orphans.send_replace(orphans);
    }
}

/// Every process that can be seen. Not with the library's own list of a folder, which takes 32 KiB for its names, for
/// each call: here there are few.
fn processes(mut each: impl FnMut(i32)) {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(folder) = rustix::fs::open("/proc", flags, Mode::empty()) else { return };
    let mut names = [MaybeUninit::uninit(); 2 << 10];
    let mut entries = RawDir::new(folder, &mut names);
    while let Some(Ok(entry)) = entries.next() {
        if let Some(pid) = entry.file_name().to_str().ok().and_then(|name| name.parse().ok()) {
            each(pid);
        }
    }
}

impl Program {
    /// Waits for its end.
    pub async fn wait(&mut self) -> ExitStatus {
        match self.ended.wait_for(Option::is_some).await {
            Ok(status) => status.unwrap_or_default(),
            // The sender lives as long as this does.
            Err(_) => ExitStatus::default(),
        }
    }

    /// How many run that it has left behind; after its end.
    pub fn orphans(&self) -> watch::Receiver<usize> {
        self.reaper.orphans.subscribe()
    }

    /// Sends a signal to it and to what it has started.
    pub fn signal(&self, signal: Signal) {
        // A group without processes is as good as told.
        let _ = killpg(self.group, signal);
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Its leader is still on the kernel's list, so the number is surely ours, even if it has ended.
        self.signal(Signal::SIGKILL);
        self.reaper.ours.borrow_mut().remove(&self.group.as_raw());
        // One that has ended before gives no signal any more; one that ends now does.
        let _ = waitpid(self.group, Some(WaitPidFlag::WNOHANG));
    }
}

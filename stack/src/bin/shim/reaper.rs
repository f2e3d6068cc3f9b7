//! The ends of processes: those of the OCI runtime, the function's own, and orphans, which come to us as the nearest
//! subreaper.

use std::collections::HashMap;
use std::io;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use nix::libc;
use nix::sys::prctl::set_child_subreaper;
use nix::unistd::Pid;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// How and when a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// Its exit code; for a signal 128 and the signal's number.
    pub status: u32,
    /// When we heard of it.
    pub at: SystemTime,
}

/// Hears of the end of a process.
pub type Ended = watch::Receiver<Option<End>>;

#[derive(Default)]
struct Known {
    /// Processes that somebody waits for.
    awaited: HashMap<i32, watch::Sender<Option<End>>>,
    /// Those that ended before anybody asked: the function's process is the runtime's child until that one ends.
    unclaimed: HashMap<i32, End>,
}

/// Who hears of the ends of our children.
#[derive(Clone, Default)]
pub struct Reaper {
    known: Arc<Mutex<Known>>,
}

impl Reaper {
    /// Begins to listen; has to be called in a runtime, before anything is started.
    pub fn start() -> io::Result<Self> {
        set_child_subreaper(true)?;
        let mut ends = signal(SignalKind::child())?;
        let reaper = Self::default();
        let own = reaper.clone();
        tokio::spawn(async move {
            while ends.recv().await.is_some() {
                own.look();
            }
        });
        Ok(reaper)
    }

    /// Waits for a process to end, one that ended already too.
    pub fn expect(&self, pid: Pid) -> Ended {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let (tell, ended) = watch::channel(known.unclaimed.remove(&pid.as_raw()));
        // What is not claimed by now belongs to the runtime's helpers, and its number may be somebody else's soon.
        known.unclaimed.clear();
        if ended.borrow().is_none() {
            known.awaited.insert(pid.as_raw(), tell);
        }
        ended
    }

    /// Starts a program. The child given back only lends its pipes: its end is the reaper's to tell.
    pub fn spawn(&self, command: &mut Command) -> io::Result<(Child, Ended)> {
        let child = command.spawn()?;
        // Nothing was reaped since, for one thread runs. Whoever had that number before is somebody else.
        self.known.lock().unwrap_or_else(PoisonError::into_inner).unclaimed.clear();
        let ended = self.expect(Pid::from_raw(child.id().cast_signed()));
        Ok((child, ended))
    }

    fn look(&self) {
        loop {
            let mut status = 0;
            // SAFETY: a system call, which writes to `status` alone. nix's own fails at signals that it cannot name, and
            // the end would be lost.
            let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
            if pid <= 0 {
                return;
            }
            let status = match libc::WIFSIGNALED(status) {
                true => 128 + libc::WTERMSIG(status),
                false => libc::WEXITSTATUS(status),
            };
            let end = End { status: status.cast_unsigned(), at: SystemTime::now() };
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            match known.awaited.remove(&pid) {
                Some(tell) => drop(tell.send(Some(end))),
                None => drop(known.unclaimed.insert(pid, end)),
            }
        }
    }
}

/// Waits for the end itself.
pub async fn end(ended: &mut Ended) -> End {
    drop(ended.wait_for(Option::is_some).await.map(drop));
    ended.borrow().unwrap_or_else(lost)
}

/// For an end that nobody told: the reaper is gone, and so are we soon.
fn lost() -> End {
    End { status: 255, at: SystemTime::now() }
}

#[cfg(test)]
mod tests {
    use super::*;

    // One test: waiting for any child meets the children of every other one.
    #[tokio::test(flavor = "current_thread")]
    async fn ends_are_told_early_and_late() {
        let reaper = Reaper::start().unwrap();
        let (_, mut code) = reaper.spawn(Command::new("sh").args(["-c", "exit 7"])).unwrap();
        assert_eq!(end(&mut code).await.status, 7);
        let (_, mut killed) = reaper.spawn(Command::new("sh").args(["-c", "kill -9 $$"])).unwrap();
        assert_eq!(end(&mut killed).await.status, 137);
        // An orphan that ends before its number is known, as a function does that fails at once. Not before its parent
        // has: a shell reaps the children that end while it lives.
        let mut command = Command::new("sh");
        let orphan = "while kill -0 $0; do :; done; exit 3";
        command.args(["-c", &format!("sh -c '{orphan}' $$ >/dev/null 2>&1 & echo $!")]);
        let (child, mut parent) = reaper.spawn(command.stdout(std::process::Stdio::piped())).unwrap();
        let mut text = String::new();
        std::io::Read::read_to_string(&mut child.stdout.unwrap(), &mut text).unwrap();
        let orphan = Pid::from_raw(text.trim().parse().unwrap());
        assert_eq!(end(&mut parent).await.status, 0);
        while nix::sys::signal::kill(orphan, None).is_ok() {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        let mut ended = reaper.expect(orphan);
        assert_eq!(end(&mut ended).await.status, 3);
    }
}

//! Watching a process by pidfd: our own child, or one that an earlier supervisor started.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid,
};
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;

use crate::descriptor::readable;
use crate::process::{Exit, Identity};

/// How long PID 1's report of an adopted process may take.
const REPORT_LIMIT: Duration = Duration::from_secs(2);

/// Ends of processes that were not our children, as PID 1 reported them.
#[derive(Debug, Default, Clone)]
pub(crate) struct Reaped(Rc<Reports>);

#[derive(Debug, Default)]
struct Reports {
    by_pid: RefCell<HashMap<i32, (Identity, i32)>>,
    news: Notify,
}

impl Reaped {
    /// Takes a report. Kept by pid: the kernel's own numbering bounds the table.
    pub(crate) fn report(&self, who: Identity, status: i32) {
        self.0.by_pid.borrow_mut().insert(who.pid, (who, status));
        self.0.news.notify_waiters();
    }

    async fn of(&self, who: Identity) -> Exit {
        let look = || {
            let mut table = self.0.by_pid.borrow_mut();
            table.remove(&who.pid).filter(|(reported, _)| *reported == who).map(|(_, status)| status)
        };
        let wait = async {
            loop {
                let told = self.0.news.notified();
                if let Some(status) = look() {
                    return Exit::from_status(status);
                }
                told.await;
            }
        };
        tokio::time::timeout(REPORT_LIMIT, wait).await.unwrap_or(Exit::Unknown)
    }
}

/// A process under watch.
#[derive(Debug)]
pub(crate) struct Watched {
    /// Who it is.
    pub who: Identity,
    pidfd: AsyncFd<OwnedFd>,
    reaped: Reaped,
}

impl Watched {
    /// Watches a process. That it is another one than meant, under the same pid, is an error.
    pub(crate) fn new(who: Identity, reaped: &Reaped) -> io::Result<Self> {
        let gone = || io::Error::from_raw_os_error(libc::ESRCH);
        let pid = Pid::from_raw(who.pid).ok_or_else(gone)?;
        let pidfd = pidfd_open(pid, PidfdFlags::NONBLOCK)?;
        // Looked at after opening: from here on the descriptor and the identity are the same process.
        if !who.is_alive() {
            return Err(gone());
        }
        Ok(Self { who, pidfd: readable(pidfd)?, reaped: reaped.clone() })
    }

    /// Sends a signal. One to a process that is gone is lost.
    pub(crate) fn signal(&self, signal: Signal) {
        let _ = pidfd_send_signal(self.pidfd.get_ref(), signal);
    }

    /// Kills a child of ours and takes its status, so that it is no zombie. A disk that holds it is not waited for.
    pub(super) fn put_down(&self) {
        const TRIES: u32 = 50;
        self.signal(Signal::KILL);
        for _ in 0..TRIES {
            match waitid(
                WaitId::PidFd(self.pidfd.get_ref().as_fd()),
                WaitIdOptions::EXITED | WaitIdOptions::NOHANG,
            ) {
                Ok(None) => std::thread::sleep(Duration::from_millis(1)),
                _ => return,
            }
        }
    }

    /// Waits for its end.
    pub(crate) async fn wait(&self) -> Exit {
        while self.pidfd.readable().await.is_err() {
            // The runtime is ending; so is everything else.
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        match waitid(WaitId::PidFd(self.pidfd.get_ref().as_fd()), WaitIdOptions::EXITED) {
            Ok(Some(status)) => match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => Exit::Code(code),
                (_, Some(signal)) => Exit::Signal(signal),
                _ => Exit::Unknown,
            },
            // Not our child: PID 1 takes it.
            _ => self.reaped.of(self.who).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn sees_a_childs_code_and_signal() {
        let reaped = Reaped::default();
        // Waited for by the watch, which is what is tested.
        #[expect(clippy::zombie_processes)]
        let spawn = |script: &str| {
            let child = Command::new("/bin/sh").args(["-c", script]).spawn().unwrap();
            Watched::new(Identity::of(child.id() as i32).unwrap(), &reaped).unwrap()
        };
        assert_eq!(spawn("sleep 0.05; exit 3").wait().await, Exit::Code(3));
        let sleeper = spawn("exec sleep 60");
        sleeper.signal(Signal::KILL);
        assert_eq!(sleeper.wait().await, Exit::Signal(9));
    }

    #[tokio::test(flavor = "current_thread")]
    async fn refuses_another_process_under_the_same_pid() {
        let me = Identity::of(std::process::id() as i32).unwrap();
        assert!(Watched::new(Identity { started: me.started + 1, ..me }, &Reaped::default()).is_err());
    }

    #[tokio::test(flavor = "current_thread")]
    async fn takes_the_status_from_pid_1s_report() {
        let reaped = Reaped::default();
        let who = Identity { pid: 7, started: 70 };
        reaped.report(who, 256);
        assert_eq!(reaped.of(who).await, Exit::Code(1));
        reaped.report(Identity { started: 71, ..who }, 256);
        assert_eq!(reaped.of(who).await, Exit::Unknown);
    }
}

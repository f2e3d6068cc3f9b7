//! PID 1's own child, the supervisor, and the children that others left.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Instant;

use crate::error::{Error, Result};
use crate::link;

/// A running supervisor.
pub(super) struct Supervisor {
    /// Its number.
    pub pid: i32,
    /// Our end of the socket.
    pub socket: OwnedFd,
    /// When it was started.
    pub since: Instant,
}

/// Starts one.
pub(super) fn spawn_supervisor() -> Result<Supervisor> {
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

/// A child that ended and was not waited for.
pub(super) fn next_dead() -> Option<i32> {
    // SAFETY: all zeroes is a valid siginfo, which the call fills; si_pid is 0 if there is none.
    unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT | libc::__WALL;
        let done = libc::waitid(libc::P_ALL, 0, &raw mut info, options);
        (done == 0 && info.si_pid() != 0).then(|| info.si_pid())
    }
}

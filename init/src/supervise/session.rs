//! A login at the console: a process of its own, started when somebody types, with the console as its terminal.
//!
//! It outlives a supervisor that dies. The next one waits until the session has ended before it reads the console.

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::bothyctl::terminal;
use crate::bothyctl::{LOGIN_REFUSED, LOGIN_VARIABLE};
use crate::cgroup::Group;
use crate::error::{Error, Result};
use crate::file;
use crate::process::{Exit, Identity};
use crate::service::{Reaped, Watched};

/// Its group.
const GROUP: &str = "system/console";
/// Who it is, for the next supervisor.
const RECORD: &str = "/run/bothy/console.json";

/// How a session ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Somebody was in, or changed his mind.
    Ended,
    /// Wrong user or password.
    Refused,
    /// There was none.
    Failed(String),
}

/// Runs a session for a user, until it ends.
pub(super) async fn run(user: &str) -> Outcome {
    let watched = spawn(user).map_err(|error| error.to_string()).and_then(|who| {
        let record = serde_json::to_vec(&who).unwrap_or_default();
        if let Err(error) = file::replace(RECORD, &record, 0o600) {
            tracing::warn!("{error}");
        }
        Watched::new(who, &Reaped::default()).map_err(|error| format!("watch process {}: {error}", who.pid))
    });
    let outcome = match watched {
        Ok(process) => outcome(process.wait().await),
        // Ended before it could be watched: the same as any end.
        Err(why) => Outcome::Failed(why),
    };
    ended();
    outcome
}

fn outcome(exit: Exit) -> Outcome {
    match exit {
        Exit::Code(code) if code == i32::from(LOGIN_REFUSED) => Outcome::Refused,
        _ => Outcome::Ended,
    }
}

/// Waits for the session of an earlier supervisor.
pub(super) async fn outlive_earlier() {
    let record = file::read(RECORD).ok().and_then(|text| serde_json::from_str::<Identity>(&text).ok());
    let Some(who) = record else { return };
    if let Ok(process) = Watched::new(who, &Reaped::default()) {
        process.wait().await;
    }
    ended();
}

fn ended() {
    let _ = std::fs::remove_file(RECORD);
    // A program that was killed leaves the terminal as it had it.
    if let Ok(terminal) = open(&device()) {
        terminal::make_sane(&terminal);
    }
}

/// The terminal behind /dev/console, which itself can be nobody's controlling terminal: the last one that the kernel
/// names (Documentation/ABI/testing/sysfs-tty).
fn device() -> PathBuf {
    let active = std::fs::read_to_string("/sys/class/tty/console/active").unwrap_or_default();
    Path::new("/dev").join(active.split_whitespace().last().unwrap_or("console"))
}

/// Opens it without waiting for a modem's carrier; reads wait then as usual.
fn open(path: &Path) -> Result<File> {
    let flags = libc::O_NOCTTY | libc::O_NONBLOCK;
    let open = OpenOptions::new().read(true).write(true).custom_flags(flags).open(path);
    let terminal = open.map_err(Error::read(path))?;
    // SAFETY: plain call on a descriptor that is ours.
    if unsafe { libc::fcntl(terminal.as_raw_fd(), libc::F_SETFL, libc::O_RDWR) } < 0 {
        return Err(Error::control("make reads wait", path.display().to_string()));
    }
    Ok(terminal)
}

fn spawn(user: &str) -> Result<Identity> {
    let terminal = open(&device())?;
    let failed = |source| Error::Start { program: "bothyctl console".to_owned(), source };
    let mut command = Command::new("/proc/self/exe");
    command.arg0("bothyctl").arg("console").env_clear();
    // Not an argument: somebody types his password here some day, and arguments are everybody's to read.
    command.env(LOGIN_VARIABLE, user).env("PATH", "/usr/sbin:/usr/bin").env("TERM", "linux").current_dir("/");
    let copy = || terminal.try_clone().map(|file| Stdio::from(OwnedFd::from(file))).map_err(failed);
    command.stdin(copy()?).stdout(copy()?).stderr(copy()?);
    let group = Group::at(GROUP);
    // Better in the supervisor's group than no way in.
    let joiner = group.make().and_then(|()| group.joiner()).ok();
    let setup = Setup {
        join: joiner.as_ref().map(AsRawFd::as_raw_fd),
        // Unlike the supervisor it may be taken by the memory killer.
        oom: CString::new("0").unwrap_or_default(),
    };
    // SAFETY: `Setup::apply` makes system calls only, and allocates nothing.
    unsafe { command.pre_exec(move || setup.apply()) };
    let child = command.spawn().map_err(failed)?;
    // Dropping a Child neither waits nor kills; the pidfd watch takes over.
    Identity::of(child.id() as i32).ok_or_else(|| failed(io::Error::from_raw_os_error(libc::ESRCH)))
}

/// What the new process does between fork and exec.
struct Setup {
    join: Option<RawFd>,
    oom: CString,
}

impl Setup {
    fn apply(&self) -> io::Result<()> {
        let check = |done: i32| if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) };
        // SAFETY: all pointers are to live memory of the right size.
        unsafe {
            if let Some(fd) = self.join {
                libc::write(fd, c"0".as_ptr().cast(), 1);
            }
            let mut none: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut none);
            check(libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut()))?;
            libc::umask(0o022);
            check(libc::setsid())?;
            // 1: take it even from a session that was left behind.
            check(libc::ioctl(0, libc::TIOCSCTTY, 1))?;
            let fd = libc::open(c"/proc/self/oom_score_adj".as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
            if fd >= 0 {
                libc::write(fd, self.oom.as_ptr().cast(), self.oom.count_bytes());
                libc::close(fd);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_refusal_counts_as_one() {
        assert_eq!(outcome(Exit::Code(i32::from(LOGIN_REFUSED))), Outcome::Refused);
        for exit in [Exit::Code(0), Exit::Code(1), Exit::Signal(9), Exit::Unknown] {
            assert_eq!(outcome(exit), Outcome::Ended);
        }
    }

    #[test]
    fn the_console_has_a_terminal_behind_it() {
        let device = device();
        assert!(device.starts_with("/dev") && device.file_name().is_some(), "{device:?}");
    }
}

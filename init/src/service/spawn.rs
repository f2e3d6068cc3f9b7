//! Starting a service's process: straight into its group, with a clean signal mask, its limits and its user.

use std::ffi::CString;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use super::Declaration;
use super::declaration::Rights;
use super::journal;
use crate::cgroup::Group;
use crate::error::{Error, Result};
use crate::process::Identity;

/// Argument with which this program takes sockets and becomes another one.
pub(crate) const EXEC_WITH_SOCKETS: &str = "exec-with-sockets";
/// The sockets' numbers, separated by commas.
const SOCKETS_VARIABLE: &str = "BOTHY_SOCKETS";
/// First descriptor of sd_listen_fds(3).
const LISTEN_FDS_START: RawFd = 3;

/// Starts the process. `sockets` are journald's, for the service that wants them.
pub(crate) fn spawn(
    declaration: &Declaration,
    group: Option<&Group>,
    notify: Option<&Path>,
    sockets: &[RawFd],
    journal_folder: &Path,
) -> Result<Identity> {
    let program = declaration.command.first().copied().unwrap_or_default();
    let failed = |source| Error::Start { program: program.to_owned(), source };
    let mut command = if sockets.is_empty() {
        Command::new(program)
    } else {
        let mut command = Command::new("/proc/self/exe");
        command.arg0("init").arg(EXEC_WITH_SOCKETS).arg(program);
        let numbers: Vec<_> = sockets.iter().map(ToString::to_string).collect();
        command.env(SOCKETS_VARIABLE, numbers.join(","));
        command
    };
    let keep: Vec<_> = command.get_envs().map(|(k, v)| (k.to_owned(), v.map(ToOwned::to_owned))).collect();
    command.env_clear().envs(keep.into_iter().filter_map(|(k, v)| Some((k, v?))));
    command.args(declaration.command.get(1..).unwrap_or_default());
    command.env("PATH", "/usr/sbin:/usr/bin").envs(declaration.environment.iter().copied());
    if let Some(path) = notify {
        command.env("NOTIFY_SOCKET", path);
    }
    let (out, error) = outputs(declaration, journal_folder).map_err(failed)?;
    command.stdin(Stdio::null()).stdout(out).stderr(error).current_dir("/");
    let join = group.map(Group::joiner).transpose()?;
    let setup = Setup {
        join: join.as_ref().map(AsRawFd::as_raw_fd),
        sockets: sockets.to_vec(),
        oom: CString::new(declaration.oom_score.to_string()).unwrap_or_default(),
        files: libc::rlimit { rlim_cur: declaration.files.0, rlim_max: declaration.files.1 },
        user: declaration.user,
        rights: declaration.rights,
    };
    // SAFETY: `Setup::apply` makes system calls only, and allocates nothing.
    unsafe { command.pre_exec(move || setup.apply()) };
    let child = command.spawn().map_err(failed)?;
    // Dropping a Child neither waits nor kills; the pidfd watch takes over.
    Identity::of(child.id() as i32).ok_or_else(|| failed(io::Error::from_raw_os_error(libc::ESRCH)))
}

/// Standard output and error: the journal; the kernel's log for journald itself, or where there is no journal.
fn outputs(declaration: &Declaration, folder: &Path) -> io::Result<(Stdio, Stdio)> {
    let stream = if declaration.journal_sockets { None } else { journal::stream(folder, declaration.name) };
    let fd = match stream {
        Some(fd) => fd,
        None => match OpenOptions::new().write(true).open("/dev/kmsg") {
            Ok(file) => OwnedFd::from(file),
            Err(_) => return Ok((Stdio::null(), Stdio::null())),
        },
    };
    Ok((Stdio::from(fd.try_clone()?), Stdio::from(fd)))
}

/// What the new process does between fork and exec.
struct Setup {
    join: Option<RawFd>,
    sockets: Vec<RawFd>,
    oom: CString,
    files: libc::rlimit,
    user: u32,
    rights: Rights,
}

impl Setup {
    /// System calls only: the parent may have had threads that hold locks (signal-safety(7)).
    fn apply(&self) -> io::Result<()> {
        let check = |done: i32| if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) };
        // SAFETY: all pointers are to live memory of the right size.
        unsafe {
            if let Some(fd) = self.join {
                check(libc::write(fd, c"0".as_ptr().cast(), 1) as i32)?;
            }
            let mut none: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut none);
            check(libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut()))?;
            libc::umask(0o022);
            check(libc::setsid())?;
            check(libc::setrlimit(libc::RLIMIT_NOFILE, &raw const self.files))?;
            let fd = libc::open(c"/proc/self/oom_score_adj".as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
            if fd >= 0 {
                libc::write(fd, self.oom.as_ptr().cast(), self.oom.count_bytes());
                libc::close(fd);
            }
            for fd in &self.sockets {
                check(libc::fcntl(*fd, libc::F_SETFD, 0))?;
            }
            if self.rights == Rights::None {
                // Until the kernel says that it knows no such number.
                let mut capability: libc::c_ulong = 0;
                while libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) == 0 {
                    capability += 1;
                }
            }
            if self.rights != Rights::Any {
                check(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))?;
            }
            if self.user != 0 {
                check(libc::setgroups(0, std::ptr::null()))?;
                check(libc::setgid(self.user))?;
                check(libc::setuid(self.user))?;
            }
        }
        Ok(())
    }
}

/// `init exec-with-sockets PROGRAM ARGUMENT…`: puts the sockets where sd_listen_fds(3) wants them and becomes the
/// program. `LISTEN_PID` must be the final process's own number, which only this process knows. Comes back on failure.
pub(crate) fn exec_with_sockets(arguments: &[String]) -> Error {
    let Some((program, arguments)) = arguments.split_first() else {
        return Error::Start { program: String::new(), source: io::ErrorKind::InvalidInput.into() };
    };
    let numbers = std::env::var(SOCKETS_VARIABLE).unwrap_or_default();
    let numbers: Vec<RawFd> = numbers.split(',').filter_map(|number| number.parse().ok()).collect();
    // First out of the way, then into place: a source may lie where another one goes.
    let floor = LISTEN_FDS_START + numbers.len() as RawFd;
    // SAFETY: descriptors of this process, which has one thread and uses no other ones.
    let moved: Vec<OwnedFd> = numbers
        .iter()
        .filter_map(|fd| match unsafe { libc::fcntl(*fd, libc::F_DUPFD_CLOEXEC, floor) } {
            raw if raw >= 0 => Some(unsafe { OwnedFd::from_raw_fd(raw) }),
            _ => None,
        })
        .collect();
    for fd in numbers.iter().filter(|fd| **fd >= floor) {
        // SAFETY: given to this process to move.
        unsafe { libc::close(*fd) };
    }
    for (target, fd) in (LISTEN_FDS_START..).zip(&moved) {
        // SAFETY: as above; dup2 clears close-on-exec.
        unsafe { libc::dup2(fd.as_raw_fd(), target) };
    }
    let mut command = Command::new(program);
    command.args(arguments).env_remove(SOCKETS_VARIABLE);
    command.env("LISTEN_FDS", moved.len().to_string()).env("LISTEN_PID", std::process::id().to_string());
    Error::Start { program: program.clone(), source: command.exec() }
}

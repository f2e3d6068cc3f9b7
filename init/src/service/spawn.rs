//! Starting a service's process: straight into its group, with a clean signal mask, its limits and its user.

use std::ffi::CString;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use super::capability::Set;
use super::declaration::Rights;
use super::journal;
use super::sandbox::View;
use super::setup::Setup;
use super::{Declaration, JOURNALD};
use crate::cgroup::Group;
use crate::error::{Error, Result};
use crate::process::Identity;

/// Argument with which this program takes sockets and becomes another one.
pub(crate) const EXEC_WITH_SOCKETS: &str = "exec-with-sockets";
/// The sockets' numbers, separated by commas; their names are in [`NAMES_VARIABLE`].
const SOCKETS_VARIABLE: &str = "BOTHY_SOCKETS";
/// Their names, separated by colons: sd_listen_fds_with_names(3).
const NAMES_VARIABLE: &str = "LISTEN_FDNAMES";
/// First descriptor of sd_listen_fds(3).
const LISTEN_FDS_START: RawFd = 3;

/// Starts the process. `sockets` are what it gets by name and number (sd_listen_fds(3)).
pub(crate) fn spawn(
    declaration: &Declaration,
    group: Option<&Group>,
    notify: Option<&Path>,
    sockets: &[(String, RawFd)],
    journal_folder: &Path,
) -> Result<Identity> {
    let program = declaration.command.first().copied().unwrap_or_default();
    let failed = |source| Error::Start { program: program.to_owned(), source };
    let mut command = if sockets.is_empty() {
        Command::new(program)
    } else {
        let mut command = Command::new("/proc/self/exe");
        command.arg0("init").arg(EXEC_WITH_SOCKETS).arg(program);
        let numbers: Vec<_> = sockets.iter().map(|(_, number)| number.to_string()).collect();
        let names: Vec<_> = sockets.iter().map(|(name, _)| name.as_str()).collect();
        command.env(SOCKETS_VARIABLE, numbers.join(",")).env(NAMES_VARIABLE, names.join(":"));
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
        sockets: sockets.iter().map(|(_, number)| *number).collect(),
        oom: CString::new(declaration.oom_score.to_string()).unwrap_or_default(),
        rlimits: declaration.rlimits,
        user: declaration.user,
        group: declaration.group,
        keep: match declaration.rights {
            Rights::Any => None,
            Rights::Only(list) => Some(Set::of(list)),
        },
        view: View::of(&declaration.sandbox),
    };
    // SAFETY: `Setup::apply` makes system calls only, and allocates nothing.
    unsafe { command.pre_exec(move || setup.apply()) };
    let child = command.spawn().map_err(failed)?;
    // Dropping a Child neither waits nor kills; the pidfd watch takes over.
    Identity::of(child.id() as i32).ok_or_else(|| failed(io::Error::from_raw_os_error(libc::ESRCH)))
}

/// Standard output and error: the journal; the kernel's log for journald itself, or where there is no journal.
fn outputs(declaration: &Declaration, folder: &Path) -> io::Result<(Stdio, Stdio)> {
    let stream = if declaration.name == JOURNALD { None } else { journal::stream(folder, declaration.name) };
    let fd = match stream {
        Some(fd) => fd,
        None => match OpenOptions::new().write(true).open("/dev/kmsg") {
            Ok(file) => OwnedFd::from(file),
            Err(_) => return Ok((Stdio::null(), Stdio::null())),
        },
    };
    Ok((Stdio::from(fd.try_clone()?), Stdio::from(fd)))
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

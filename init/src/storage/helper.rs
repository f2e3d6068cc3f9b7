//! Programs of e2fsprogs: run with a time limit, in a group of their own, so that one that outlives its supervisor is
//! found and ended before the next one touches the same disk.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{MemfdFlags, memfd_create};

use crate::cgroup::Group;
use crate::error::{Error, Result};

/// How often a running one is looked at.
const LOOK: Duration = Duration::from_millis(5);
/// How long one that was killed may take to be gone; a dead disk holds it longer.
const KILL_LIMIT: Duration = Duration::from_secs(5);

fn group() -> Group {
    Group::at("system/helpers")
}

/// Ends those of an earlier supervisor.
pub(super) fn end_orphans() -> Result<()> {
    if group().is_populated() && !group().kill_and_wait(KILL_LIMIT) {
        let source = io::ErrorKind::TimedOut.into();
        let device = "a helper of an earlier supervisor".to_owned();
        return Err(Error::Control { act: "kill", device, source });
    }
    Ok(())
}

/// Runs one on a device; exit codes whose bits are all in `good` are success.
pub(super) fn run(program: &str, options: &[&str], device: &Path, good: i32, limit: Duration) -> Result<()> {
    let failed = |source| Error::Start { program: program.to_owned(), source };
    // A file takes any amount without a reader, unlike a pipe.
    let mut output =
        memfd_create("output", MemfdFlags::CLOEXEC).map(File::from).map_err(|e| failed(e.into()))?;
    let mut command = Command::new(program);
    command.args(options).arg(device).stdin(Stdio::null()).env_clear().env("PATH", "/usr/sbin:/usr/bin");
    command.stdout(output.try_clone().map_err(failed)?).stderr(output.try_clone().map_err(failed)?);
    if let Some(joiner) = joiner() {
        // SAFETY: one system call; the descriptor is open until the spawn is done.
        unsafe {
            command.pre_exec(move || {
                // Better in the wrong group than no file system.
                libc::write(joiner.as_raw_fd(), c"0".as_ptr().cast(), 1);
                Ok(())
            });
        }
    }
    let mut child = command.spawn().map_err(failed)?;
    let Some(status) = wait(&mut child, limit).map_err(failed)? else {
        let _ = child.kill();
        let _ = wait(&mut child, KILL_LIMIT);
        return Err(Error::HelperSlow { program: program.to_owned(), seconds: limit.as_secs() });
    };
    if status.code().is_some_and(|code| code & !good == 0) {
        return Ok(());
    }
    let mut text = Vec::new();
    let _ = output.flush().and_then(|()| output.rewind()).and_then(|()| output.read_to_end(&mut text));
    let text = String::from_utf8_lossy(&text);
    let last: Vec<_> = text.lines().rev().take(3).collect();
    let output = last.into_iter().rev().collect::<Vec<_>>().join(" | ");
    Err(Error::Helper { program: program.to_owned(), status: status.to_string(), output })
}

/// A way into the group; none where this is not the appliance.
fn joiner() -> Option<OwnedFd> {
    if !Group::at("system").exists() {
        return None;
    }
    group().make().and_then(|()| group().joiner()).ok()
}

fn wait(child: &mut Child, limit: Duration) -> io::Result<Option<ExitStatus>> {
    let end = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() > end {
            return Ok(None);
        }
        std::thread::sleep(LOOK);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_does_not_end_is_ended() {
        let begin = Instant::now();
        let limit = Duration::from_millis(50);
        let error = run("/bin/sleep", &[], Path::new("600"), 0, limit).unwrap_err();
        assert!(matches!(error, Error::HelperSlow { .. }), "{error}");
        assert!(begin.elapsed() < KILL_LIMIT);
    }

    #[test]
    fn its_last_lines_are_kept() {
        let script = "for i in 1 2 3 4; do echo line $i; done; echo bad >&2; exit 3";
        let args = ["-c", script];
        let limit = Duration::from_secs(20);
        run("/bin/sh", &args, Path::new("x"), 3, limit).unwrap();
        let error = run("/bin/sh", &args, Path::new("x"), 1, limit).unwrap_err().to_string();
        assert_eq!(error, "/bin/sh ended with exit status: 3: line 3 | line 4 | bad");
    }
}

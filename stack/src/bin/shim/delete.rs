//! What containerd calls when a shim is gone: nothing of its container may stay.

use std::io::Write;
use std::path::Path;
use std::time::SystemTime;

use containerd_shim_protos::api::DeleteResponse;
use containerd_shim_protos::protobuf::Message;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::arguments::Arguments;
use crate::failure::Failure;
use crate::runtime::Runtime;
use crate::{container, rootfs, start};

/// The status of a process that was killed.
const KILLED: u32 = 128 + 9;

/// Ends what is left of the container, and writes how its process ended.
pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let here = std::env::current_dir().map_err(Failure::io("find", "the working directory"))?;
    let bundle = arguments.bundle.clone().unwrap_or(here);
    end_shim(&bundle);
    let program = std::fs::read_to_string(bundle.join(start::RUNTIME_FILE)).unwrap_or_default();
    let runtime = Runtime::new(program.trim(), &arguments.namespace, &arguments.id, &bundle);
    // Most often there is nothing left to remove, which is an error to it; what it could not end holds the mount.
    let removed = runtime.call_alone(&["delete", "--force"]);
    rootfs::detach(&bundle.join("rootfs"))?;
    if let Err(failure) = removed
        && runtime.knows()
    {
        return Err(failure);
    }
    let _ = std::fs::remove_file(start::socket(arguments));
    let answer = DeleteResponse {
        pid: number(&bundle.join(container::PID_FILE)).unwrap_or(0).cast_unsigned(),
        exit_status: KILLED,
        exited_at: Some(container::timestamp(SystemTime::now())).into(),
        ..Default::default()
    };
    let bytes = answer.write_to_bytes().map_err(|error| Failure::Refused(error.to_string()))?;
    std::io::stdout().write_all(&bytes).map_err(Failure::io("write", "the answer"))
}

/// Ends a shim that lives and does not answer: after this nobody could reach it any more.
fn end_shim(bundle: &Path) {
    let Some(pid) = number(&bundle.join(start::PID_FILE)) else { return };
    // Its number may be somebody else's by now.
    let program = |pid: &str| std::fs::read_link(format!("/proc/{pid}/exe")).ok();
    if program("self").is_some_and(|own| program(&pid.to_string()) == Some(own)) {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
}

/// The number of a process in a file.
fn number(path: &Path) -> Option<i32> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok().filter(|pid| *pid > 1)
}

//! The process between containerd and an instance's, where it does not answer: stopped by somebody, or stuck.

use std::fs;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Kills the shim of a container; containerd clears away what it leaves. Whether there was one.
pub fn end(namespace: &str, id: &str) -> bool {
    let numbers = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = numbers.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let shims = numbers.filter(|number| {
        let line = fs::read(format!("/proc/{number}/cmdline")).unwrap_or_default();
        is_shim_of(&line, namespace, id)
    });
    // SIGKILL is heard by who is stopped, too.
    shims.filter(|number| kill(Pid::from_raw(*number), Signal::SIGKILL).is_ok()).count() > 0
}

/// Reads a command line as /proc has it: `containerd-shim-… -namespace NAMESPACE … -id ID …`.
fn is_shim_of(line: &[u8], namespace: &str, id: &str) -> bool {
    let words: Vec<_> = line.split(|byte| *byte == 0).collect();
    let program = words.first().and_then(|word| word.rsplit(|byte| *byte == b'/').next()).unwrap_or_default();
    let says = |name: &str, value: &str| {
        words.windows(2).any(|pair| pair[0] == name.as_bytes() && pair[1] == value.as_bytes())
    };
    program.starts_with(b"containerd-shim-") && says("-namespace", namespace) && says("-id", id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_lines() {
        let line = b"/usr/bin/containerd-shim-bothy-v2\0-namespace\0dev\0-id\0f.1\0-address\0/run/x\0";
        assert!(is_shim_of(line, "dev", "f.1"));
        assert!(!is_shim_of(line, "dev", "f.10"));
        assert!(!is_shim_of(line, "openfaas-fn", "f.1"));
        assert!(!is_shim_of(b"/bin/sh\0-namespace\0dev\0-id\0f.1\0", "dev", "f.1"));
        assert!(!is_shim_of(b"", "dev", "f.1"));
    }
}

//! The standard streams of a function: FIFOs that its process writes to itself, without a copy on the way.

use std::fs::File;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::process::{Command, Stdio};

use nix::libc;

use crate::failure::Failure;

/// Both streams of output.
#[derive(Debug)]
pub struct Streams {
    output: Stream,
    error: Stream,
}

/// One of them: what the process gets, and an end of our own at which it can always be read. So a write never fails
/// because the log service is away; it waits as soon as the kernel's buffer is full.
#[derive(Debug, Default)]
struct Stream {
    given: Option<File>,
    /// Nobody reads here: it only has to be open.
    _held: Option<File>,
}

impl Streams {
    /// Opens what containerd names; an empty name is no stream.
    pub fn open(output: &str, error: &str) -> Result<Self, Failure> {
        Ok(Self { output: Stream::open(output)?, error: Stream::open(error)? })
    }

    /// Gives them to a program. Done once: afterwards only the process holds its ends.
    pub fn give(&mut self, command: &mut Command) {
        command.stdin(Stdio::null());
        command.stdout(self.output.given.take().map_or_else(Stdio::null, Stdio::from));
        command.stderr(self.error.given.take().map_or_else(Stdio::null, Stdio::from));
    }
}

impl Stream {
    fn open(name: &str) -> Result<Self, Failure> {
        if name.is_empty() {
            return Ok(Self::default());
        }
        if name.contains("://") {
            return Err(Failure::Refused(format!("standard streams of functions are FIFOs, not {name}")));
        }
        // Both ends at once: that waits for nobody, and afterwards the writing end waits for nobody either.
        let held = File::options().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(name);
        let held = held.map_err(Failure::io("open", name))?;
        let kind = held.metadata().map_err(Failure::io("look at", name))?.file_type();
        if !kind.is_fifo() {
            return Err(Failure::Refused(format!("standard streams of functions are FIFOs, {name} is none")));
        }
        let given = File::options().write(true).open(name).map_err(Failure::io("open", name))?;
        Ok(Self { given: Some(given), _held: Some(held) })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn a_program_writes_without_a_reader() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let name = path.to_str().unwrap();
        let mut streams = Streams::open(name, "").unwrap();
        let mut command = Command::new("sh");
        streams.give(command.args(["-c", "echo said"]));
        assert!(command.status().unwrap().success());
        let mut text = [0; 5];
        streams.output._held.as_ref().unwrap().read_exact(&mut text).unwrap();
        assert_eq!(&text, b"said\n");
    }

    #[test]
    fn what_is_no_fifo_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "").unwrap();
        for name in ["binary:///usr/bin/log", "file:///tmp/x", path.to_str().unwrap()] {
            assert!(matches!(Streams::open(name, ""), Err(Failure::Refused(_))), "{name}");
        }
        assert!(matches!(Streams::open("/nonexistent", ""), Err(Failure::Io { .. })));
        Streams::open("", "").unwrap();
    }
}

//! Output of services into the journal: a stream to journald that waits, with its lines, when journald is away.

use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// A stream for a service's output: what it writes are lines of the journal, under its name.
pub(crate) fn stream(folder: &Path, name: &str) -> Option<OwnedFd> {
    let path: PathBuf = folder.join("stdout");
    let mut stream = UnixStream::connect(path).ok()?;
    // Identifier, unit, priority, level prefixes understood, no forwarding to syslog, kmsg or console
    // (systemd's stdout protocol, src/journal/journald-stream.c).
    stream.write_all(format!("{name}\n\n6\n1\n0\n0\n0\n").as_bytes()).ok()?;
    let _ = stream.shutdown(std::net::Shutdown::Read);
    Some(stream.into())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Read;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_stream_before_journald_waits_with_its_lines() {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("stdout")).unwrap();
        let mut out = fs::File::from(stream(folder.path(), "nats").unwrap());
        out.write_all(b"hello\n").unwrap();
        drop(out);
        let mut text = String::new();
        listener.accept().unwrap().0.read_to_string(&mut text).unwrap();
        assert_eq!(text, "nats\n\n6\n1\n0\n0\n0\nhello\n");
    }

    #[test]
    fn no_journald_no_stream() {
        assert!(stream(Path::new("/nonexistent"), "x").is_none());
    }
}

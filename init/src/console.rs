//! The console and the kernel's log: where words go before anything else works.
//!
//! A console may be missing, unplugged or stopped by flow control: nothing here waits for it, nothing fails for it.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Severity of a line in the kernel's log (`<N>` prefix, as in syslog).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    /// Something a person has to look at.
    Error = 3,
    /// Not as it should be, and going on.
    Warning = 4,
    /// What happens.
    Info = 6,
}

/// How long a slow line may take to make room, all in all; what then is left is lost.
const PATIENCE: Duration = Duration::from_millis(500);

/// Writes lines to the console.
pub(crate) fn say(text: &str) {
    let open =
        OpenOptions::new().write(true).custom_flags(libc::O_NOCTTY | libc::O_NONBLOCK).open("/dev/console");
    if let Ok(console) = open {
        push(console, format!("{text}\n").as_bytes());
    }
}

fn push(mut console: File, mut bytes: &[u8]) {
    let end = Instant::now() + PATIENCE;
    while !bytes.is_empty() {
        match console.write(bytes) {
            Ok(0) => return,
            Ok(length) => bytes = bytes.get(length..).unwrap_or_default(),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let left = end.saturating_duration_since(Instant::now());
                let limit = Timespec { tv_sec: 0, tv_nsec: left.subsec_nanos().into() };
                if left.is_zero()
                    || !matches!(poll(&mut [PollFd::new(&console, PollFlags::OUT)], Some(&limit)), Ok(1..))
                {
                    return;
                }
            }
            Err(_) => return,
        }
    }
}

/// Writes one line to the kernel's log.
pub(crate) fn kmsg(level: Level, text: &str) {
    if let Ok(mut log) = OpenOptions::new().write(true).open("/dev/kmsg") {
        // One write is one record; a line end inside would be escaped.
        let line = text.replace('\n', " | ");
        let _ = log.write_all(format!("<{}>init: {line}", level as u8).as_bytes());
    }
}

/// Says a failure in both places. Console lines that are not ours (a quiet kernel's warnings) do not repeat it.
pub(crate) fn alarm(text: &str) {
    say(&format!("bothy: problem: {text}"));
    kmsg(Level::Error, text);
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn a_full_line_is_waited_for_but_not_for_ever() {
        let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::NONBLOCK).unwrap();
        let begin = Instant::now();
        let text = vec![b'x'; 1 << 20];
        push(writer.try_clone().unwrap().into(), &text);
        assert!(begin.elapsed() >= PATIENCE / 2 && begin.elapsed() < PATIENCE * 10, "{:?}", begin.elapsed());
        let mut reader = File::from(reader);
        let reading = std::thread::spawn(move || {
            let mut all: Vec<u8> = Vec::new();
            while all.len() < (1 << 20) {
                let mut part = [0; 4096];
                match reader.read(&mut part) {
                    Ok(0) => break,
                    Ok(length) => all.extend(&part[..length]),
                    Err(_) => std::thread::sleep(Duration::from_millis(1)),
                }
            }
            all.len()
        });
        push(writer.into(), &text);
        assert!(reading.join().unwrap() >= 1 << 20);
    }
}

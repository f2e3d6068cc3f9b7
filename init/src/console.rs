//! The console and the kernel's log: where words go before anything else works.
//!
//! A console may be missing, unplugged or stopped by flow control: nothing here waits for it, nothing fails for it.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;

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

/// Writes lines to the console.
pub(crate) fn say(text: &str) {
    let open =
        OpenOptions::new().write(true).custom_flags(libc::O_NOCTTY | libc::O_NONBLOCK).open("/dev/console");
    if let Ok(mut console) = open {
        let _ = console.write_all(format!("{text}\n").as_bytes());
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

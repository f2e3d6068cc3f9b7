//! The terminal: what is typed, with and without an echo.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::mpsc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{
    InputModes, LocalModes, OptionalActions, OutputModes, Termios, tcdrain, tcgetattr, tcsetattr,
};

/// Longest line that a terminal gives at once (n_tty's buffer).
const LONGEST_BYTES: usize = 4096;
/// A full buffer of the slowest serial line takes as long: 4 KiB at 9600 baud. Ctrl-S stops a line for good.
const LONGEST_DRAIN: Duration = Duration::from_secs(5);

/// What came of waiting for a line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Typed {
    /// This one, without its end.
    Line(String),
    /// The terminal's end, or Ctrl-D.
    End,
    /// Nobody typed.
    Idle,
}

/// Asks for a line. Read without a buffer: what is typed ahead is for whoever reads next, which may be another program.
pub(crate) fn ask(prompt: &str, limit: Option<Duration>) -> Typed {
    let mut out = io::stdout();
    let _ = write!(out, "{prompt}").and_then(|()| out.flush());
    read(limit)
}

/// The same without an echo, for passwords. Without a terminal it is a line like any other.
pub(crate) fn ask_secret(prompt: &str, limit: Option<Duration>) -> Typed {
    let input = io::stdin();
    let before = tcgetattr(&input).ok();
    let mut err = io::stderr();
    if let Some(before) = &before {
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        silent.local_modes.insert(LocalModes::ICANON | LocalModes::ECHONL);
        // Now, not after a flush: a program that types need not wait for the prompt.
        let _ = tcsetattr(&input, OptionalActions::Now, &silent);
    }
    let _ = write!(err, "{prompt}").and_then(|()| err.flush());
    let typed = read(limit);
    if let Some(before) = &before {
        let _ = tcsetattr(&input, OptionalActions::Now, before);
    }
    typed
}

fn read(limit: Option<Duration>) -> Typed {
    let input = io::stdin();
    let mut line = Vec::new();
    loop {
        if let Some(limit) = limit {
            let time = Timespec { tv_sec: limit.as_secs() as i64, tv_nsec: limit.subsec_nanos().into() };
            match poll(&mut [PollFd::new(&input, PollFlags::IN)], Some(&time)) {
                Ok(0) => return Typed::Idle,
                Err(rustix::io::Errno::INTR) => continue,
                _ => {}
            }
        }
        let mut part = [0_u8; LONGEST_BYTES];
        match rustix::io::read(&input, &mut part) {
            Ok(0) if line.is_empty() => return Typed::End,
            Ok(0) => break,
            Ok(length) => {
                line.extend_from_slice(part.get(..length).unwrap_or_default());
                if line.ends_with(b"\n") {
                    break;
                }
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return Typed::End,
        }
    }
    Typed::Line(String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']).to_owned())
}

/// Waits until all that was written is sent, or the line is seen to be stopped.
pub(crate) fn drain() {
    let (tell, done) = mpsc::channel();
    // Where no thread is to be had, its end of the channel is gone at once: nobody waits, and the session ends as it would.
    let _ = std::thread::Builder::new().spawn(move || {
        let _ = tcdrain(io::stdout());
        let _ = tell.send(());
    });
    let _ = done.recv_timeout(LONGEST_DRAIN);
}

/// Lines, an echo, keys that mean something: whatever a program left behind.
pub(crate) fn make_sane(terminal: &impl AsFd) {
    if let Ok(mut modes) = tcgetattr(terminal) {
        modes.input_modes.insert(InputModes::ICRNL | InputModes::IXON);
        modes.input_modes.remove(InputModes::IGNCR | InputModes::INLCR);
        modes.output_modes.insert(OutputModes::OPOST | OutputModes::ONLCR);
        let wanted = LocalModes::ICANON
            | LocalModes::ECHO
            | LocalModes::ECHOE
            | LocalModes::ECHOK
            | LocalModes::ECHOCTL
            | LocalModes::ECHOKE
            | LocalModes::ISIG
            | LocalModes::IEXTEN;
        modes.local_modes.insert(wanted);
        let _ = tcsetattr(terminal, OptionalActions::Now, &modes);
    }
}

/// Single keys while it lives: some of them end the program.
pub(crate) struct Keys {
    before: Option<Termios>,
}

impl Keys {
    /// Ends the program at one of these bytes, the terminal as it was.
    pub(crate) fn end_at(ends: &'static [u8]) -> Self {
        let before = tcgetattr(io::stdin()).ok();
        if let Some(before) = &before {
            let mut modes = before.clone();
            // Ctrl-C too is a key then, and leaves the terminal in order.
            modes.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG);
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, &modes);
            let before = before.clone();
            std::thread::spawn(move || {
                let mut key = [0_u8; 1];
                loop {
                    match rustix::io::read(io::stdin(), &mut key) {
                        Ok(1) if !ends.contains(&key[0]) => {}
                        Err(rustix::io::Errno::INTR) => {}
                        _ => break,
                    }
                }
                let _ = tcsetattr(io::stdin(), OptionalActions::Now, &before);
                std::process::exit(0);
            });
        }
        Self { before }
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, before);
        }
    }
}

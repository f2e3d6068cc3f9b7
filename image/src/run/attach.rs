//! The machine's console in the user's terminal.

use std::io::Read;
use std::os::fd::AsFd;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::interrupt::Interrupt;
use crate::qemu::{Error, Result, Running};

/// Shows the console and passes on what is typed, until Ctrl-C or the machine's end; tells whether it was the latter.
pub(super) fn stay(running: &mut Running, interrupt: &Interrupt) -> Result<bool> {
    running.console().follow(std::io::stdout());
    let mut input = std::io::stdin();
    let mut open = true;
    loop {
        match running.wait_end(Duration::ZERO) {
            Ok(_) => return Ok(true),
            Err(Error::Late { .. }) => {}
            Err(error) => return Err(error),
        }
        if interrupt.count() > 0 {
            return Ok(false);
        }
        if !open {
            std::thread::sleep(Duration::from_millis(100));
            continue;
        }
        // Not a thread that reads: it would hold the terminal after we are done with it.
        let ready = {
            let mut ready = [PollFd::new(input.as_fd(), PollFlags::POLLIN)];
            poll(&mut ready, PollTimeout::from(100_u8)).unwrap_or(0) > 0
        };
        if ready {
            // As large as the buffer of standard input, so that nothing stays in there unseen.
            let mut typed = [0; 16 * 1024];
            match input.read(&mut typed) {
                Ok(0) | Err(_) => open = false,
                Ok(n) => running.console().send(typed.get(..n).unwrap_or_default())?,
            }
        }
    }
}

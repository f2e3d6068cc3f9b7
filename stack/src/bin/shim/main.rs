//! `containerd-shim-bothy-v2`: what stands between containerd and one function's process, for as long as it runs.
//!
//! containerd starts it for the runtime `io.containerd.bothy.v2` and speaks its task service (ttrpc, API version 2) over
//! a socket; it calls the OCI runtime, owns the process's standard streams and reaps it. It outlives containerd, which
//! finds it again by the bundle's `address`. One task each, so that the end of one takes no other along; one
//! thread and no second start of itself, since each is part of every cold start.

mod arguments;
mod container;
mod delete;
mod events;
mod failure;
mod reaper;
mod rootfs;
mod runtime;
mod serve;
mod service;
mod start;
mod streams;

use std::process::ExitCode;

use arguments::{Action, Arguments};

/// Exit status for a command line that is not containerd's.
const EXIT_USAGE: u8 = 2;

fn main() -> ExitCode {
    let arguments = match Arguments::parse(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(problem) => {
            eprintln!(
                "containerd-shim-bothy-v2: {problem}; containerd starts this program, nobody else needs to"
            );
            return ExitCode::from(EXIT_USAGE);
        }
    };
    let done = match arguments.action {
        Action::Version => {
            println!("containerd-shim-bothy-v2 {}", env!("CARGO_PKG_VERSION"));
            Ok(())
        }
        Action::Start => start::run(&arguments),
        Action::Delete => delete::run(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // containerd takes what is written here into its own error.
            eprintln!("{failure}");
            ExitCode::FAILURE
        }
    }
}

//! The supervisor: everything that may fail, next to a PID 1 that may not.
//!
//! Boot and shutdown are lists of named phases; `bothyctl plan` prints them.

mod button;
mod clock;
mod configuration;
mod control;
mod crash;
mod credentials;
mod devices;
mod heart;
mod identity;
mod keyboard;
mod log;
mod machine;
mod memory;
mod phases;
mod pid1;
mod room;
mod screen;
mod seed;
mod session;
mod settings;
mod status;
mod text;

use std::path::Path;
use std::process::ExitCode;
use std::rc::Rc;

use machine::Machine;

pub(crate) use phases::plan;

/// Folder of everything that lives as long as a boot.
const RUN: &str = "/run/bothy";
/// Where the status lies for others.
pub(crate) const STATUS: &str = "/run/bothy/status.json";

/// `init supervise`. Comes back only when nothing can be done: PID 1 then starts another.
pub(crate) fn run() -> ExitCode {
    let built = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(4).build();
    let runtime = match built {
        Ok(runtime) => runtime,
        Err(error) => {
            crate::console::alarm(&format!("the supervisor has no event loop: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, life());
    // Not waiting for a thread that a dead disk holds.
    drop(local);
    runtime.shutdown_background();
    ExitCode::FAILURE
}

async fn life() {
    if let Err(error) = crate::file::make_dir(Path::new(RUN), 0o755) {
        crate::console::alarm(&error.to_string());
    }
    let machine = Rc::new(Machine::new());
    phases::boot(&machine).await;
    let ending = machine.wait_for_end().await;
    phases::shutdown(&machine, ending).await;
}

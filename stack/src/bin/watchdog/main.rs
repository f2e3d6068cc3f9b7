//! `watchdog`: what stands before a function's own program inside its image, by the contract of the of-watchdog and the
//! classic watchdog.
//!
//! Mode `http` keeps one program running and passes calls on to it; `streaming`, `serializing` and `classic` start the
//! program for each call; `static` has no program. One thread, a current-thread runtime: its size and its start are part
//! of every cold start. See docs/watchdog.md for the variables.

mod answer;
mod body;
mod call;
mod classic;
mod config;
mod connection;
// By path, not through the library: this program must not link what the library links.
#[path = "../../duration.rs"]
mod duration;
mod environment;
mod files;
mod function;
mod health;
mod link;
mod metrics;
mod mode;
mod output;
mod patience;
mod percent;
mod pool;
mod program;
mod range;
mod reaper;
mod running;
mod seconds;
mod serializing;
mod serve;
mod streaming;
mod task;
mod upstream;
mod variables;

use std::process::ExitCode;

use config::Config;
use tokio::runtime::{Builder, LocalOptions};

/// Exit status for a configuration that cannot work.
const EXIT_USAGE: u8 = 2;

/// Threads that read files in mode static.
const READERS: usize = 4;

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        Some("--version" | "-version") => {
            println!("bothy watchdog {}", env!("CARGO_PKG_VERSION"));
            return ExitCode::SUCCESS;
        }
        Some("--run-healthcheck" | "-run-healthcheck") => {
            if health::is_locked() {
                return ExitCode::SUCCESS;
            }
            eprintln!(
                "watchdog: there is no lock file: it was not made yet, or the watchdog was told to end"
            );
            return ExitCode::FAILURE;
        }
        Some(other) if other.starts_with('-') => {
            eprintln!("watchdog: {other}: expected --version, --run-healthcheck or nothing");
            return ExitCode::from(EXIT_USAGE);
        }
        // An image may have words behind its entrypoint that are for nobody.
        _ => {}
    }
    let get = |name: &str| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned());
    let config = match Config::from_environment(&get) {
        Ok(config) => config,
        Err(problem) => {
            eprintln!("watchdog: {problem}");
            return ExitCode::from(EXIT_USAGE);
        }
    };
    let mut builder = Builder::new_current_thread();
    builder.enable_all().max_blocking_threads(READERS);
    let runtime = match builder.build_local(LocalOptions::default()) {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("watchdog: start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let code = match runtime.block_on(serve::run(config)) {
        Ok(status) => ExitCode::from(status),
        Err(problem) => {
            output::say(problem);
            ExitCode::FAILURE
        }
    };
    // Whatever was cut off ends here, and has its line.
    runtime.shutdown_background();
    output::flush();
    code
}

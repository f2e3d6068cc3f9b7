//! `watchdog`: what stands before a function's own program inside its image, by the of-watchdog contract.
//!
//! Mode `http` keeps one program running and passes requests on to it; mode `streaming` starts the program for each
//! request and connects its pipes with the request's and the answer's bodies. One thread, a current-thread runtime:
//! its size and its start are part of every cold start.

mod body;
mod config;
// By path, not through the library: this program must not link what the library links.
#[path = "../../duration.rs"]
mod duration;
mod fork;
mod health;
mod metrics;
mod output;
mod reaper;
mod serve;
mod upstream;

use std::process::ExitCode;

use config::Config;

/// Exit status for a configuration that cannot work.
const EXIT_USAGE: u8 = 2;

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        Some("--version" | "-version") => {
            println!("bothy watchdog {}", env!("CARGO_PKG_VERSION"));
            return ExitCode::SUCCESS;
        }
        Some("--run-healthcheck" | "-run-healthcheck") => {
            return if health::is_locked() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
        }
        _ => {}
    }
    let config = match Config::from_environment(|name| std::env::var(name).ok()) {
        Ok(config) => config,
        Err(problem) => {
            eprintln!("watchdog: {problem}");
            return ExitCode::from(EXIT_USAGE);
        }
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("watchdog: start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let local = tokio::task::LocalSet::new();
    let code = match local.block_on(&runtime, serve::run(config)) {
        Ok(status) => ExitCode::from(status),
        Err(problem) => {
            output::say(problem);
            ExitCode::FAILURE
        }
    };
    output::flush();
    code
}

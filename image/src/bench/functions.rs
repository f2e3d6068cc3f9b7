//! `bothy bench functions`, `queue` and `scale`: what functions and asynchronous calls cost in time and memory, natively
//! against a real containerd and NATS server. The program is `stack/benches/functions`; this builds the image, whose
//! programs it uses, and starts it.

use std::process::Stdio;

use super::Figure;
use crate::build::Options;
use crate::qemu::{Error, Result};
use crate::{build, host, testing};

/// Measures `stopped_to_reply_p50`, `stopping_to_reply_p50`, `frozen_to_reply_p50` and `first_deploy_p50` with their floors,
/// `failed_first_calls`, `throughput_c16` with its floor, `added_latency_p99`, `idle_function_cost`,
/// `prepared_function_cost` and `gateway_rss_100`. Every median is of `runs` times ten; first calls are 400 for each run.
///
/// # Errors
/// The image cannot be built, or the bench fails: it says why itself.
pub fn functions(options: &Options, runs: usize) -> Result<Vec<Figure>> {
    let rounds = runs.max(1).saturating_mul(10).to_string();
    let calls = runs.max(1).saturating_mul(400).to_string();
    measure(options, &["--rounds", &rounds, "--first-calls", &calls])
}

/// Measures `accepted` against messages that are published and not synced, `accepted_fsync` against one sync for each,
/// `completed` against calls that somebody waits for, `worker_rss`, and what is `lost`, `dead` and made twice
/// (`duplicates`) of 5,000 calls while gateway, worker and NATS server are killed.
///
/// # Errors
/// The image cannot be built, or the bench fails: it says why itself.
pub fn queue(options: &Options, runs: usize) -> Result<Vec<Figure>> {
    let turns = runs.max(1).to_string();
    measure(options, &["--part", "accepted,completed,kills", "--turns", &turns])
}

/// Measures `zero_to_reply_p50`, of a function that was scaled to zero by its label, with its floor. The median is of `runs`
/// times five.
///
/// # Errors
/// The image cannot be built, or the bench fails: it says why itself.
pub fn scale(options: &Options, runs: usize) -> Result<Vec<Figure>> {
    let rounds = runs.max(1).saturating_mul(5).to_string();
    measure(options, &["--part", "zero", "--rounds", &rounds])
}

/// Builds what is stale, and runs the program with these words.
fn measure(options: &Options, words: &[&str]) -> Result<Vec<Figure>> {
    host::ensure(host::BUILD, options.install)?;
    let artifacts = build::ensure(options)?;
    let root = testing::root_files(&artifacts, &options.out.join(&artifacts.name))?;
    let mut command = testing::cargo(&options.source);
    command.args(["bench", "--package", "stack", "--bench", "functions", "--locked", "--"]);
    command.args(words).env("BOTHY_ROOTFS", root);
    testing::as_root(&mut command, options)?;
    let start = |source| Error::Start { program: "cargo".to_owned(), source };
    let output = command.stderr(Stdio::inherit()).output().map_err(start)?;
    let figures: Vec<Figure> =
        output.stdout.split(|b| *b == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect();
    if !output.status.success() || figures.is_empty() {
        let (program, status) = ("the bench of functions".to_owned(), output.status);
        let stderr = "it printed what went wrong".to_owned();
        return Err(crate::Error::Program { program, status, stderr }.into());
    }
    Ok(figures)
}

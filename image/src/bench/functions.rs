//! `bothy bench functions`: what a function costs in time and memory, natively against a real containerd. The program is
//! `stack/benches/functions`; this builds the image, whose containerd and crun it uses, and starts it.

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
    host::ensure(host::BUILD, options.install)?;
    let artifacts = build::ensure(options)?;
    let root = testing::root_files(&artifacts, &options.out.join(&artifacts.name))?;
    let rounds = runs.max(1).saturating_mul(10).to_string();
    let calls = runs.max(1).saturating_mul(400).to_string();
    let mut command = testing::cargo(&options.source);
    command.args(["bench", "--package", "stack", "--bench", "functions", "--locked", "--"]);
    command.args(["--rounds", &rounds, "--first-calls", &calls]).env("BOTHY_ROOTFS", root);
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

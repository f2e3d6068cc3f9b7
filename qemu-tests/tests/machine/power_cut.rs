//! The power fails. All writes of a machine are recorded while it boots for the first time, takes functions, changes
//! and loses them, takes calls for later, works and shuts down. Then its disk is made again as it was at many moments, with what had not been
//! flushed lost, torn or there, and booted: the machine must be healthy and keep every promise that it had made.
//!
//! A cut is named by its seed, and `BOTHY_CUT=SEED` runs that one alone, from the same recording as long as the image is
//! the same. A long run that was stopped goes on where it was.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use qemu_tests::{
    BOTHY, Case, Gateway, Mark, Recording, Running, SAMPLE_FUNCTION, SAMPLE_IMAGE, assert_clean,
    call_is_done, call_later, case, choose, end_of_call,
};
use serde_json::Value;

/// How long a request may take.
const REQUEST: Duration = Duration::from_secs(120);
/// How long coming up and ending may take: here it counts whether, elsewhere how soon.
const PATIENCE: Duration = Duration::from_secs(600);

/// Runs the cuts of some seeds; those of `resumable` runs that held before are not run again.
fn cuts(name: &str, seeds: Range<u64>, step: usize, resumable: bool) {
    case(name, |case| {
        let shared = case.folder().with_file_name("power_cut.recording");
        let recording = Recording::of(case, &shared)?;
        let windows = recording.history.windows(&recording.writes)?;
        let only = std::env::var("BOTHY_CUT").ok().map(|seed| seed.parse::<u64>()).transpose();
        let only = only.context("BOTHY_CUT is no number")?;
        let seeds: Vec<u64> = match only {
            Some(seed) => vec![seed],
            None => seeds.clone().step_by(step).collect(),
        };
        let held = if resumable && only.is_none() { results(&shared) } else { BTreeSet::new() };
        let mut failures = Vec::new();
        let mut run = 0;
        for seed in seeds.into_iter().filter(|seed| !held.contains(seed)) {
            let (window, cut) = choose(seed, &windows, &recording.writes).context("nothing was recorded")?;
            let what = format!("cut {seed}, {} at entry {} of {:?}", window.what, cut.at, window.cuts);
            println!("{what}");
            let outcome = case.retry(|case| survives(case, &recording, cut));
            run += 1;
            match outcome {
                Ok(()) => note(&shared, &format!("{seed} held\n"))?,
                Err(error) => {
                    let text = format!("{what}: {error:#}");
                    note(&shared, &format!("{seed} failed: {}\n", text.replace('\n', " | ")))?;
                    println!("{text}");
                    failures.push(text);
                }
            }
        }
        println!("{run} cuts were run, {} were run before", held.len());
        if !failures.is_empty() {
            bail!("{} of {run} cuts (BOTHY_CUT=SEED runs one):\n{}", failures.len(), failures.join("\n"));
        }
        Ok(())
    });
}

/// The seeds whose cuts held before.
fn results(folder: &Path) -> BTreeSet<u64> {
    let text = fs::read_to_string(folder.join("results")).unwrap_or_default();
    text.lines().filter_map(|line| line.strip_suffix(" held")?.parse().ok()).collect()
}

fn note(folder: &Path, line: &str) -> Result<()> {
    let mut file = OpenOptions::new().append(true).create(true).open(folder.join("results"))?;
    Ok(file.write_all(line.as_bytes())?)
}

/// One cut: the machine is healthy, all promises are kept, nothing is half there, and in the end all is in order.
fn survives(case: &mut Case, recording: &Recording, cut: image::qemu::Cut) -> Result<()> {
    let disk = recording.disk.copy(&case.folder().join(format!("cut-{}.img", cut.seed)))?;
    recording.writes.replay(&cut, &disk)?;
    let mut running = case.machine(&disk)?.start()?;
    running.ready(PATIENCE)?;
    let lines = running.console().lines(Mark::default());
    let problem = lines.iter().find(|line| {
        // A host without time for the machine is not what this is about.
        let slow = line.text.contains("was not ready within");
        (line.text.contains("bothy: problem:") && !slow) || line.text.contains("EXT4-fs error")
    });
    ensure!(problem.is_none(), "the console says: {}", problem.map_or("", |line| &line.text));
    let gateway = case.gateway(&running);
    let mut there = 0;
    for name in recording.history.functions() {
        let may = recording.history.may_be(name, cut.at, &recording.writes);
        let answer = gateway.client().get(&format!("/system/function/{name}"), REQUEST)?;
        let is = match answer.status {
            404 => None,
            200 => Some(step(&answer.body)?),
            status => bail!("{name}: {status} {}", answer.body),
        };
        ensure!(may.contains(&is), "{name} is {is:?}, but may be {may:?}");
        if is.is_some() {
            there += 1;
            ensure!(case.answer(&mut running, name, "Bothy")? == BOTHY, "{name} answers nonsense");
        }
    }
    let list = gateway.client().get("/system/functions", REQUEST)?;
    let list: Vec<Value> = serde_json::from_str(&list.body).context("the list of functions is no JSON")?;
    ensure!(list.len() == there, "{there} functions are there, but the list has {}", list.len());
    // What the cut left must be good for work, too.
    if there == 0 {
        gateway.deploy(SAMPLE_FUNCTION, SAMPLE_IMAGE)?;
        ensure!(case.answer(&mut running, SAMPLE_FUNCTION, "Bothy")? == BOTHY, "figlet answers nonsense");
    }
    let names = recording.history.functions();
    let any = names.into_iter().find(|name| gateway.has(name).unwrap_or(false)).unwrap_or(SAMPLE_FUNCTION);
    let new = call_later(&mut running, &gateway, any, "Bothy")?;
    call_is_done(&mut running, &gateway, &new, PATIENCE).context("a call that came after the cut")?;
    calls(&mut running, &gateway, recording, &cut)?;
    running.power_off(PATIENCE)?;
    assert_clean(case.artifacts(), &disk, case.folder())?;
    fs::remove_file(disk.path()).context("remove the disk")
}

/// Each call that was accepted before the cut comes to an end: done, or given up where its function may be gone.
fn calls(
    running: &mut Running,
    gateway: &Gateway,
    recording: &Recording,
    cut: &image::qemu::Cut,
) -> Result<()> {
    let Recording { history, writes, .. } = recording;
    let mut ends = Vec::new();
    for accepted in history.accepted(cut.at, writes) {
        let call = end_of_call(running, gateway, &accepted.id, PATIENCE)?;
        let done = call["state"] == "done" && call["status"] == 200;
        let gone = history.may_be(&accepted.function, cut.at, writes).contains(&None);
        let given_up = call["state"] == "dead" && call["reason"].is_string() && gone;
        ensure!(done || given_up, "a call came to another end: {call}");
        ends.push(call["state"].as_str().unwrap_or_default().to_owned());
    }
    println!("  {} calls had been accepted: {}", ends.len(), ends.join(", "));
    Ok(())
}

/// The label that says which version of a function this is.
fn step(document: &str) -> Result<String> {
    let document: Value = serde_json::from_str(document).context("the function is no JSON")?;
    document["labels"]["step"].as_str().map(str::to_owned).context("the function has no label `step`")
}

// Two, so that two processors have a machine each.

#[test]
fn every_promise_is_kept_at_even_cuts() {
    cuts("power_cut_even", 0..15, 2, false);
}

#[test]
fn every_promise_is_kept_at_odd_cuts() {
    cuts("power_cut_odd", 1..15, 2, false);
}

mod long {
    #[test]
    fn every_promise_is_kept_at_even_cuts() {
        super::cuts("power_cut_long_even", 0..200, 2, true);
    }

    #[test]
    fn every_promise_is_kept_at_odd_cuts() {
        super::cuts("power_cut_long_odd", 1..200, 2, true);
    }
}

//! `bothy bench boot`: how soon a function answers, and what the machine then needs.
//!
//! Times are of the host's clock, from the start of QEMU to HTTP 200 of a function that `bothy.toml` declares. The
//! floor boots the same disk with the same kernel, up to containerd and NATS and nothing else; its runs lie between
//! ours, so that both meet the same host. Under emulation a second is no second of any hardware: there the ratio to
//! the floor counts, and `answer_virtual`, the number of instructions (one each nanosecond), which repeats; with it
//! `longest_phase`, the longest phase of the supervisor's way up by that clock.

use std::time::Duration;

use regex_lite::Regex;
use serde_json::json;

use super::{Figure, floor::Floor, median};
use crate::build::Options;
use crate::progress::step;
use crate::qemu::{
    Accel, Appliance, Disk, Error, Gateway, Machine, Mark, Result, Retries, Running, SAMPLE_FUNCTION,
    SAMPLE_IMAGE, configuration,
};
use crate::{build, host, place};

const BENCH: &str = "boot";

/// The gateway's credentials.
const USER: &str = "admin";
const PASSWORD: &str = "bench-boot";

/// How long the machine is left alone before its memory is measured.
const IDLE: Duration = Duration::from_secs(60);

/// How long the function may take to answer once the machine is ready.
const ANSWER: Duration = Duration::from_secs(120);

/// How long the machine may take to power off.
const POWER_OFF: Duration = Duration::from_secs(60);

/// Memory of the machine, in MiB.
const MEMORY_MIB: u32 = 1024;

/// Measures `first_answer`, `answer` with its floor, `answer_virtual`, `longest_phase`, `idle_pss` and
/// `idle_used`.
///
/// # Errors
/// The image cannot be built or does not boot.
pub fn boot(options: &Options, runs: usize) -> Result<Vec<Figure>> {
    host::ensure(host::BOOT, options.install)?;
    let artifacts = build::ensure(options)?;
    let folder = place::target(&options.source).join("bothy/bench/boot");
    std::fs::create_dir_all(&folder).map_err(Error::file("create", &folder))?;
    let accel = Accel::probe(&options.cache)?;
    eprintln!("bothy: {accel}, {MEMORY_MIB} MiB of memory, {runs} runs of each");
    let floor = Floor::make(options, &artifacts, &folder)?;
    let appliance = Appliance { artifacts: &artifacts, accel, firmware: false };
    let mut bench = Bench { retries: Retries::default(), limit: appliance.boot_limit() };

    let mut first = Vec::new();
    let mut disk = None;
    for _ in 0..runs.max(1) {
        let fresh = Disk::create(&artifacts.image, &folder.join("disk.img"))?;
        let functions = format!("\n[functions.{SAMPLE_FUNCTION}]\nimage = \"{SAMPLE_IMAGE}\"\n");
        let text = configuration(USER, PASSWORD) + &functions;
        fresh.write_boot_file("bothy.toml", text.as_bytes())?;
        let machine = with_memory(appliance.machine(&folder, &fresh)?);
        let (mut running, at) = bench.answered("first boot", &machine, seconds)?;
        first.push(at);
        running.ready(bench.limit)?;
        running.power_off(POWER_OFF)?;
        disk = Some((fresh, machine));
    }
    let Some((disk, machine)) = disk else { return Ok(Vec::new()) };

    let (mut answer, mut floors) = (Vec::new(), Vec::new());
    let mut memory = None;
    for run in 0..runs.max(1) {
        floors.push(bench.floor(&floor.machine(&machine, &disk))?.as_secs_f64());
        let (mut running, at) = bench.answered("second boot", &machine, seconds)?;
        answer.push(at);
        running.ready(bench.limit)?;
        if run + 1 == runs.max(1) {
            let _step = step("leave the machine alone, then measure its memory");
            std::thread::sleep(IDLE);
            memory = Some(used(&mut running)?);
        }
        running.power_off(POWER_OFF)?;
    }
    let mut counted = machine.clone();
    counted.counted = true;
    bench.limit *= 3;
    let (mut instructions, mut phases) = (Vec::new(), Vec::new());
    for _ in 0..runs.max(1) {
        let (mut running, count) = bench.answered("second boot, counting instructions", &counted, icount)?;
        instructions.extend(count);
        running.ready(bench.limit)?;
        phases.extend(longest_phase(&running)?);
        running.power_off(POWER_OFF * 3)?;
    }

    let figure = |name, value, unit| Figure::new(BENCH, name, value, unit);
    let floor = median(floors).unwrap_or_default();
    // Of what repeats the least is what it takes; the rest is how the emulator waits.
    let least = |values: Vec<f64>| values.into_iter().min_by(f64::total_cmp);
    let mut figures = vec![
        figure("answer", median(answer).unwrap_or_default(), "s").with_floor(floor),
        figure("first_answer", median(first).unwrap_or_default(), "s"),
    ];
    figures.extend(least(instructions).map(|count| figure("answer_virtual", count / 1e9, "s")));
    figures.extend(least(phases).map(|took| figure("longest_phase", took, "s")));
    if let Some((used, pss)) = memory {
        figures.push(figure("idle_pss", pss, "bytes"));
        figures.push(figure("idle_used", used, "bytes"));
    }
    if !bench.retries.met.is_empty() {
        eprintln!(
            "bothy: {} boots were run again because of a fault of the emulator",
            bench.retries.met.len()
        );
    }
    Ok(figures)
}

fn with_memory(mut machine: Machine) -> Machine {
    machine.memory_mib = MEMORY_MIB;
    machine
}

struct Bench {
    retries: Retries,
    limit: Duration,
}

impl Bench {
    /// Boots a machine until its function answers, and gives what is then `read`. It is asked as soon as it has an
    /// address: its socket is there before the gateway is.
    fn answered<T>(
        &mut self,
        what: &str,
        machine: &Machine,
        read: impl Fn(&mut Running, Duration) -> Result<T>,
    ) -> Result<(Running, T)> {
        let _step = step(what);
        let limit = self.limit;
        self.retries.run(|| {
            let mut running = machine.start()?;
            running.wait_for(r"network: .* has [0-9]+\.", limit)?;
            let gateway = Gateway::new(running.client());
            let ask = || gateway.call(SAMPLE_FUNCTION, "Bothy");
            let (_, at) =
                running.answer("the function's answer", ANSWER, ask, |answer| answer.status == 200)?;
            let read = read(&mut running, at)?;
            Ok((running, read))
        })
    }

    /// Boots the floor until containerd and NATS are ready.
    fn floor(&mut self, machine: &Machine) -> Result<Duration> {
        let _step = step("the floor");
        let limit = self.limit;
        self.retries.run(|| {
            let mut running = machine.start()?;
            let at = running.wait_for("^floor: ready", limit)?.at;
            // It powers off by itself: our next boot must find the disk as clean as after one of ours.
            running.wait_end(POWER_OFF)?;
            Ok(at)
        })
    }
}

/// When it answered, in seconds since the start.
fn seconds(_: &mut Running, at: Duration) -> Result<f64> {
    Ok(at.as_secs_f64())
}

/// How many instructions were executed so far.
fn icount(running: &mut Running, _: Duration) -> Result<Option<f64>> {
    let count = running.monitor().execute("query-replay", json!({}))?["icount"].as_u64();
    Ok(count.map(|count| count as f64))
}

/// The longest phase of the supervisor's way up, in seconds of the machine's clock, as its journal tells.
fn longest_phase(running: &Running) -> Result<Option<f64>> {
    let client = running.client().with_credentials(USER, PASSWORD);
    let ask = json!({"command": "logs", "boot": "0", "grep": "^phase .* took [0-9]+ ms$"}).to_string();
    let answer = client.post("/system/machine", &ask, ANSWER)?;
    let took = Regex::new("phase [a-z]+ took ([0-9]+) ms").ok();
    let times = took.iter().flat_map(|took| took.captures_iter(&answer.body));
    let longest = times.filter_map(|found| found.get(1)?.as_str().parse::<u32>().ok()).max();
    Ok(longest.map(|milliseconds| f64::from(milliseconds) / 1000.0))
}

/// Memory in use and the sum of all processes' share of it, in bytes, as the console tells when Enter is pressed.
fn used(running: &mut Running) -> Result<(f64, f64)> {
    let pattern = r"memory: used=([0-9]+) pss=([0-9]+)";
    let mark: Mark = running.console().mark();
    running.console().send(b"\r")?;
    let line = running.console().wait(pattern, mark, Duration::from_secs(30))?;
    let found = Regex::new(pattern).ok().and_then(|regex| {
        let numbers = regex.captures(&line.text)?;
        Some((numbers[1].parse().ok()?, numbers[2].parse().ok()?))
    });
    found.ok_or(Error::Late { what: pattern.to_owned(), waited: Duration::ZERO, tail: line.text })
}

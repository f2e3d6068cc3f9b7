//! Asynchronous calls: they are made, they survive a reset without a warning, and who makes them needs little meanwhile.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use image::qemu::READY;
use qemu_tests::{
    Case, Gateway, Inside, Running, SAMPLE_FUNCTION, SHELL_IMAGE, assert_clean, call_is_done, call_later,
    shell, shell_case,
};
use serde_json::{Value, json};

/// How long calls may take to end.
const LIMIT: Duration = Duration::from_secs(300);

/// How long the machine may take to start anew.
const AGAIN: Duration = Duration::from_secs(300);

/// What the worker may hold while it has nothing to do.
const IDLE_BYTES: u64 = 15 << 20;

/// Threads that make calls, and how many calls each.
const CALLERS: usize = 6;
const CALLS_EACH: usize = 5;

/// A call that cannot have ended when the machine is reset.
const SLOW: &str = "sleep 20; echo well";

#[test]
fn loses_no_call_and_costs_little() {
    shell_case("queue", |case| {
        let disk = case.used_disk()?;
        let mut running = case.up(&disk)?;
        let gateway = case.gateway(&running);
        case.answer(&mut running, SAMPLE_FUNCTION, "Bothy")?;
        gateway.deploy("slow", SHELL_IMAGE)?;
        case.answer(&mut running, "slow", "true")?;
        ready(&mut running)?;
        idle(case, &mut running, "before the first call")?;

        let began = Instant::now();
        let id = call_later(&mut running, &gateway, SAMPLE_FUNCTION, "Bothy")?;
        case.time("the first call is accepted".to_owned(), began.elapsed());
        let call = call_is_done(&mut running, &gateway, &id, LIMIT)?;
        case.time("it is done".to_owned(), began.elapsed());
        ensure!(call["function"] == "figlet.openfaas-fn" && call["attempts"] == 1, "the call is {call}");
        console(&mut running, &id)?;
        reset(case, &mut running, &gateway, &id)?;
        idle(case, &mut running, "after all calls")?;

        // Nobody waits for those that run.
        call_later(&mut running, &gateway, "slow", SLOW)?;
        case.power_off(running)?;
        assert_clean(case.artifacts(), &disk, case.folder())
    });
}

/// The supervisor says that the worker is there.
fn ready(running: &mut Running) -> Result<()> {
    let services = shell(running, "bothyctl services --json")?;
    let of = |line: &str| serde_json::from_str::<Value>(line).ok().filter(|s| s["name"] == "queue-worker");
    let worker = services.lines().find_map(of).with_context(|| format!("no queue-worker: {services}"))?;
    ensure!(worker["state"] == "ready" && worker["restarts"] == 0, "the queue-worker is {worker}");
    Ok(())
}

/// What people at the console see.
fn console(running: &mut Running, id: &str) -> Result<()> {
    let list = shell(running, "bothyctl queue list")?;
    ensure!(list == "no dead letters\n", "the dead letters are {list}");
    let status = shell(running, &format!("bothyctl queue status {id}"))?;
    for line in [&format!("call         {id}"), "state        done", "status       200"] {
        ensure!(status.lines().any(|shown| shown == line), "there is no {line:?} in\n{status}");
    }
    Ok(())
}

/// Many calls, and the machine is reset while they wait and run: all of them end after that.
fn reset(case: &mut Case, running: &mut Running, gateway: &Gateway, earlier: &str) -> Result<()> {
    let began = Instant::now();
    let callers: Vec<_> = (0..CALLERS)
        .map(|_| {
            let gateway = gateway.clone();
            thread::spawn(move || {
                (0..CALLS_EACH).map(|_| gateway.call_later(SAMPLE_FUNCTION, "Bothy")).collect::<Vec<_>>()
            })
        })
        .collect();
    let mut answers = Vec::new();
    for caller in callers {
        answers.extend(caller.join().map_err(|_| anyhow!("a caller panicked"))?);
    }
    answers.push(gateway.call_later("slow", SLOW));
    let mark = running.console().mark();
    running.monitor().execute("system_reset", json!({}))?;
    case.time(format!("{} calls are accepted", answers.len()), began.elapsed());
    running.console().wait(READY, mark, AGAIN)?;
    let began = Instant::now();
    let (mut before, mut slow) = (0, 0);
    let up = up_since(running)?;
    for answer in answers {
        let answer = answer?;
        ensure!(answer.status == 202, "a call was not accepted: {answer:?}");
        let call = call_is_done(running, gateway, &answer.call_id, LIMIT)?;
        let ended = call["since"].as_str().context("a call has no moment")?.to_owned();
        before += usize::from(ended < up);
        slow += usize::from(call["function"] == "slow.openfaas-fn" && ended >= up);
    }
    case.time(format!("all have ended since it is back, {before} of them before the reset"), began.elapsed());
    ensure!(slow == 1, "the call that ran at the reset ended before it");
    // What had ended long before is still known.
    call_is_done(running, gateway, earlier, LIMIT)?;
    console(running, earlier)
}

/// When the machine started, as calls tell their moments.
fn up_since(running: &mut Running) -> Result<String> {
    let script = "read up _ </proc/uptime; date -u -d @$(($(date +%s) - ${up%%.*})) +%Y-%m-%dT%H:%M:%SZ";
    Ok(shell(running, script)?.trim().to_owned())
}

/// What the worker holds when it has had nothing to do for a while.
fn idle(case: &mut Case, running: &mut Running, when: &str) -> Result<()> {
    const GROUP: &str = "/sys/fs/cgroup/system/queue-worker";
    thread::sleep(Duration::from_secs(15));
    let pid = Inside::look(running)?.of_group("system/queue-worker")?.pid;
    let figure = |running: &mut Running, command: &str| -> Result<u64> {
        let text = shell(running, command)?;
        text.trim().parse().with_context(|| format!("{command}: {text}"))
    };
    let group = figure(running, &format!("cat {GROUP}/memory.current"))?;
    let part = |name: &str| format!("awk '/^{name}:/ {{ print $2 * 1024 }}' /proc/{pid}/smaps_rollup");
    let (rss, pss) = (figure(running, &part("Rss"))?, figure(running, &part("Pss"))?);
    let used = format!("awk '/^usage_usec/ {{ print $2 }}' {GROUP}/cpu.stat");
    let before = figure(running, &used)?;
    let since = running.elapsed();
    thread::sleep(Duration::from_secs(20));
    let spent = Duration::from_micros(figure(running, &used)?.saturating_sub(before));
    case.time(format!("of {:?} of rest is the worker's own {when}", running.elapsed() - since), spent);
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    println!("{when}: group {:.1} MiB, RSS {:.1} MiB, PSS {:.1} MiB", mib(group), mib(rss), mib(pss));
    ensure!(
        group <= IDLE_BYTES && pss <= IDLE_BYTES,
        "{when} the idle worker holds {group} bytes, PSS {pss}, more than {IDLE_BYTES}"
    );
    Ok(())
}

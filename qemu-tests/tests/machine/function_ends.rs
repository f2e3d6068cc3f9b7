//! How functions end. One whose process ends comes back by itself, and the status says so until it has been well for a
//! while, or is deployed anew. What an instance left behind on the machine keeps the next one from nothing: that starts
//! beside it, a removal leaves nobody in the group, and a new gateway clears away what belongs to no instance.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use qemu_tests::{Case, Gateway, Inside, Running, SHELL_IMAGE, shell, shell_case};

const LIMIT: Duration = Duration::from_secs(120);
const GROUPS: &str = "/sys/fs/cgroup/workload/openfaas-fn";

#[test]
fn by_a_crash_and_with_leftovers() {
    shell_case("function_ends", |case| {
        let disk = case.used_disk()?;
        let mut running = case.up(&disk)?;
        let gateway = case.gateway(&running);
        leftovers(case, &mut running, &gateway).context("leftovers")?;
        crash(case, &mut running, &gateway).context("a crash")?;
        case.power_off(running)
    });
}

fn leftovers(case: &mut Case, running: &mut Running, gateway: &Gateway) -> Result<()> {
    gateway.deploy("first", SHELL_IMAGE)?;
    case.answer(running, "first", "true")?;

    // As after a cleanup of containerd's that was cut off, and of its runtime's.
    shell(running, "mkdir -p /run/containerd/io.containerd.runtime.v2.task/openfaas-fn/second.0")?;
    shell(running, &format!("mkdir {GROUPS}/second.1"))?;
    stranger(running, "second.1", 3001)?;
    gateway.deploy("second", SHELL_IMAGE)?;
    ensure!(case.answer(running, "second", "echo well")? == "well\n");
    ensure!(groups(running)? == ["first.0", "second.1", "second.2"], "{:?}", groups(running)?);

    shell(running, &format!("mkdir {GROUPS}/second.2/below"))?;
    stranger(running, "second.2/below", 3002)?;
    gateway.remove("second")?;
    ensure!(groups(running)? == ["first.0", "second.1"], "{:?}", groups(running)?);
    ensure!(strangers(running)? == ["3001"], "{:?}", strangers(running)?);

    let inside = Inside::look(running)?;
    let stack = inside.processes.iter().find(|process| process.group == "system/gateway");
    shell(running, &format!("kill -9 {}", stack.context("there is no gateway")?.pid))?;
    let began = Instant::now();
    while groups(running)? != ["first.0"] || !strangers(running)?.is_empty() {
        ensure!(began.elapsed() < LIMIT, "{:?} are left", groups(running)?);
    }
    ensure!(case.answer(running, "first", "echo well")? == "well\n");
    Ok(())
}

/// A process in a group that nobody started there; told apart by how long it sleeps.
fn stranger(running: &mut Running, group: &str, seconds: u32) -> Result<()> {
    let script = format!("echo 0 >{GROUPS}/{group}/cgroup.procs; exec sleep {seconds}");
    shell(running, &format!("setsid sh -c '{script}' >/dev/null 2>&1 </dev/null &"))?;
    let began = Instant::now();
    while !strangers(running)?.contains(&seconds.to_string()) {
        ensure!(began.elapsed() < LIMIT, "the process does not start");
    }
    Ok(())
}

/// The strangers that live, by their time.
fn strangers(running: &mut Running) -> Result<Vec<String>> {
    let all = Inside::look(running)?.processes;
    Ok(all.iter().filter_map(|process| process.command.strip_prefix("sleep ").map(str::to_owned)).collect())
}

fn groups(running: &mut Running) -> Result<Vec<String>> {
    let all = shell(running, &format!("cd {GROUPS} && ls -d *.*[0-9] | grep -E '^(first|second)' | sort"))?;
    Ok(all.lines().map(str::to_owned).collect())
}

/// When the function's first process was started, in ticks since the machine's boot: proc_pid_stat(5), field 22.
fn started(case: &mut Case, running: &mut Running) -> Result<u64> {
    let stat = case.answer(running, "shell", "cat /proc/1/stat")?;
    let after_name = stat.rsplit_once(") ").context("no stat")?.1;
    after_name.split(' ').nth(19).context("stat is too short")?.parse().context("stat has no start time")
}

const NOTICE: &str = "notice: function shell.openfaas-fn: its process ";

/// Waits until the status says that the function ended, or no longer does.
fn noticed(running: &mut Running, wanted: bool) -> Result<Duration> {
    let began = Instant::now();
    loop {
        let status = running.shell("bothyctl status; true")?.output;
        if status.contains(NOTICE) == wanted {
            return Ok(began.elapsed());
        }
        ensure!(began.elapsed() < Duration::from_secs(180), "noticed is not {wanted}: {status}");
        running.check()?;
    }
}

fn crash(case: &mut Case, running: &mut Running, gateway: &Gateway) -> Result<()> {
    gateway.deploy("shell", SHELL_IMAGE)?;
    let first = started(case, running)?;
    for crash in 1..=2 {
        let before = started(case, running)?;
        // The caller of the call that kills it may get any answer, or none.
        let killed = gateway.call("shell", "kill -TERM 1; sleep 1");
        println!("crash {crash}: the caller got {killed:?}");
        let again = running.elapsed();
        let mut after = before;
        while after == before {
            ensure!(running.elapsed() - again < Duration::from_secs(60), "the function did not come back");
            after = started(case, running)?;
        }
        ensure!(after > before, "the function's process was started at {before}, then at {after}");
        let took = running.elapsed() - again;
        case.time(format!("crash {crash}: back"), took);
    }
    ensure!(started(case, running)? > first);
    noticed(running, true)?;
    let lines = running.shell("bothyctl logs --service gateway --lines 50")?.output;
    ensure!(lines.contains("shell.openfaas-fn: its process "), "{lines}");
    let body = serde_json::json!({"service": "shell", "image": SHELL_IMAGE}).to_string();
    let again =
        gateway.client().request("PUT", "/system/functions", Some(&body), Duration::from_secs(120))?;
    ensure!(again.status < 300, "the deployment was answered with {again:?}");
    noticed(running, false)?;
    let killed = gateway.call("shell", "kill -TERM 1; sleep 1");
    println!("crash of the new one: the caller got {killed:?}");
    noticed(running, true)?;
    let took = noticed(running, false)?;
    case.time("the notice goes".to_owned(), took);
    Ok(())
}

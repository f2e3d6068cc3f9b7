//! What an instance of a function left behind on the machine: the next one starts beside it, a removal leaves nobody in
//! the group, and a new gateway clears away what belongs to no instance.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use qemu_tests::{Inside, Running, SHELL_IMAGE, shell, shell_case};

const LIMIT: Duration = Duration::from_secs(120);
const GROUPS: &str = "/sys/fs/cgroup/workload/openfaas-fn";

#[test]
fn keep_nobody_from_starting_and_go() {
    shell_case("leftovers", |case| {
        let disk = case.disk(None)?;
        let mut running = case.up(&disk)?;
        let gateway = case.gateway(&running);
        gateway.deploy("first", SHELL_IMAGE)?;
        case.answer(&mut running, "first", "true")?;

        // As after a cleanup of containerd's that was cut off, and of its runtime's.
        shell(&mut running, "mkdir -p /run/containerd/io.containerd.runtime.v2.task/openfaas-fn/second.0")?;
        shell(&mut running, &format!("mkdir {GROUPS}/second.1"))?;
        stranger(&mut running, "second.1", 3001)?;
        gateway.deploy("second", SHELL_IMAGE)?;
        ensure!(case.answer(&mut running, "second", "echo well")? == "well\n");
        ensure!(groups(&mut running)? == ["first.0", "second.1", "second.2"], "{:?}", groups(&mut running)?);

        shell(&mut running, &format!("mkdir {GROUPS}/second.2/below"))?;
        stranger(&mut running, "second.2/below", 3002)?;
        let body = "{\"functionName\":\"second\"}";
        let gone = gateway.client().request("DELETE", "/system/functions", Some(body), LIMIT)?;
        ensure!(gone.status < 300, "the removal was answered with {gone:?}");
        ensure!(groups(&mut running)? == ["first.0", "second.1"], "{:?}", groups(&mut running)?);
        ensure!(strangers(&mut running)? == ["3001"], "{:?}", strangers(&mut running)?);

        let inside = Inside::look(&mut running)?;
        let stack = inside.processes.iter().find(|process| process.group == "system/gateway");
        shell(&mut running, &format!("kill -9 {}", stack.context("there is no gateway")?.pid))?;
        let began = Instant::now();
        while groups(&mut running)? != ["first.0"] || !strangers(&mut running)?.is_empty() {
            ensure!(began.elapsed() < LIMIT, "{:?} are left", groups(&mut running)?);
        }
        ensure!(case.answer(&mut running, "first", "echo well")? == "well\n");
        case.power_off(running)
    });
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

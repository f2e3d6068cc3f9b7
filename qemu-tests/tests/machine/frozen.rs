//! A function that is frozen while it is scaled to none: the same process answers the next call, whoever died meanwhile, and
//! after a reset another one.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use image::qemu::READY;
use qemu_tests::{
    BOTHY, Case, Inside, Running, SAMPLE_FUNCTION, SAMPLE_IMAGE, SHELL_IMAGE, journal, shell, shell_case,
};
use serde_json::{Value, json};

/// How long the machine may take to freeze it, or to be well again.
const SOON: Duration = Duration::from_secs(120);

/// How long it may take to start anew.
const AGAIN: Duration = Duration::from_secs(300);

/// The function's processes: number and start.
fn processes(running: &mut Running) -> Result<Vec<(i32, u64)>> {
    let inside = Inside::look(running)?;
    let group = format!("workload/openfaas-fn/{SAMPLE_FUNCTION}.");
    let of_function: Vec<_> = inside.processes.iter().filter(|p| p.group.starts_with(&group)).collect();
    ensure!(!of_function.is_empty(), "the function has no process: {:?}", inside.processes);
    Ok(of_function.iter().map(|p| (p.pid, p.started)).collect())
}

/// Scales it to none, and waits until the kernel says that it stands still.
fn freeze(case: &Case, running: &mut Running) -> Result<()> {
    let gateway = case.gateway(running);
    gateway.scale(SAMPLE_FUNCTION, 0)?;
    is_frozen(running)?;
    let described = gateway.client().get(&format!("/system/function/{SAMPLE_FUNCTION}"), SOON)?;
    let described: Value = serde_json::from_str(&described.body).context("the description is no JSON")?;
    ensure!(described.get("availableReplicas").is_none(), "it is frozen, and shown as {described}");
    Ok(())
}

fn is_frozen(running: &mut Running) -> Result<()> {
    let began = Instant::now();
    loop {
        let events = shell(running, "cat /sys/fs/cgroup/workload/openfaas-fn/figlet.*/cgroup.events")?;
        if events.contains("frozen 1") {
            return Ok(());
        }
        ensure!(began.elapsed() < SOON, "it is not frozen: {events}");
    }
}

/// Waits until an instance is there whose process waits to begin.
fn is_prepared(running: &mut Running, function: &str) -> Result<()> {
    let began = Instant::now();
    loop {
        let waiting =
            running.shell(&format!("ls -d /run/containerd/runc/openfaas-fn/{function}.*/exec.fifo"))?;
        if waiting.status == 0 {
            return Ok(());
        }
        ensure!(began.elapsed() < SOON, "no instance is prepared: {}", waiting.output);
    }
}

/// A function with a call that no gateway waits for, and that takes three seconds to end and says so when it has.
fn deploy_slow(case: &mut Case, running: &mut Running) -> Result<()> {
    let script = "trap 'busybox sleep 3; echo the-last-word >&2; exit' TERM; echo well; while :; do busybox sleep 1; done";
    let slow = json!({"service": "slow", "image": SHELL_IMAGE, "envVars": {"SCRIPT": script}});
    case.gateway(running).deploy_document(&slow)?;
    // In a session of its own: what a call leaves in its own ends with it.
    let call = "(trap '' TERM; exec busybox setsid busybox wget -qO /tmp/answer --post-data \"$SCRIPT\" http://127.0.0.1:8080/) \
                >/dev/null 2>&1 & until busybox grep well /tmp/answer; do busybox sleep 0.2; done";
    let answer = case.answer(running, "slow", call)?;
    ensure!(answer.ends_with("well\n"), "the call from inside gave {answer:?}");
    Ok(())
}

#[test]
fn answers_again_whoever_died() {
    shell_case("frozen", |case| {
        let disk = case.used_disk()?;
        let mut running = case.up(&disk)?;
        let gateway = case.gateway(&running);
        let labels = json!({"com.bothy.scale.zero-state": "frozen"});
        let body = json!({"service": SAMPLE_FUNCTION, "image": SAMPLE_IMAGE, "labels": labels}).to_string();
        let updated = gateway.client().request("PUT", "/system/functions", Some(&body), SOON)?;
        ensure!(updated.status == 200, "the update was answered with {updated:?}");
        case.answer(&mut running, SAMPLE_FUNCTION, "Bothy")?;
        let before = processes(&mut running)?;
        for killed in ["nobody", "gateway", "containerd"] {
            freeze(case, &mut running)?;
            if killed != "nobody" {
                let pid = Inside::look(&mut running)?.of_group(&format!("system/{killed}"))?.pid;
                shell(&mut running, &format!("kill -9 {pid}"))?;
            }
            // Without containerd too: it is the gateway that lets it go on.
            ensure!(case.answer(&mut running, SAMPLE_FUNCTION, "Bothy")? == BOTHY);
            let after = processes(&mut running)?;
            ensure!(
                before == after,
                "{killed} was killed: the function's processes were {before:?} and are {after:?}"
            );
            case.status(&mut running, "/healthz", 200)?;
        }
        // Ended while it stands still: the next call finds another.
        freeze(case, &mut running)?;
        shell(&mut running, &format!("kill -9 {}", before[0].0))?;
        ensure!(case.answer(&mut running, SAMPLE_FUNCTION, "Bothy")? == BOTHY);
        ensure!(processes(&mut running)? != before);
        freeze(case, &mut running)?;
        // Beside one that is prepared.
        gateway.deploy("other", SAMPLE_IMAGE)?;
        gateway.scale("other", 0)?;
        is_prepared(&mut running, "other")?;
        // What stood still is gone with the memory: it is at hand as one that has not begun, and still scaled to none.
        let mark = running.console().mark();
        running.monitor().execute("system_reset", json!({}))?;
        running.console().wait(READY, mark, AGAIN)?;
        is_prepared(&mut running, "figlet")?;
        is_prepared(&mut running, "other")?;
        let described = case.status(&mut running, &format!("/system/function/{SAMPLE_FUNCTION}"), 200)?;
        let described: Value = serde_json::from_str(&described.body).context("the description is no JSON")?;
        let count = |field| described.get(field).and_then(Value::as_u64).unwrap_or(0);
        ensure!(count("replicas") == 0 && count("availableReplicas") == 0, "after a reset: {described}");
        ensure!(case.answer(&mut running, SAMPLE_FUNCTION, "Bothy")? == BOTHY);
        freeze(case, &mut running)?;
        gateway.remove(SAMPLE_FUNCTION)?;
        let groups = shell(&mut running, "ls /sys/fs/cgroup/workload/openfaas-fn")?;
        ensure!(!groups.contains("figlet"), "{groups}");
        deploy_slow(case, &mut running)?;
        case.power_off(running)?;
        let said = journal(case.artifacts(), &disk, case.folder(), &["BOTHY_FUNCTION=slow", "--output=cat"])?;
        ensure!(said.contains("the-last-word"), "it was killed before it had ended:\n{said}");
        Ok(())
    });
}

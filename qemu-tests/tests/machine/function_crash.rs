//! A function whose process ends comes back by itself; the status says so until it has been well for a while, or is
//! deployed anew.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use qemu_tests::{Case, Running, SHELL_IMAGE, shell_case};

/// When the function's first process was started, in ticks since the machine's boot: proc_pid_stat(5), field 22.
fn started(case: &mut Case, running: &mut Running) -> Result<u64> {
    let stat = case.answer(running, "shell", "cat /proc/1/stat")?;
    let after_name = stat.rsplit_once(") ").context("no stat")?.1;
    after_name.split(' ').nth(19).context("stat is too short")?.parse().context("stat has no start time")
}

const NOTICE: &str = "notice: function shell.openfaas-fn: its process ended";

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

#[test]
fn comes_back() {
    shell_case("function_crash", |case| {
        let disk = case.disk(None)?;
        let mut running = case.up(&disk)?;
        let gateway = case.gateway(&running);
        gateway.deploy("shell", SHELL_IMAGE)?;
        let first = started(case, &mut running)?;
        for crash in 1..=2 {
            let before = started(case, &mut running)?;
            // The caller of the call that kills it may get any answer, or none.
            let killed = gateway.call("shell", "kill -TERM 1; sleep 1");
            println!("crash {crash}: the caller got {killed:?}");
            let again = running.elapsed();
            let mut after = before;
            while after == before {
                ensure!(
                    running.elapsed() - again < Duration::from_secs(60),
                    "the function did not come back"
                );
                after = started(case, &mut running)?;
            }
            ensure!(after > before, "the function's process was started at {before}, then at {after}");
            let took = running.elapsed() - again;
            case.time(format!("crash {crash}: back"), took);
        }
        ensure!(started(case, &mut running)? > first);
        noticed(&mut running, true)?;
        let lines = running.shell("bothyctl logs --service gateway --lines 50")?.output;
        ensure!(lines.contains("shell.openfaas-fn: its process ended"), "{lines}");
        let body = serde_json::json!({"service": "shell", "image": SHELL_IMAGE}).to_string();
        let again =
            gateway.client().request("PUT", "/system/functions", Some(&body), Duration::from_secs(120))?;
        ensure!(again.status < 300, "the deployment was answered with {again:?}");
        noticed(&mut running, false)?;
        let killed = gateway.call("shell", "kill -TERM 1; sleep 1");
        println!("crash of the new one: the caller got {killed:?}");
        noticed(&mut running, true)?;
        let took = noticed(&mut running, false)?;
        case.time("the notice goes".to_owned(), took);
        case.power_off(running)
    });
}

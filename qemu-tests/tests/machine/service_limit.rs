//! A service that is killed as soon as it is back, twenty times and more: the pauses grow and are forgotten when it was
//! well, and one that has used its limit is shown with what to do.

/// Minutes of pauses: longer than every change should wait.
mod long {
    use std::time::{Duration, Instant};

    use anyhow::{Context, Result, ensure};
    use qemu_tests::{Inside, Running, shell_case};
    use serde_json::Value;

    const SERVICE: &str = "nats";
    /// How often it is killed and must come back.
    const IN_A_ROW: usize = 20;
    /// What it has until it counts as failed: more than that many ends in ten minutes (init, `service/appliance.rs`).
    const MOST: usize = 24;
    /// How long one return may take, pause included, on a busy host.
    const LIMIT: Duration = Duration::from_secs(180);
    /// Seconds: the longest pause is ten at least, the first one none.
    const LONG: u64 = 9;

    #[test]
    fn pauses_grow_and_end_and_giving_up_is_said() {
        shell_case("service_limit", |case| {
            let disk = case.disk(None)?;
            let mut running = case.up(&disk)?;
            let mut pauses = Vec::new();
            for turn in 1..=IN_A_ROW {
                kill(&mut running)?;
                let (pause, state) = back(&mut running, turn)?;
                ensure!(state == "ready", "after end {turn} it is {state}");
                pauses.push(pause);
            }
            println!("pauses in seconds: {pauses:?}");
            let long = |pauses: &[u64]| pauses.iter().filter(|pause| **pause >= LONG).count();
            ensure!(long(&pauses[..4]) == 0 && long(&pauses[10..]) == 10, "{pauses:?}");
            let said = shell(&mut running, "bothyctl status; true")?;
            ensure!(said.contains("again and again") && !said.contains("too often"), "{said}");

            let began = Instant::now();
            while !service(&mut running)?["trouble"].is_null() {
                ensure!(began.elapsed() < LIMIT, "its weakness is not forgotten");
            }
            case.time("well for long enough".to_owned(), began.elapsed());
            kill(&mut running)?;
            let (pause, _) = back(&mut running, IN_A_ROW + 1)?;
            ensure!(pause < LONG, "after it was well it came back after {pause} s");

            let mut turn = IN_A_ROW + 1;
            let state = loop {
                kill(&mut running)?;
                turn += 1;
                let (_, state) = back(&mut running, turn)?;
                if state != "ready" {
                    break state;
                }
                ensure!(turn <= MOST, "it ended {turn} times and is {state}");
            };
            ensure!(state == "failed" && turn == MOST + 1, "after {turn} ends it is {state}");
            let said = shell(&mut running, "bothyctl status; true")?;
            let told = "service nats: ended with signal 9 (killed), too often: tried again every 5 minutes";
            ensure!(said.contains(told) && said.contains("look at `bothyctl services nats`"), "{said}");
            let shown = shell(&mut running, "bothyctl services nats; true")?;
            ensure!(shown.lines().filter(|line| line.contains("(killed)")).count() >= 10, "{shown}");
            case.power_off(running)
        });
    }

    fn shell(running: &mut Running, command: &str) -> Result<String> {
        Ok(running.shell(command)?.output)
    }

    fn service(running: &mut Running) -> Result<Value> {
        let status = Inside::look(running)?.status;
        let all = status["services"].as_array().context("no services")?;
        all.iter().find(|service| service["name"] == SERVICE).cloned().context("there is no such service")
    }

    fn kill(running: &mut Running) -> Result<()> {
        let pid = service(running)?["pid"].as_i64().context("it has no process")?;
        shell(running, &format!("kill -9 {pid}")).map(drop)
    }

    /// Waits until it is ready after so many ends, or has failed. Gives the pause in seconds, and the state.
    fn back(running: &mut Running, ends: usize) -> Result<(u64, String)> {
        let began = Instant::now();
        loop {
            let now = service(running)?;
            let state = now["state"].as_str().unwrap_or_default().to_owned();
            let restarts = usize::try_from(now["restarts"].as_u64().unwrap_or(0))?;
            if state == "failed" {
                return Ok((0, state));
            }
            if state == "ready" && restarts == ends {
                let inside = Inside::look(running)?;
                let pid = now["pid"].as_i64();
                let process = inside.processes.iter().find(|process| Some(i64::from(process.pid)) == pid);
                let started = process.context("its process is not there")?.started / 100;
                let ended = now["ends"].as_array().and_then(|ends| ends.last()?["uptime"].as_u64());
                return Ok((started.saturating_sub(ended.context("it has no ends")?), state));
            }
            ensure!(began.elapsed() < LIMIT, "after end {ends} it does not come back: {now}");
            running.check()?;
        }
    }
}

//! The end of a machine that has much to do: soon, and with nothing left to repair.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use qemu_tests::{BOTHY, SAMPLE_FUNCTION, SAMPLE_IMAGE, SHELL_IMAGE, assert_clean, journal, shell_case};
use serde_json::json;

/// Functions that only wait.
const MANY: usize = 18;

#[test]
fn with_twenty_functions_of_which_one_is_deaf_and_one_never_rests() {
    shell_case("shutdown", |case| {
        let disk = case.used_disk()?;
        let mut machine = case.machine(&disk)?;
        machine.memory_mib = 2048;
        let mut running = case.boot(&machine)?;
        let gateway = case.gateway(&running);
        for number in 0..MANY {
            gateway.deploy(&format!("f{number}"), SAMPLE_IMAGE)?;
        }
        // Both hear no SIGTERM: one sleeps, one does not.
        for name in ["deaf", "restless"] {
            gateway.deploy_document(&json!({ "service": name, "image": SHELL_IMAGE }))?;
        }
        for number in 0..MANY {
            ensure!(case.answer(&mut running, &format!("f{number}"), "Bothy")? == BOTHY);
        }
        // Their calls end with the machine.
        for (name, act) in [("deaf", "busybox sleep 1000"), ("restless", ":")] {
            let gateway = gateway.clone();
            let script = format!("trap '' TERM INT HUP; while :; do {act}; done");
            std::thread::spawn(move || drop(gateway.call(name, &script)));
        }
        let group = |name: &str| format!("/sys/fs/cgroup/workload/openfaas-fn/{name}.*");
        let count = format!("cat {}/cgroup.procs {}/cgroup.procs | wc -l", group("deaf"), group("restless"));
        let began = std::time::Instant::now();
        // Two watchdogs, two shells, and what the deaf one waits for.
        while running.shell(&count)?.output.trim() != "5" {
            ensure!(
                began.elapsed() < Duration::from_secs(60),
                "the two do not run: {}",
                running.shell(&count)?.output
            );
        }
        // It is there, and takes what a processor can give.
        let stat = format!("cat {}/cpu.stat", group("restless"));
        let busy = running.shell(&format!("{stat}; sleep 2; {stat}"))?;
        let used: Vec<u64> = busy
            .output
            .lines()
            .filter_map(|line| line.strip_prefix("usage_usec ")?.trim().parse().ok())
            .collect();
        let [before, after] =
            used.get(..2).and_then(|both| both.try_into().ok()).context(busy.output.clone())?;
        ensure!(after - before > 200_000, "the function that never rests used {} us", after - before);
        case.power_off(running)?;
        assert_clean(case.artifacts(), &disk, case.folder())?;
        let said =
            journal(case.artifacts(), &disk, case.folder(), &["SYSLOG_IDENTIFIER=init", "--output=cat"])?;
        ensure!(!said.contains("is killed"), "a service had to be killed:\n{said}");
        Ok(())
    });
}

/// A reset keeps the system and nothing else.
#[test]
fn a_reset_leaves_nothing_behind() {
    shell_case("factory_reset", |case| {
        const SECRET: &str = "the-cow-jumps-over-the-moon";
        let disk = case.used_disk()?;
        let mut running = case.up(&disk)?;
        case.answer(&mut running, SAMPLE_FUNCTION, "Bothy")?;
        let made = running.shell(&format!(
            "mkdir -p /var/lib/bothy/secrets/openfaas-fn && echo {SECRET} > /var/lib/bothy/secrets/openfaas-fn/token && \
             sync && cat /var/lib/bothy/machine-id"
        ))?;
        ensure!(made.status == 0, "{}", made.output);
        let mark = running.console().mark();
        let asked = running.shell("bothyctl reset --yes")?;
        ensure!(asked.status == 0, "bothyctl reset: {}", asked.output);
        let limit = Duration::from_secs(300);
        running.console().wait("^bothy: reset", mark, limit)?;
        running.console().wait("^bothy: erasing data", mark, limit)?;
        running.console().wait(image::qemu::READY, mark, limit)?;
        let list = case.status(&mut running, "/system/functions", 200)?;
        ensure!(list.body.trim() == "[]", "functions are left: {}", list.body);
        let after = running.shell("cat /var/lib/bothy/machine-id; ls /var/lib/bothy/secrets")?;
        let before = made.output.lines().last().context("there was no machine-id")?;
        ensure!(!after.output.contains(before), "the machine-id is the old one: {}", after.output);
        case.power_off(running)?;
        assert_clean(case.artifacts(), &disk, case.folder())?;
        let partition = disk.extract("data", case.folder())?;
        ensure!(!contains(&partition.path, SECRET)?, "the secret can still be read from the disk");
        Ok(())
    });
}

/// Whether a file has a text anywhere.
fn contains(path: &std::path::Path, text: &str) -> Result<bool> {
    let found = std::process::Command::new("grep").args(["-qaF", text]).arg(path).status()?;
    match found.code() {
        Some(0) => Ok(true),
        Some(1) => Ok(false),
        _ => bail!("grep in {}: {found}", path.display()),
    }
}

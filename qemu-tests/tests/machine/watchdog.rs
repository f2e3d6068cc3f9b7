//! A supervisor that hangs: the hardware watchdog restarts the machine, and the machine says so.

use std::time::Duration;

use anyhow::ensure;
use image::qemu::READY;
use qemu_tests::{BOTHY, Inside, SAMPLE_FUNCTION, shell, shell_case};

/// The supervisor may be silent for 60 s; then the hardware's 30 s run out. A busy host's clock runs ahead.
const RESET: Duration = Duration::from_secs(200);
const BOOT: Duration = Duration::from_secs(300);

#[test]
fn restarts_a_machine_that_hangs() {
    shell_case("watchdog", |case| {
        let disk = case.used_disk()?;
        let mut machine = case.machine(&disk)?;
        machine.watchdog = true;
        let mut running = case.boot(&machine)?;
        case.answer(&mut running, SAMPLE_FUNCTION, "Bothy")?;

        // What the hardware has, as it is read back, and as it was said.
        let armed = "timeout state identity";
        let facts = shell(&mut running, &format!("cd /sys/class/watchdog/watchdog0 && cat {armed}"))?;
        ensure!(facts.lines().collect::<Vec<_>>() == ["30", "active", "i6300ESB timer"], "{armed}: {facts}");
        let said = shell(&mut running, "dmesg | grep -i watchdog0")?;
        ensure!(said.contains("asked for 30 s, has 30 s"), "{said}");

        // It is fed by more than the process that holds it: process 1 goes on when the supervisor hangs.
        let hung = Inside::look(&mut running)?.of_group("init")?.pid;
        let (mark, began) = (running.console().mark(), running.elapsed());
        shell(&mut running, &format!("kill -STOP {hung}"))?;
        let hungry = running.console().wait("the hardware watchdog is not fed any more", mark, RESET)?;
        let took = hungry.at.saturating_sub(began);
        case.time("supervisor hung: not fed any more".to_owned(), took);
        // Not by anything else than that time: it has 60 s to be silent in.
        ensure!(took > Duration::from_secs(55), "not fed after {:.1} s already", took.as_secs_f64());
        running.console().wait("the hardware watchdog restarted this machine", mark, BOOT)?;
        running.console().wait(READY, mark, BOOT)?;
        ensure!(case.answer(&mut running, SAMPLE_FUNCTION, "Bothy")? == BOTHY);
        let facts = shell(&mut running, "cat /sys/class/watchdog/watchdog0/timeout")?;
        ensure!(facts.trim() == "30", "after the restart the time-out is {facts}");
        case.power_off(running)
    });
}

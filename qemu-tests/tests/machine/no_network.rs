//! Without a network card the machine comes up all the same, and says what it lacks.

use std::time::Duration;

use anyhow::ensure;
use qemu_tests::{Mark, case};

#[test]
fn comes_up_and_says_so() {
    case("no_network", |case| {
        let disk = case.disk(None)?;
        let mut machine = case.machine(&disk)?;
        machine.network = false;
        let running = case.boot(&machine)?;
        let said = running.console().find("(?i)no network", Mark::default())?;
        ensure!(
            said.is_some(),
            "the console does not say that there is no network:\n{}",
            running.console().tail(20)
        );
        // The console is not only for reading.
        let mark = running.console().mark();
        running.console().send(b"\r")?;
        running.console().wait("memory: used=[0-9]+ pss=[0-9]+", mark, Duration::from_secs(30))?;
        case.power_off(running)
    });
}

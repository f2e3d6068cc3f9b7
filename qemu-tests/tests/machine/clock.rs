//! A clock that is wrong: far behind it is put right, far ahead nothing breaks, and its mark does not stay.

use anyhow::{Context, Result, ensure};
use qemu_tests::{BOTHY, Case, Running, SAMPLE_FUNCTION, SAMPLE_IMAGE, case};

// A clock chip has two digits for the year, and the kernel takes those from 70 on for the last century: 2069 is as far
// ahead as one can be. (A running clock is set to 2090 in `services`.)

/// The year that the machine's gateway writes into its answers.
fn year(case: &mut Case, running: &mut Running) -> Result<u32> {
    let answer = case.status(running, "/healthz", 200)?;
    let date = answer.date;
    // As in `Sun, 06 Nov 1994 08:49:37 GMT`.
    date.split(' ').nth(3).and_then(|year| year.parse().ok()).with_context(|| format!("the date is {date}"))
}

#[test]
fn of_1970_and_of_2069() {
    case("clock", |case| {
        let disk = case.disk(None)?;
        for (clock, from, to) in [
            ("1970-01-01T00:00:30", 2026, 2060),
            ("2069-06-01T12:00:00", 2069, 2069),
            ("2027-01-02T03:04:05", 2026, 2060),
        ] {
            let mut machine = case.machine(&disk)?;
            machine.clock = Some(clock.to_owned());
            let mut running = case.boot(&machine)?;
            let year = year(case, &mut running)?;
            ensure!((from..=to).contains(&year), "with a clock of {clock} the machine is in {year}");
            // The first boot makes it, the others find it, and each can have it anew.
            if from == 2026 && to == 2060 && clock.starts_with("1970") {
                case.gateway(&running).deploy(SAMPLE_FUNCTION, SAMPLE_IMAGE)?;
            }
            let answer = case.answer(&mut running, SAMPLE_FUNCTION, "Bothy")?;
            ensure!(answer == BOTHY, "{clock}: figlet wrote:\n{answer}");
            let name = format!("of-{}", clock.get(..4).unwrap_or_default());
            case.gateway(&running).deploy(&name, SAMPLE_IMAGE)?;
            ensure!(case.answer(&mut running, &name, "Bothy")? == BOTHY);
            case.power_off(running)?;
        }
        Ok(())
    });
}

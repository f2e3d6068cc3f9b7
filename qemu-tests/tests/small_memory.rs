//! 256 MB of memory are enough.

use anyhow::ensure;
use qemu_tests::{BOTHY, SAMPLE_FUNCTION, SAMPLE_IMAGE, case};

#[test]
fn function_answers_in_256_mb() {
    case("small_memory", |case| {
        let disk = case.disk(None)?;
        let mut machine = case.machine(&disk)?;
        machine.memory_mib = 256;
        let mut running = case.boot(&machine)?;
        case.gateway(&running).deploy(SAMPLE_FUNCTION, SAMPLE_IMAGE)?;
        let answer = case.answer(&mut running, SAMPLE_FUNCTION, "Bothy")?;
        ensure!(answer == BOTHY, "figlet wrote:\n{answer}");
        let killed = running.console().find("Out of memory|oom-kill", qemu_tests::Mark::default())?;
        ensure!(killed.is_none(), "something was killed for lack of memory: {killed:?}");
        case.power_off(running)
    });
}

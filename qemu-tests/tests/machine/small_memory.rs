//! 192 MB of memory are enough for a kernel that is started directly, 256 MB through firmware.

use anyhow::ensure;
use qemu_tests::{BOTHY, Mark, SAMPLE_FUNCTION, SAMPLE_IMAGE, case};

#[test]
fn function_answers_in_192_mb() {
    answers("small_memory", 192, false);
}

#[test]
fn function_answers_in_256_mb_through_firmware() {
    answers("small_memory_firmware", 256, true);
}

fn answers(name: &str, memory_mib: u32, firmware: bool) {
    case(name, |case| {
        case.firmware = firmware;
        let disk = case.disk(None)?;
        let mut machine = case.machine(&disk)?;
        machine.memory_mib = memory_mib;
        let mut running = case.boot(&machine)?;
        case.gateway(&running).deploy(SAMPLE_FUNCTION, SAMPLE_IMAGE)?;
        let answer = case.answer(&mut running, SAMPLE_FUNCTION, "Bothy")?;
        ensure!(answer == BOTHY, "figlet wrote:\n{answer}");
        let killed = running.console().find("Out of memory|oom-kill", Mark::default())?;
        ensure!(killed.is_none(), "something was killed for lack of memory: {killed:?}");
        case.power_off(running)
    });
}

//! From a fresh disk to a function that answers, without any network but our own forwarded port, in as little memory as
//! is promised: 192 MB for a kernel that is started directly, 256 MB through firmware.

use std::time::Duration;

use anyhow::{Result, ensure};
use qemu_tests::{BOTHY, Case, Mark, SAMPLE_FUNCTION, SAMPLE_IMAGE, case};

fn function_answers(case: &mut Case, memory_mib: u32) -> Result<()> {
    let disk = case.disk(None)?;
    let mut machine = case.machine(&disk)?;
    machine.memory_mib = memory_mib;
    let mut running = case.boot(&machine)?;
    case.status(&mut running, "/healthz", 200)?;
    let gateway = case.gateway(&running);
    ensure!(!gateway.has(SAMPLE_FUNCTION)?, "a fresh machine has a function that nobody deployed");
    gateway.deploy(SAMPLE_FUNCTION, SAMPLE_IMAGE)?;
    let answer = case.answer(&mut running, SAMPLE_FUNCTION, "Bothy")?;
    ensure!(answer == BOTHY, "figlet wrote:\n{answer}");

    // Nobody without the password deploys or lists; everybody may call.
    let stranger = running.client();
    let limit = Duration::from_secs(30);
    for path in ["/system/functions", "/system/info", "/system/function/figlet"] {
        let status = stranger.get(path, limit)?.status;
        ensure!(status == 401, "{path} without credentials: {status}");
    }
    let wrong = stranger.with_credentials("admin", "guess").get("/system/functions", limit)?.status;
    ensure!(wrong == 401, "a wrong password: {wrong}");
    let called = stranger.post("/function/figlet", "Bothy", limit)?;
    ensure!(called.status == 200 && called.body == BOTHY, "a call without credentials: {called:?}");
    let missing = stranger.post("/function/no-such-function", "", limit)?.status;
    ensure!(missing == 404, "a call of a function that is not there: {missing}");
    let killed = running.console().find("Out of memory|oom-kill", Mark::default())?;
    ensure!(killed.is_none(), "something was killed for lack of memory: {killed:?}");
    case.power_off(running)
}

#[test]
fn directly_in_192_mb() {
    case("first_boot_directly", |case| function_answers(case, 192));
}

#[test]
fn through_firmware_in_256_mb() {
    case("first_boot_through_firmware", |case| {
        case.firmware = true;
        function_answers(case, 256)
    });
}

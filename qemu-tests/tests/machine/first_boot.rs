//! From a fresh disk to a function that answers, without any network but our own forwarded port.

use std::time::Duration;

use anyhow::{Result, ensure};
use qemu_tests::{BOTHY, Case, SAMPLE_FUNCTION, SAMPLE_IMAGE, case};

fn function_answers(case: &mut Case) -> Result<()> {
    let disk = case.disk(None)?;
    let mut running = case.up(&disk)?;
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
    case.power_off(running)
}

#[test]
fn directly() {
    case("first_boot_directly", function_answers);
}

#[test]
fn through_firmware() {
    case("first_boot_through_firmware", |case| {
        case.firmware = true;
        function_answers(case)
    });
}

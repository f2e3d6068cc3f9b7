//! What functions find and reach on the appliance itself, with its own kernel's modules and its own NATS server.

use anyhow::{Result, ensure};
use image::qemu::configuration;
use qemu_tests::{BOTHY, Case, PASSWORD, Running, SAMPLE_FUNCTION, SAMPLE_IMAGE, SHELL_IMAGE, shell_case};

/// NATS is started after the functions.
const NATS: &str = "for i in 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19; do \
                    words=$(busybox nc nats 4222 </dev/null | busybox head -c 6); \
                    [ -n \"$words\" ] && break; busybox sleep 2; done; echo \"$words\"";

fn said(case: &mut Case, running: &mut Running, script: &str) -> Result<String> {
    case.answer(running, "shell", script)
}

#[test]
fn names_nats_and_nothing_else_of_the_machine() {
    shell_case("reach", |case| {
        let text = format!("{}\n[egress]\nworld = false\nnats = true\n", configuration("admin", PASSWORD));
        let disk = case.disk(Some(&text))?;
        let mut running = case.up(&disk)?;
        case.status(&mut running, "/healthz", 200)?;
        let gateway = case.gateway(&running);
        gateway.deploy("shell", SHELL_IMAGE)?;
        gateway.deploy(SAMPLE_FUNCTION, SAMPLE_IMAGE)?;
        let figlet = format!("busybox wget -q -O - --post-data Bothy http://{SAMPLE_FUNCTION}:8080/");
        let answer = said(case, &mut running, &figlet)?;
        ensure!(answer == BOTHY, "figlet, called by its name, wrote:\n{answer}");
        let words = said(case, &mut running, NATS)?;
        ensure!(words.starts_with("INFO {"), "NATS said {words:?}");
        // The gateway's own counts, which are there.
        let refused =
            said(case, &mut running, "busybox wget -O - http://prometheus:8082/metrics 2>&1; echo end")?;
        ensure!(refused.contains("Connection refused"), "a port of the machine: {refused}");
        case.power_off(running)
    });
}

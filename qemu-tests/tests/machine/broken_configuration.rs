//! A mistake in `bothy.toml` does not stop the machine; it says what is wrong, with the line.

use anyhow::{Result, ensure};
use qemu_tests::{Case, Mark, case};

const BROKEN: &str = "version = 1\nhostname = \"barn\"\n\n[gateway]\npasword = \"x\"\nuser = admin\n";

/// Boots with the broken file and checks what a person at the console learns.
fn boot_with_broken_file(case: &mut Case, disk: &image::qemu::Disk) -> Result<qemu_tests::Running> {
    let mut running = case.up(disk)?;
    let shown = |pattern: &str| running.console().find(pattern, Mark::default());
    ensure!(shown(r"bothy\.toml:5:1: unknown key `pasword`")?.is_some(), "line 5 is not on the console");
    ensure!(shown("did you mean `password`")?.is_some(), "the hint is not on the console");
    ensure!(shown(r"bothy\.toml:6:8: ")?.is_some(), "line 6 is not on the console");
    case.status(&mut running, "/healthz", 200)?;
    Ok(running)
}

#[test]
fn on_the_first_boot_the_defaults_apply() {
    case("broken_configuration_first_boot", |case| {
        let disk = case.disk(Some(BROKEN))?;
        let running = boot_with_broken_file(case, &disk)?;
        // The machine made its own password: ours must not work, nor none.
        let limit = std::time::Duration::from_secs(30);
        for client in [running.client(), running.client().with_credentials("admin", "")] {
            ensure!(client.get("/system/functions", limit)?.status == 401, "the gateway is open");
        }
        case.power_off(running)
    });
}

#[test]
fn later_the_last_good_file_applies() {
    case("broken_configuration_later", |case| {
        let disk = case.used_disk()?;
        disk.write_boot_file("bothy.toml", BROKEN.as_bytes())?;
        let mut running = boot_with_broken_file(case, &disk)?;
        // The password of the good file.
        case.status(&mut running, "/system/functions", 200)?;
        case.power_off(running)?;

        // Not even text: still no reason to stop.
        disk.write_boot_file("bothy.toml", &[0xff, 0xfe, 0, 1, 2, 3])?;
        let mut running = case.up(&disk)?;
        case.status(&mut running, "/system/functions", 200)?;
        case.power_off(running)
    });
}

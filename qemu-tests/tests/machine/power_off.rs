//! The power button: off in less than ten seconds, with functions running, and nothing left to repair.

use qemu_tests::{SAMPLE_FUNCTION, SAMPLE_IMAGE, assert_clean, case};

#[test]
fn is_quick_and_clean() {
    case("power_off", |case| {
        let disk = case.disk(None)?;
        let mut running = case.up(&disk)?;
        let gateway = case.gateway(&running);
        gateway.deploy(SAMPLE_FUNCTION, SAMPLE_IMAGE)?;
        gateway.deploy("banner", SAMPLE_IMAGE)?;
        case.answer(&mut running, SAMPLE_FUNCTION, "Bothy")?;
        case.answer(&mut running, "banner", "Bothy")?;
        case.power_off(running)?;
        assert_clean(case.artifacts(), &disk, case.folder())
    });
}

//! The disk of a machine that has run before, made once for an image: most tests are not about the first boot.

use std::fs::{self, File};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use image::qemu::Disk;

use crate::{BOTHY, Case, SAMPLE_FUNCTION, SAMPLE_IMAGE};

/// Number of what is done below: another number makes older disks worthless.
const SCENARIO: &str = "1";

/// A copy of it at `to`. Whoever comes second waits for the first.
pub(crate) fn copy(case: &mut Case, shelf: &Path, to: &Path) -> Result<Disk> {
    fs::create_dir_all(shelf).with_context(|| format!("create {}", shelf.display()))?;
    let (disk, stamp) = (shelf.join("used.img"), shelf.join("image.of"));
    let lock = File::create(shelf.join("lock"))?;
    lock.lock()?;
    let manifest = &case.artifacts().manifest;
    let manifest = fs::read_to_string(manifest).with_context(|| format!("read {}", manifest.display()))?;
    let image = format!("{SCENARIO}\n{manifest}");
    if !fs::read_to_string(&stamp).is_ok_and(|made| made == image) {
        let _ = fs::remove_file(&stamp);
        make(case)?.copy(&disk)?;
        fs::write(&stamp, image)?;
    }
    Ok(Disk::open(&disk)?.copy(to)?)
}

/// First boot, [`SAMPLE_FUNCTION`] deployed and called, switched off in good order.
fn make(case: &mut Case) -> Result<Disk> {
    let disk = case.disk(None)?;
    let mut running = case.up(&disk)?;
    case.gateway(&running).deploy(SAMPLE_FUNCTION, SAMPLE_IMAGE)?;
    ensure!(case.answer(&mut running, SAMPLE_FUNCTION, "Bothy")? == BOTHY, "figlet answers nonsense");
    case.power_off(running)?;
    Ok(disk)
}

//! The clock's floor: a board without a battery must not think it is 1970.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, Timespec, clock_settime};

use crate::error::{Error, Result};
use crate::file;

/// Its modification time is the image's build time.
pub(super) const IMAGE: &str = "/usr/lib/os-release";
/// Its modification time is the last known time.
pub(super) const SAVED: &str = "/var/lib/bothy/clock";
/// How much a power cut may lose.
const EVERY: Duration = Duration::from_secs(15 * 60);

/// Sets the clock to the newest of these files' times if it is behind.
pub(super) fn raise(files: &[&Path]) -> Result<()> {
    let newest = files.iter().filter_map(|path| fs::metadata(path).ok()?.modified().ok()).max();
    let Some(floor) = newest.filter(|floor| *floor > SystemTime::now()) else { return Ok(()) };
    let since = floor.duration_since(UNIX_EPOCH).unwrap_or_default();
    let time = Timespec { tv_sec: since.as_secs() as i64, tv_nsec: since.subsec_nanos().into() };
    clock_settime(ClockId::Realtime, time).map_err(|errno| Error::Control {
        act: "set",
        device: "the clock".to_owned(),
        source: errno.into(),
    })
}

/// Notes the time.
pub(super) fn save(path: &Path) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(Error::write(folder))?;
    }
    file::replace(path, b"The time of this file is the clock's floor at the next start.\n", 0o644)
}

/// Notes the time again and again.
pub(super) async fn keep(path: &'static Path) {
    loop {
        tokio::time::sleep(EVERY).await;
        if let Err(error) = save(path) {
            tracing::warn!("{error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_floor_in_the_past_sets_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state/clock");
        save(&path).unwrap();
        raise(&[&path, Path::new("/nonexistent")]).unwrap();
    }
}

//! The clock's floor: a board without a battery must not think it is 1970.
//!
//! Only a clock that is behind is known to be wrong. One that is far ahead is believed: no timer here counts with it.
//! What it leaves behind is not: a saved time from further ahead than any image is used is no floor.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, Timespec, clock_settime};

use crate::error::{Error, Result};
use crate::file;

/// Its modification time is the image's build time.
const IMAGE: &str = "/usr/lib/os-release";
/// Its modification time is the last known time.
pub(super) const SAVED: &str = "/var/lib/bothy/clock";
/// How much a power cut may lose.
const EVERY: Duration = Duration::from_secs(15 * 60);
/// For so long after it was built an image may be in use. A clock that was set to 2090 once must not be 2090 for ever.
const IN_USE: Duration = Duration::from_secs(25 * 365 * 24 * 3600);

/// Sets the clock to its floor if it is behind.
pub(super) fn raise() -> Result<()> {
    let time_of = |path: &str| fs::metadata(path).and_then(|meta| meta.modified()).ok();
    let Some(behind) = floor(time_of(IMAGE), time_of(SAVED)).filter(|floor| *floor > SystemTime::now())
    else {
        return Ok(());
    };
    let since = behind.duration_since(UNIX_EPOCH).unwrap_or_default();
    let time = Timespec { tv_sec: since.as_secs() as i64, tv_nsec: since.subsec_nanos().into() };
    clock_settime(ClockId::Realtime, time).map_err(|errno| Error::Control {
        act: "set",
        device: "the clock".to_owned(),
        source: errno.into(),
    })
}

/// The newest time that has certainly passed.
fn floor(image: Option<SystemTime>, saved: Option<SystemTime>) -> Option<SystemTime> {
    let believable = |saved: &SystemTime| image.is_none_or(|image| *saved < image + IN_USE);
    image.max(saved.filter(believable))
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
    fn the_newest_time_that_can_be_believed() {
        let year = |year: u64| Some(UNIX_EPOCH + Duration::from_secs((year - 1970) * 365 * 24 * 3600));
        assert_eq!(floor(year(2026), None), year(2026));
        assert_eq!(floor(year(2026), year(2031)), year(2031));
        assert_eq!(floor(year(2026), year(1971)), year(2026));
        assert_eq!(floor(year(2026), year(2090)), year(2026));
        assert_eq!(floor(None, year(2031)), year(2031));
        assert_eq!(floor(None, None), None);
    }

    #[test]
    fn the_time_is_saved_where_no_folder_is_yet() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state/clock");
        let before = SystemTime::now() - Duration::from_secs(2);
        save(&path).unwrap();
        assert!(fs::metadata(&path).unwrap().modified().unwrap() >= before);
    }
}

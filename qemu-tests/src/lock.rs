//! As many machines at once on this host as it has processors: they time themselves, and emulation wants a processor
//! of its own for each.

use std::fs::{File, TryLockError};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

/// How often a place is looked for.
const AGAIN: Duration = Duration::from_millis(200);

/// Waits until there is a processor for one more machine. Released when the file is dropped, also by a crash.
pub(crate) fn processor() -> Result<File> {
    let user = std::fs::metadata("/proc/self").map(|meta| meta.uid()).unwrap_or(0);
    let places = std::thread::available_parallelism().map_or(1, Into::into);
    loop {
        if let Some(place) = free(&std::env::temp_dir(), user, places)? {
            return Ok(place);
        }
        std::thread::sleep(AGAIN);
    }
}

/// One of the places that nobody has.
fn free(folder: &Path, user: u32, places: usize) -> Result<Option<File>> {
    for place in 0..places {
        let path = folder.join(format!("bothy-machine-{place}-of-{user}.lock"));
        let file = File::create(&path).with_context(|| format!("create {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => return Ok(Some(file)),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("lock {}", path.display()));
            }
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_than_there_are_places() {
        let folder = tempfile::tempdir().unwrap();
        let take = || free(folder.path(), 7, 2).unwrap();
        let (one, two) = (take(), take());
        assert!(one.is_some() && two.is_some() && take().is_none());
        drop(one);
        assert!(take().is_some());
    }
}

//! Who waits for whom. As many machines at once on this host as it has processors: they time themselves, and emulation
//! wants a processor of its own for each. And one run of a test at a time, whoever started them: they have one disk.

use std::fs::{File, TryLockError};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

/// How often a place is looked for.
const AGAIN: Duration = Duration::from_millis(200);

/// Waits until no other run of a test has its folder.
pub(crate) fn folder(folder: &Path) -> Result<File> {
    let path = folder.with_extension("lock");
    let open = || -> std::io::Result<File> {
        std::fs::create_dir_all(folder.parent().unwrap_or(folder))?;
        let file = File::create(&path)?;
        file.lock()?;
        Ok(file)
    };
    open().with_context(|| format!("lock {}", path.display()))
}

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
    fn one_run_has_the_folder() {
        let parent = tempfile::tempdir().unwrap();
        let test = parent.path().join("tests/first_boot");
        let one = folder(&test).unwrap();
        assert!(File::open(test.with_extension("lock")).unwrap().try_lock().is_err());
        drop(one);
        folder(&test).unwrap();
    }

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

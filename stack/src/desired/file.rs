//! Files that survive a power cut: written beside their place, synced, renamed over the old one, and the folder synced.
//! Whoever reads afterwards finds the old bytes or the new, never a part.

use std::fs::{self, DirBuilder, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::space::Space;

/// Writes a file of that mode in place of what was there. `new` is the name that it has meanwhile, in the same folder.
pub fn replace(path: &Path, new: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let write = || {
        let mut file = File::options().write(true).create(true).truncate(true).mode(mode).open(new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(new, path)
    };
    if let Err(source) = write() {
        // On a full disk the part that was written is in the way of everybody.
        let _ = fs::remove_file(new);
        return Err(Error::Write { path: path.to_owned(), source });
    }
    sync_parent(path)
}

/// Refuses to write so many bytes below a folder where they would take what the file system keeps for root, which we are:
/// the machine itself lives on that.
pub fn room(folder: &Path, what: &str, bytes: usize) -> Result<()> {
    let Space { free, block, .. } = Space::below(folder)?;
    // One more for the folder's entry.
    let blocks = u64::try_from(bytes).unwrap_or(u64::MAX).div_ceil(block).saturating_add(1);
    let needed = blocks.saturating_mul(block);
    if free >= needed {
        return Ok(());
    }
    let reason = format!(
        "needs {} KiB of the disk, {} KiB are free: remove functions that nobody needs, or copy the disk to a larger one",
        needed >> 10,
        free >> 10
    );
    Err(Error::Invalid { what: what.to_owned(), reason })
}

/// Removes a file for good; tells whether there was one.
pub fn remove(path: &Path) -> Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => sync_parent(path).map(|()| true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(source) => Err(Error::Write { path: path.to_owned(), source }),
    }
}

/// Makes a folder and those above it, all of that mode; one that is there stays as it is.
pub fn make_folder(folder: &Path, mode: u32) -> Result<()> {
    if folder.exists() {
        return Ok(());
    }
    let made = DirBuilder::new().recursive(true).mode(mode).create(folder);
    made.map_err(|source| Error::Write { path: folder.to_owned(), source })?;
    // The machine's state lies three folders deep at most.
    folder.ancestors().skip(1).take(3).try_for_each(sync)
}

/// A folder's entries in the order of their names; a folder that is not there is empty.
pub fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let read = |source| Error::Read { path: folder.to_owned(), source };
    let list = match fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(read)?,
    };
    let mut paths = list.map(|entry| entry.map(|e| e.path())).collect::<Result<Vec<_>, _>>().map_err(read)?;
    paths.sort();
    Ok(paths)
}

/// Has the disk keep what a folder holds.
pub fn sync(folder: &Path) -> Result<()> {
    File::open(folder)
        .and_then(|file| file.sync_all())
        .map_err(|source| Error::Write { path: folder.to_owned(), source })
}

fn sync_parent(path: &Path) -> Result<()> {
    path.parent().map_or(Ok(()), sync)
}

/// Runs what waits for the disk where it holds nobody up.
pub async fn on_disk<T: Send + 'static>(act: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(act).await {
        Ok(done) => done,
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_fails_leaves_the_old_bytes_and_nothing_beside_them() {
        let folder = tempfile::tempdir().unwrap();
        let (path, new) = (folder.path().join("a"), folder.path().join("a~"));
        replace(&path, &new, b"old", 0o600).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        // A name longer than any file system takes.
        let long = folder.path().join("x".repeat(300));
        assert!(replace(&long, &new, b"new", 0o600).is_err());
        assert_eq!(entries(folder.path()).unwrap(), std::slice::from_ref(&path));
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert!(remove(&path).unwrap() && !remove(&path).unwrap());
    }

    #[test]
    fn what_does_not_fit_is_refused_with_numbers() {
        let folder = tempfile::tempdir().unwrap();
        room(&folder.path().join("not/yet"), "secret a", 1).unwrap();
        let refused = room(folder.path(), "secret a", usize::MAX).unwrap_err().to_string();
        assert!(
            refused.starts_with("secret a needs ") && refused.contains("KiB are free: remove"),
            "{refused}"
        );
    }

    #[test]
    fn folders_of_a_mode() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("a/b");
        make_folder(&deep, 0o700).unwrap();
        make_folder(&deep, 0o755).unwrap();
        for made in [&folder.path().join("a"), &deep] {
            assert_eq!(fs::metadata(made).unwrap().permissions().mode() & 0o777, 0o700);
        }
        assert_eq!(entries(&folder.path().join("absent")).unwrap(), Vec::<PathBuf>::new());
    }
}

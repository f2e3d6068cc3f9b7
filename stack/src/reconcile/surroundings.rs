//! What an instance finds around it that is not its image's: its resolv.conf and FIFOs.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::{World, resolvers};
use crate::error::{Error, Result};
use crate::key::Key;
use crate::log::remark;

/// Pause between two looks at the machine's resolv.conf.
const LOOK: Duration = Duration::from_secs(2);

/// Brings the resolv.conf that all instances share up to date. It is rewritten in place: a bind mount keeps showing the file
/// that it was made of.
pub fn refresh(world: &World) -> Result<PathBuf> {
    // Two at once could leave the older text behind.
    let _turn = world.refreshing.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = &world.settings.run;
    fs::create_dir_all(folder).map_err(|source| Error::Write { path: folder.clone(), source })?;
    let source = &world.settings.resolv_conf;
    let text = match fs::read_to_string(source) {
        Ok(text) => text,
        // No network yet, or none ever: functions run all the same.
        Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
        Err(error) => return Err(Error::Read { path: source.clone(), source: error }),
    };
    update(folder.join("resolv.conf"), &text)
}

/// Keeps the instances' resolv.conf like the machine's, and the way open to the servers that it names: a function that
/// started before the network was there, or before it changed, must find the servers of now. A look costs one system call.
pub async fn follow(world: Arc<World>) {
    let mut seen = None;
    loop {
        let now = mark(&world.settings.resolv_conf);
        if now != seen {
            match keep(&world).await {
                Ok(()) => seen = now,
                Err(error) => tracing::warn!("the functions' resolv.conf: {error}"),
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn keep(world: &World) -> Result<()> {
    refresh(world)?;
    world.network.allow_names(|| resolvers::of(&world.settings.resolv_conf)).await
}

/// What changes when a file is written or replaced; nothing where there is none.
fn mark(path: &Path) -> Option<(u64, u64, i64, i64)> {
    let found = fs::metadata(path).ok()?;
    Some((found.ino(), found.len(), found.mtime(), found.mtime_nsec()))
}

fn update(path: PathBuf, text: &str) -> Result<PathBuf> {
    if fs::read_to_string(&path).is_ok_and(|old| old == text) {
        return Ok(path);
    }
    fs::write(&path, text).map_err(|source| Error::Write { path: path.clone(), source })?;
    Ok(path)
}

/// Paths of an instance's FIFOs: standard output and standard error.
pub fn fifos(folder: &Path, instance: &str) -> [PathBuf; 2] {
    ["out", "err"].map(|stream| folder.join(format!("{instance}.{stream}")))
}

/// An instance's FIFOs, and files that keep them open.
pub type Fifos = ([PathBuf; 2], [File; 2]);

/// Makes an instance's FIFOs, which the log service opens by itself. The files given back keep them open at both ends
/// until the shim does: so the log service, which may be here earlier, sees no end of them.
pub fn make_fifos(folder: &Path, instance: &str) -> Result<Fifos> {
    fs::create_dir_all(folder).map_err(|source| Error::Write { path: folder.to_owned(), source })?;
    let paths = fifos(folder, instance);
    for path in &paths {
        let made = nix::unistd::mkfifo(path, nix::sys::stat::Mode::from_bits_truncate(0o600));
        if let Err(error) = made
            && error != nix::errno::Errno::EEXIST
        {
            return Err(Error::Write { path: path.clone(), source: error.into() });
        }
    }
    let open = |path: &PathBuf| {
        let file = File::options().read(true).write(true).custom_flags(nix::libc::O_NONBLOCK).open(path);
        file.map_err(|source| Error::Read { path: path.clone(), source })
    };
    let held = [open(&paths[0])?, open(&paths[1])?];
    Ok((paths, held))
}

/// Says something in an instance's log, behind what its process has said. Where there is no way, or no room because nobody
/// reads, it is not said: our own log has it too.
pub fn say(folder: &Path, instance: &str, text: &str) {
    let [_, path] = fifos(folder, instance);
    // For reading too: so it can be opened while nobody reads, and what is written stays if the shim still holds it.
    let opened = File::options().read(true).write(true).custom_flags(nix::libc::O_NONBLOCK).open(&path);
    let said = opened.and_then(|mut fifo| fifo.write_all(&remark::write(text)));
    if let Err(error) = said {
        tracing::debug!("{} does not take {text:?}: {error}", path.display());
    }
}

/// Removes an instance's FIFOs; the log service reads out what is in them.
pub fn remove_fifos(folder: &Path, instance: &str) -> Result<()> {
    for path in fifos(folder, instance) {
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(Error::Write { path, source: error });
            }
            _ => {}
        }
    }
    Ok(())
}

/// An instance's cgroup.
pub fn cgroup(root: &str, key: &Key, replica: u32) -> Option<String> {
    (!root.is_empty()).then(|| format!("{root}/{}/{}.{replica}", key.namespace, key.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("resolv.conf");
        assert_eq!(mark(&path), None);
        fs::write(&path, "nameserver 10.0.2.3\n").unwrap();
        let first = mark(&path);
        assert_eq!(mark(&path), first);
        // Replaced by one of the same length, as who writes beside and renames does.
        fs::write(folder.path().join("new"), "nameserver 10.0.2.4\n").unwrap();
        fs::rename(folder.path().join("new"), &path).unwrap();
        assert_ne!(mark(&path), first);
    }
}

//! The folder of FIFOs: what lies in it, and what comes and goes.

use std::collections::HashSet;
use std::fs;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::io::unix::AsyncFd;

use crate::error::{Error, Result};

/// What happened to a name.
#[derive(Debug, PartialEq, Eq)]
pub enum Change {
    /// It is there.
    Appeared(String),
    /// It is gone.
    Vanished(String),
    /// More happened than the kernel kept: look at everything.
    Unknown,
}

/// A watched folder.
pub struct Folder {
    path: PathBuf,
    inotify: AsyncFd<Watch>,
}

struct Watch(Inotify);

impl AsRawFd for Watch {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl Folder {
    /// Begins to watch, before anything is listed, so that nothing is missed between the two.
    pub fn watch(path: &Path) -> Result<Self> {
        let error = |source| Error::Read { path: path.to_owned(), source };
        fs::create_dir_all(path).map_err(|source| Error::Write { path: path.to_owned(), source })?;
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)
            .map_err(|errno| error(errno.into()))?;
        let events = AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_MOVED_FROM;
        inotify.add_watch(path, events).map_err(|errno| error(errno.into()))?;
        // SAFETY: the watch owns its descriptor, gives out no other, and keeps it open until it is dropped.
        let inotify =
            unsafe { AsyncFd::register(Watch(inotify)) }.map_err(|refused| error(refused.into()))?;
        Ok(Self { path: path.to_owned(), inotify })
    }

    /// The names that are there.
    pub fn names(&self) -> Result<HashSet<String>> {
        let error = |source| Error::Read { path: self.path.clone(), source };
        let entries = fs::read_dir(&self.path).map_err(error)?;
        Ok(entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect())
    }

    /// Waits for changes.
    pub async fn changes(&self) -> Result<Vec<Change>> {
        let error = |source| Error::Read { path: self.path.clone(), source };
        loop {
            let mut ready = self.inotify.readable().await.map_err(error)?;
            let events = match self.inotify.get_ref().0.read_events() {
                Err(Errno::EAGAIN) => {
                    ready.clear_ready();
                    continue;
                }
                other => other.map_err(|errno| error(errno.into()))?,
            };
            return Ok(events.into_iter().filter_map(change).collect());
        }
    }
}

fn change(event: nix::sys::inotify::InotifyEvent) -> Option<Change> {
    if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
        return Some(Change::Unknown);
    }
    let name = event.name?.into_string().ok()?;
    let gone = AddWatchFlags::IN_DELETE | AddWatchFlags::IN_MOVED_FROM;
    Some(if event.mask.intersects(gone) { Change::Vanished(name) } else { Change::Appeared(name) })
}

//! The supervisor's heart: what PID 1 feeds the hardware watchdog for.
//!
//! It beats from the event loop, which is what has to live; with each beat goes how long ago data was written.

use std::cell::Cell;
use std::fs::OpenOptions;
use std::io::{self, ErrorKind, Write};
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::task::{spawn_blocking, spawn_local};

use super::pid1;
use crate::board::Board;
use crate::link::ToPid1;

/// Time between two beats.
const BEAT: Duration = Duration::from_secs(5);
/// Time between two writes, and before the first: a boot has more urgent ones.
const WRITE: Duration = Duration::from_secs(60);
/// What is written, over itself: a full disk takes it too.
const FILE: &str = "/var/lib/bothy/heartbeat";

/// Beats for ever. Data has to be writable from the first write on that succeeds, and only where it is `on_disk`.
pub(super) async fn beat(link: pid1::Link, on_disk: Rc<Cell<bool>>, board: Board) {
    let written: Rc<Cell<Option<Instant>>> = Rc::default();
    let writing = Rc::new(Cell::new(false));
    let mut next = Instant::now() + WRITE;
    loop {
        let age = written.get().map(|at| at.elapsed().as_secs());
        link.post(&ToPid1::Alive(age), None);
        if on_disk.get() && Instant::now() >= next && !writing.replace(true) {
            next = Instant::now() + WRITE;
            let (written, writing, board) = (written.clone(), writing.clone(), board.clone());
            spawn_local(async move {
                let done = spawn_blocking(|| write(Path::new(FILE))).await;
                let done = done.unwrap_or_else(|error| Err(io::Error::other(error)));
                if done.is_ok() {
                    written.set(Some(Instant::now()));
                }
                board.problem("data writes", done.err().map(|error| complaint(&error)));
                writing.set(false);
            });
        }
        tokio::time::sleep(BEAT).await;
    }
}

/// What a person has to know of a write that failed.
fn complaint(error: &io::Error) -> String {
    let help = match error.kind() {
        ErrorKind::StorageFull => "remove functions that nobody needs",
        ErrorKind::ReadOnlyFilesystem => "`bothyctl reboot` checks and repairs it",
        _ => "the disk may be worn out",
    };
    format!("data takes nothing any more: write {FILE}: {error}; {help}")
}

/// Writes as many bytes as last time to the same place, down to the disk.
fn write(path: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    writeln!(file, "{:020}", now.as_secs())?;
    file.sync_data()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_does_not_grow() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("heartbeat");
        for _ in 0..3 {
            write(&path).unwrap();
        }
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 21);
        assert!(write(&folder.path().join("none/x")).is_err());
    }
}

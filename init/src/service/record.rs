//! What an adopting supervisor must know of a running service: one small file each, as long as the service runs.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::file;
use crate::process::Identity;

/// A running service.
#[derive(Debug, Serialize, Deserialize, PartialEq, Eq)]
pub(super) struct Record {
    /// Its main process.
    pub who: Identity,
    /// Whether it was ready.
    pub ready: bool,
    /// How often it had started again.
    pub restarts: u32,
}

impl Record {
    /// The record of a service; `None` if there is none that can be read.
    pub(super) fn read(run: &Path, name: &str) -> Option<Self> {
        serde_json::from_str(&std::fs::read_to_string(path(run, name)).ok()?).ok()
    }

    /// Writes it.
    pub(super) fn write(&self, run: &Path, name: &str) -> Result<()> {
        let path = path(run, name);
        if let Some(folder) = path.parent() {
            file::make_dir(folder, 0o755)?;
        }
        file::replace(&path, &serde_json::to_vec(self).unwrap_or_default(), 0o644)
    }
}

/// Removes a service's record: it ended as asked.
pub(super) fn remove(run: &Path, name: &str) {
    let _ = std::fs::remove_file(path(run, name));
}

/// Whether an earlier supervisor's service of this name still runs.
pub(crate) fn is_adoptable(run: &Path, name: &str) -> bool {
    Record::read(run, name).is_some_and(|record| record.who.is_alive())
}

fn path(run: &Path, name: &str) -> PathBuf {
    run.join("services").join(format!("{name}.json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_of_a_process_that_lives() {
        let run = tempfile::tempdir().unwrap();
        let who = Identity::of(std::process::id() as i32).unwrap();
        assert!(!is_adoptable(run.path(), "x"));
        let record = Record { who, ready: true, restarts: 2 };
        record.write(run.path(), "x").unwrap();
        assert_eq!(Record::read(run.path(), "x"), Some(record));
        assert!(is_adoptable(run.path(), "x"));
        let other = Identity { started: who.started + 1, ..who };
        Record { who: other, ready: true, restarts: 0 }.write(run.path(), "x").unwrap();
        assert!(!is_adoptable(run.path(), "x"));
        remove(run.path(), "x");
        assert_eq!(Record::read(run.path(), "x"), None);
    }
}

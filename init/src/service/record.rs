//! What an adopting supervisor must know of a service: one small file each, as long as the service is wanted.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::restart::Ends;
use crate::board::{Service, State};
use crate::error::Result;
use crate::file;
use crate::process::Identity;

/// A service, as it was.
#[derive(Debug, Serialize, Deserialize, PartialEq, Eq)]
pub(super) struct Record {
    /// Its main process, if there was one.
    pub who: Option<Identity>,
    /// What was shown of it, its history included.
    pub service: Service,
    /// What its restarts depend on.
    pub ends: Ends,
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
        file::replace(&path, &serde_json::to_vec(self).unwrap_or_default(), 0o600)
    }

    /// Whether it was ready.
    pub(super) fn was_ready(&self) -> bool {
        self.service.state == State::Ready
    }
}

/// Removes a service's record: it ended as asked.
pub(super) fn remove(run: &Path, name: &str) {
    let _ = std::fs::remove_file(path(run, name));
}

/// Whether an earlier supervisor's service of this name still runs.
pub(crate) fn is_adoptable(run: &Path, name: &str) -> bool {
    Record::read(run, name).and_then(|record| record.who).is_some_and(Identity::is_alive)
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
        let write = |who| {
            let record = Record { who, service: Service::default(), ends: Ends::default() };
            record.write(run.path(), "x").unwrap();
            assert_eq!(Record::read(run.path(), "x"), Some(record));
            is_adoptable(run.path(), "x")
        };
        assert!(write(Some(who)));
        assert!(!write(Some(Identity { started: who.started + 1, ..who })));
        assert!(!write(None));
        remove(run.path(), "x");
        assert_eq!(Record::read(run.path(), "x"), None);
    }
}

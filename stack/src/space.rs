//! How full a file system is: one system call.

use std::path::Path;

use crate::error::{Error, Result};

/// Bytes of a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Those that a program without privileges may take.
    pub free: u64,
    /// Those that are taken.
    pub used: u64,
    /// Those that are taken or given at a time.
    pub block: u64,
}

impl Space {
    /// Below a folder, there or not yet.
    pub fn below(folder: &Path) -> Result<Self> {
        let folder = folder.ancestors().find(|folder| folder.is_dir()).unwrap_or(Path::new("/"));
        let found = rustix::fs::statvfs(folder)
            .map_err(|errno| Error::Read { path: folder.to_owned(), source: errno.into() })?;
        let block = found.f_frsize.max(1);
        let bytes = |blocks: u64| blocks.saturating_mul(block);
        let used = found.f_blocks.saturating_sub(found.f_bfree);
        Ok(Self { free: bytes(found.f_bavail), used: bytes(used), block })
    }

    /// All that programs may take, taken or not: what the file system keeps for root is not in it, as with df(1).
    pub fn all(self) -> u64 {
        self.free.saturating_add(self.used)
    }

    /// Whether more is taken than so many percent.
    pub fn is_above(self, percent: u8) -> bool {
        u128::from(self.used) * 100 > u128::from(self.all()) * u128::from(percent)
    }

    /// Percent that are taken, rounded up as with df(1).
    pub fn percent(self) -> u64 {
        let percent = (u128::from(self.used) * 100).div_ceil(u128::from(self.all().max(1)));
        u64::try_from(percent).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages() {
        let space = |used, free| Space { free, used, block: 1 };
        assert!(space(86, 14).is_above(85) && !space(85, 15).is_above(85));
        // A byte more than that is more, though nobody sees it in the rounded number.
        assert!(space(850_001, 149_999).is_above(85));
        assert_eq!((space(850_001, 149_999).percent(), space(85, 15).percent()), (86, 85));
        assert!(space(1, u64::MAX - 1).is_above(0) && !space(0, 100).is_above(0));
        assert!(!space(100, 0).is_above(100));
        assert_eq!((space(0, 0).percent(), space(u64::MAX, u64::MAX).percent()), (0, 100));
    }

    #[test]
    fn a_folder_that_is_not_there_yet_is_on_the_file_system_of_the_one_above() {
        let folder = tempfile::tempdir().unwrap();
        let found = Space::below(&folder.path().join("a/b")).unwrap();
        assert!(found.all() > 0 && found.block > 0);
    }
}

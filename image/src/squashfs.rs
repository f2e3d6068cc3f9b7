//! The read-only root file system, made by Debian's mksquashfs from an archive that we write.

use std::path::Path;

use crate::error::{Error, Result};
use crate::process;
use crate::tools::Tools;
use crate::tree::Tree;

/// How hard to compress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// For the next boot: seconds count.
    Development,
    /// For publishing: bytes count.
    Release,
}

impl Compression {
    /// Level of zstd for the root file system.
    fn level(self) -> &'static str {
        match self {
            Compression::Development => "6",
            Compression::Release => "19",
        }
    }
}

/// Makes a squashfs image of a tree. The same tree gives the same bytes on every machine: owners and modes come from
/// the archive, times from `epoch`, and the number of processors does not matter.
///
/// # Errors
/// mksquashfs fails.
pub fn create(
    tools: &Tools,
    tree: &Tree,
    epoch: u64,
    compression: Compression,
    scratch: &Path,
) -> Result<Vec<u8>> {
    let out = scratch.join("root.squashfs");
    let _ = std::fs::remove_file(&out);
    let time = epoch.to_string();
    let mut command = tools.command("usr/bin/mksquashfs");
    command.arg("-").arg(&out).args(["-tar", "-quiet", "-no-progress", "-no-exports", "-no-xattrs"]);
    command.args(["-comp", "zstd", "-Xcompression-level", compression.level(), "-b", "128K"]);
    command.args(["-mkfs-time", &time, "-all-time", &time, "-root-time", &time]);
    command.args(["-root-uid", "0", "-root-gid", "0", "-root-mode", "755"]);
    process::feed(&mut command, |stdin| tree.write_tar(stdin, epoch))?;
    let bytes = std::fs::read(&out).map_err(Error::read(&out))?;
    let _ = std::fs::remove_file(&out);
    Ok(bytes)
}

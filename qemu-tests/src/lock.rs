//! One machine at once on this host: they time themselves, and emulation wants a processor for itself.

use std::fs::File;

use anyhow::Context;

/// Waits until no other test has a machine. Released when the file is dropped, also by a crash.
pub(crate) fn exclusive() -> anyhow::Result<File> {
    let user =
        std::fs::metadata("/proc/self").map(|meta| std::os::unix::fs::MetadataExt::uid(&meta)).unwrap_or(0);
    let path = std::env::temp_dir().join(format!("bothy-machines-of-{user}.lock"));
    let file = File::create(&path).with_context(|| format!("create {}", path.display()))?;
    file.lock().with_context(|| format!("lock {}", path.display()))?;
    Ok(file)
}

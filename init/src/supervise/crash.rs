//! What the kernel left in pstore when it crashed, moved to the data partition: pstore is small, and a full one keeps
//! the oldest crash instead of the newest.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::error::{Error, Result};
use crate::file;
use crate::modules::{self, Index};

/// Where the kernel shows its records (Documentation/ABI/testing/pstore).
const PSTORE: &str = "/sys/fs/pstore";
/// Where they are kept.
const KEPT: &str = "/var/lib/bothy/crash";
/// Folders that are kept, one for each boot that found something.
const MOST: usize = 8;
/// What is kept of one boot.
const MOST_BYTES: u64 = 1 << 20;

/// Firmware that keeps variables keeps crashes too, through a module that no device asks for.
const EFI: (&str, &str) = ("/sys/firmware/efi/efivars", "efi_pstore");

/// Keeps what is there under the time of this start; gives what a person should know.
pub(super) fn look() -> Result<Option<String>> {
    let (firmware, module) = EFI;
    if Path::new(firmware).exists()
        && let Err(error) = modules::load(&Index::of_kernel(), module)
    {
        tracing::warn!("a crash of the kernel leaves no words: {error}");
    }
    let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let found = keep(Path::new(PSTORE), Path::new(KEPT), &time.to_string())?;
    Ok(found.map(|(reason, folder)| {
        format!("the kernel crashed in the last run ({reason}); its words are in {}", folder.display())
    }))
}

/// Moves all records into a folder named after `boot`; the pstore is empty then. Gives what the last crash was, in one
/// line, and the folder; `None` if there was none.
fn keep(pstore: &Path, kept: &Path, boot: &str) -> Result<Option<(String, PathBuf)>> {
    let mut records: Vec<PathBuf> = match fs::read_dir(pstore) {
        Ok(entries) => entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file()).collect(),
        // A kernel without it.
        Err(_) => return Ok(None),
    };
    if records.is_empty() {
        return Ok(None);
    }
    records.sort();
    let folder = kept.join(boot);
    file::make_dir(kept, 0o700)?;
    file::make_dir(&folder, 0o700)?;
    let mut room = MOST_BYTES;
    let mut line = None;
    for record in &records {
        let mut bytes = Vec::new();
        let read = File::open(record).and_then(|file| file.take(room).read_to_end(&mut bytes));
        read.map_err(Error::read(record))?;
        room = room.saturating_sub(bytes.len() as u64);
        if let (Some(name), false) = (record.file_name(), bytes.is_empty()) {
            line = line.or_else(|| reason(&String::from_utf8_lossy(&bytes)));
            file::replace(folder.join(name), &bytes, 0o600)?;
        }
    }
    File::open(kept).and_then(|kept| kept.sync_all()).map_err(Error::write(kept))?;
    // On the disk: now the kernel may forget it.
    for record in &records {
        fs::remove_file(record).map_err(Error::write(record))?;
    }
    forget_old(kept);
    Ok(Some((line.unwrap_or_else(|| "no reason was recorded".to_owned()), folder)))
}

/// The line of a kernel log that says why it ended.
fn reason(log: &str) -> Option<String> {
    const WORDS: [&str; 4] = ["Kernel panic - not syncing: ", "Oops: ", "BUG: ", "watchdog: "];
    // Each line begins with `<level>[seconds] `.
    let text = |line: &str| line.split_once("] ").map_or(line, |(_, text)| text).trim().to_owned();
    WORDS.iter().find_map(|word| log.lines().find(|line| line.contains(word)).map(text))
}

/// Removes the oldest folders that are too many.
fn forget_old(kept: &Path) {
    let entries = fs::read_dir(kept).into_iter().flatten().flatten();
    let made = |path: &Path| fs::metadata(path).and_then(|m| m.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
    let mut folders: Vec<_> = entries.map(|entry| (made(&entry.path()), entry.path())).collect();
    folders.sort();
    let surplus = folders.len().saturating_sub(MOST);
    for (_, folder) in folders.into_iter().take(surplus) {
        let _ = fs::remove_dir_all(folder);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "Panic#1 Part1\n<6>[   40.1] sysrq: Trigger a crash\n<0>[   40.2] Kernel panic - not syncing: \
                       sysrq triggered crash\n<4>[   40.3] CPU: 1 PID: 99\n";

    #[test]
    fn records_move_and_the_reason_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let (pstore, kept) = (folder.path().join("pstore"), folder.path().join("crash"));
        assert_eq!(keep(&pstore, &kept, "a").unwrap(), None);
        fs::create_dir(&pstore).unwrap();
        assert_eq!(keep(&pstore, &kept, "a").unwrap(), None);
        assert!(!kept.exists());
        fs::write(pstore.join("dmesg-erst-1"), LOG).unwrap();
        fs::write(pstore.join("dmesg-erst-2"), vec![b'x'; 3 << 20]).unwrap();
        let (line, place) = keep(&pstore, &kept, "a").unwrap().unwrap();
        assert_eq!(line, "Kernel panic - not syncing: sysrq triggered crash");
        assert_eq!(fs::read_to_string(place.join("dmesg-erst-1")).unwrap(), LOG);
        assert!(fs::metadata(place.join("dmesg-erst-2")).unwrap().len() < MOST_BYTES);
        assert_eq!(fs::read_dir(&pstore).unwrap().count(), 0);
    }

    #[test]
    fn only_so_many_are_kept_and_none_goes_that_was_not_copied() {
        let folder = tempfile::tempdir().unwrap();
        let (pstore, kept) = (folder.path().join("pstore"), folder.path().join("crash"));
        fs::create_dir(&pstore).unwrap();
        for boot in 0..MOST + 3 {
            fs::write(pstore.join("dmesg"), "what\n").unwrap();
            let (line, _) = keep(&pstore, &kept, &format!("{boot:02}")).unwrap().unwrap();
            assert_eq!(line, "no reason was recorded");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        let mut left: Vec<_> =
            fs::read_dir(&kept).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        left.sort();
        assert_eq!((left.len(), left[0].as_str()), (MOST, "03"));
        fs::write(pstore.join("dmesg"), "what\n").unwrap();
        fs::remove_dir_all(&kept).unwrap();
        fs::write(&kept, "in the way").unwrap();
        assert!(keep(&pstore, &kept, "x").is_err());
        assert!(pstore.join("dmesg").exists());
    }
}

//! A machine's disk: a copy of an image, as large as a real disk, that the host can read and write between boots.
//!
//! It is a raw file with holes, not an overlay in QEMU's own format: so the host reads partitions and changes
//! `bothy.toml` on it without a further tool, and it costs only what the image and the guest really wrote.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{FallocateFlags, fallocate};
use nix::unistd::{Whence, lseek};

use super::{Error, Result};
use crate::{fat, gpt};

/// Size of a disk unless the caller says otherwise: what a small SD card has.
const SIZE: u64 = 4 << 30;

/// A disk on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    path: PathBuf,
}

/// A partition that was copied out of a disk into a file of its own.
#[derive(Debug)]
pub struct Partition {
    /// The file; removed when this is dropped.
    pub path: PathBuf,
}

impl Disk {
    /// A fresh disk at `path`, made of an image and grown to 4 GiB. It replaces what is there.
    ///
    /// # Errors
    /// The image cannot be read, the disk cannot be written.
    pub fn create(image: &Path, path: &Path) -> Result<Self> {
        // Under its final name it is whole: a run that was interrupted here leaves no half disk for the next one.
        let draft = path.with_extension("new");
        let from = File::open(image).map_err(Error::file("open", image))?;
        let size = from.metadata().map_err(Error::file("read", image))?.len();
        let to = File::create(&draft).map_err(Error::file("create", &draft))?;
        to.set_len(size.max(SIZE)).map_err(Error::file("grow", &draft))?;
        copy_data(&from, 0, &to, 0, size).map_err(Error::file("copy", image))?;
        std::fs::rename(&draft, path).map_err(Error::file("rename", &draft))?;
        Ok(Self { path: path.to_owned() })
    }

    /// A disk that is there already.
    ///
    /// # Errors
    /// There is none.
    pub fn open(path: &Path) -> Result<Self> {
        File::open(path).map_err(Error::file("open", path))?;
        Ok(Self { path: path.to_owned() })
    }

    /// Puts the system of another image onto it: what flashing a card again would do, but `data` stays.
    ///
    /// # Errors
    /// The image has no such partitions, or they are of another size than the disk's.
    pub fn replace_system(&self, image: &Path) -> Result<()> {
        let mut from = File::open(image).map_err(Error::file("open", image))?;
        let to = OpenOptions::new().read(true).write(true).open(&self.path);
        let mut to = to.map_err(Error::file("open", &self.path))?;
        for name in ["boot", "root-a"] {
            let (start, length) = gpt::find(&mut from, name)?;
            if gpt::find(&mut to, name)? != (start, length) {
                let reason = format!("its partition {name} lies elsewhere than in {}", image.display());
                return Err(Error::Disk { path: self.path.clone(), reason });
            }
            punch(&to, start, length).map_err(Error::file("clear", &self.path))?;
            copy_data(&from, start, &to, start, length).map_err(Error::file("copy", &self.path))?;
        }
        to.sync_all().map_err(Error::file("write", &self.path))
    }

    /// A second disk with the same content, holes included. It replaces what is at `path`.
    ///
    /// # Errors
    /// The disk cannot be read, the copy cannot be written.
    pub fn copy(&self, path: &Path) -> Result<Self> {
        let from = File::open(&self.path).map_err(Error::file("open", &self.path))?;
        let size = from.metadata().map_err(Error::file("read", &self.path))?.len();
        let to = File::create(path).map_err(Error::file("create", path))?;
        to.set_len(size).map_err(Error::file("grow", path))?;
        copy_data(&from, 0, &to, 0, size).map_err(Error::file("copy", &self.path))?;
        Ok(Self { path: path.to_owned() })
    }

    /// Makes it larger: what copying a card to a larger one does.
    ///
    /// # Errors
    /// The file cannot be changed.
    pub fn grow(&self, size: u64) -> Result<()> {
        let file =
            OpenOptions::new().write(true).open(&self.path).map_err(Error::file("open", &self.path))?;
        file.set_len(size).map_err(Error::file("grow", &self.path))
    }

    /// Where a partition lies: start and length in bytes.
    ///
    /// # Errors
    /// There is no such partition.
    pub fn extent(&self, name: &str) -> Result<(u64, u64)> {
        let mut file = File::open(&self.path).map_err(Error::file("open", &self.path))?;
        Ok(gpt::find(&mut file, name)?)
    }

    /// Writes over any place, as a failing medium does.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn damage(&self, at: u64, bytes: &[u8]) -> Result<()> {
        let file =
            OpenOptions::new().write(true).open(&self.path).map_err(Error::file("open", &self.path))?;
        file.write_all_at(bytes, at).map_err(Error::file("write", &self.path))
    }

    /// Its file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a file on the boot partition, as somebody does who puts the card into a computer.
    ///
    /// # Errors
    /// There is no boot partition, or no room on it.
    pub fn write_boot_file(&self, name: &str, content: &[u8]) -> Result<()> {
        fat::replace_file(&self.path, name, content).map_err(Error::from)
    }

    /// Copies a partition, by name, into a file in `folder`, for tools that check file systems.
    ///
    /// # Errors
    /// There is no such partition, or the copy cannot be written.
    pub fn extract(&self, name: &str, folder: &Path) -> Result<Partition> {
        let mut file = File::open(&self.path).map_err(Error::file("open", &self.path))?;
        let (start, length) = gpt::find(&mut file, name)?;
        let path = folder.join(format!("{name}.partition"));
        let copy = File::create(&path).map_err(Error::file("create", &path))?;
        let partition = Partition { path };
        let failed = || Error::file("copy", &partition.path);
        copy.set_len(length).map_err(failed())?;
        copy_data(&file, start, &copy, 0, length).map_err(failed())?;
        Ok(partition)
    }
}

impl Drop for Partition {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Copies `length` bytes from one place to another, which must hold only zeroes: holes are skipped (lseek(2)).
fn copy_data(from: &File, start: u64, to: &File, target: u64, length: u64) -> std::io::Result<()> {
    let end = start + length;
    let mut at = start;
    while at < end {
        // A file system that knows no holes says that all is data; no data until the end is ENXIO.
        let Some(data) = seek(from, at, Whence::SeekData)?.filter(|data| *data < end) else { return Ok(()) };
        let hole = seek(from, data, Whence::SeekHole)?.unwrap_or(end).min(end);
        let mut to = to;
        let mut from = from;
        to.seek(SeekFrom::Start(target + (data - start)))?;
        from.seek(SeekFrom::Start(data))?;
        std::io::copy(&mut from.take(hole - data), &mut to)?;
        at = hole;
    }
    Ok(())
}

/// The next data or hole; nothing behind the last.
fn seek(file: &File, at: u64, whence: Whence) -> std::io::Result<Option<u64>> {
    let at = i64::try_from(at).map_err(std::io::Error::other)?;
    match lseek(file, at, whence) {
        Ok(found) => u64::try_from(found).map(Some).map_err(std::io::Error::other),
        Err(nix::Error::ENXIO) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// Makes a part of a file a hole.
pub(super) fn punch(file: &File, start: u64, length: u64) -> std::io::Result<()> {
    let (start, length) = (i64::try_from(start), i64::try_from(length));
    let (start, length) = (start.map_err(std::io::Error::other)?, length.map_err(std::io::Error::other)?);
    let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    Ok(fallocate(file, flags, start, length)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    /// An image with a table: boot at 1 MiB, root-a at 2 MiB, data at 3 MiB.
    fn image(path: &Path, byte: u8) -> Vec<u8> {
        let sector = |mib: u64| mib * 2048;
        let part = |name, first, last| gpt::Partition { kind: gpt::ESP, guid: [1; 16], name, first, last };
        let parts = [
            part("boot", sector(1), sector(2) - 1),
            part("root-a", sector(2), sector(3) - 1),
            part("data", sector(3), sector(4) - 1),
        ];
        let table = gpt::table([9; 16], sector(8), &parts).unwrap();
        let mut bytes = table.start;
        bytes.resize(8 * MIB - table.end.len(), 0);
        bytes.extend(table.end);
        for mib in 1..4 {
            bytes[mib * MIB + 5000..mib * MIB + 9000].fill(byte + mib as u8);
        }
        std::fs::write(path, &bytes).unwrap();
        bytes
    }

    #[test]
    fn a_disk_is_the_image_and_more() {
        let folder = tempfile::tempdir().unwrap();
        let bytes = image(&folder.path().join("image"), 10);
        let disk = Disk::create(&folder.path().join("image"), &folder.path().join("disk.img")).unwrap();
        let mut start = vec![0; bytes.len()];
        File::open(disk.path()).unwrap().read_exact(&mut start).unwrap();
        assert!(start == bytes);
        let meta = std::fs::metadata(disk.path()).unwrap();
        assert_eq!(meta.len(), SIZE);
        assert!(std::os::unix::fs::MetadataExt::blocks(&meta) * 512 < 16 * MIB as u64);
        let part = disk.extract("root-a", folder.path()).unwrap();
        assert!(std::fs::read(&part.path).unwrap() == bytes[2 * MIB..3 * MIB]);
        assert!(disk.extract("root-z", folder.path()).is_err());
    }

    #[test]
    fn a_new_system_leaves_the_data_alone() {
        let folder = tempfile::tempdir().unwrap();
        let old = image(&folder.path().join("old"), 10);
        let new = image(&folder.path().join("new"), 20);
        let disk = Disk::create(&folder.path().join("old"), &folder.path().join("disk.img")).unwrap();
        disk.replace_system(&folder.path().join("new")).unwrap();
        let mut now = vec![0; old.len()];
        File::open(disk.path()).unwrap().read_exact(&mut now).unwrap();
        assert!(now[MIB..3 * MIB] == new[MIB..3 * MIB]);
        assert!(now[3 * MIB..4 * MIB] == old[3 * MIB..4 * MIB]);
    }
}

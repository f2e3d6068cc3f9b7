//! A machine's disk: a copy of an image, as large as a real disk, that the host can read and write between boots.
//!
//! It is a raw file with holes, not an overlay in QEMU's own format: so the host reads partitions and changes
//! `bothy.toml` on it without a further tool, and it costs only what the image and the guest really wrote.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::{Error, Result};
use crate::{disk, fat, gpt};

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
        disk::copy_sparse(image, &draft)?;
        let file = OpenOptions::new().write(true).open(&draft).map_err(Error::file("open", &draft))?;
        let size = file.metadata().map_err(Error::file("read", &draft))?.len();
        file.set_len(size.max(SIZE)).map_err(Error::file("grow", &draft))?;
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
            let failed = || Error::file("copy", &self.path);
            from.seek(SeekFrom::Start(start)).map_err(failed())?;
            to.seek(SeekFrom::Start(start)).map_err(failed())?;
            std::io::copy(&mut (&from).take(length), &mut to).map_err(failed())?;
        }
        to.sync_all().map_err(Error::file("write", &self.path))
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
        let mut copy = File::create(&path).map_err(Error::file("create", &path))?;
        let partition = Partition { path };
        let failed = || Error::file("copy", &partition.path);
        copy.set_len(length).map_err(failed())?;
        file.seek(SeekFrom::Start(start)).map_err(failed())?;
        let mut input = file.take(length);
        let mut piece = vec![0; 1 << 20];
        let mut at = 0;
        loop {
            let n = input.read(&mut piece).map_err(failed())?;
            let bytes = piece.get(..n).unwrap_or_default();
            if bytes.is_empty() {
                return Ok(partition);
            }
            if bytes.iter().any(|byte| *byte != 0) {
                copy.seek(SeekFrom::Start(at)).map_err(failed())?;
                copy.write_all(bytes).map_err(failed())?;
            }
            at += n as u64;
        }
    }
}

impl Drop for Partition {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

//! The disk that was booted: its partitions, the data file system, `/var` and `/boot`.

mod blkpg;
mod erase;
mod ext4;
mod helper;
mod table;
mod tmpfiles;

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use rustix::mount::MountFlags;

use crate::block;
use crate::console::{Level, alarm, kmsg};
use crate::error::{Error, Result};
use crate::initrd::BOOT_DISK;
use crate::mounts;

pub(crate) use erase::mark as mark_to_erase;

/// Label that says "made".
const LABEL: &str = "data";
const TMPFILES: &str = "/usr/lib/tmpfiles.d";

/// Where `/var` lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Data {
    /// On this partition.
    Disk(String),
    /// In memory, and why: all is lost at the next start.
    Memory(String),
}

/// The disk that was booted, as the initrd noted it.
pub(crate) fn boot_disk() -> Result<String> {
    let text = crate::file::read(BOOT_DISK)?;
    Ok(text.split_whitespace().next().unwrap_or_default().to_owned())
}

/// Noted here when data was damaged, for as long as the machine runs.
const REPAIRED: &str = "/run/bothy/data-repaired";

/// What a person has to know of this start's repair: that something may be gone, or has lost its name.
pub(crate) fn damage() -> Option<String> {
    if !Path::new(REPAIRED).exists() {
        return None;
    }
    let lost = fs::read_dir("/var/lost+found").map_or(0, Iterator::count);
    let more = if lost > 0 {
        format!(", {lost} entries of /var/lost+found have lost their names")
    } else {
        String::new()
    };
    Some(format!("data was damaged and repaired: functions or logs may be missing{more}"))
}

/// The device under `/var`, if that is a disk's.
pub(crate) fn data_device() -> Option<PathBuf> {
    let mounts = mounts::mounted(&crate::file::read("/proc/self/mountinfo").ok()?);
    let mount = mounts.into_iter().find(|mount| mount.target == Path::new("/var") && mount.kind == "ext4")?;
    Some(PathBuf::from(mount.source))
}

/// Mounts `/var`, with its skeleton. Never fails: without a disk it is in memory.
pub(crate) fn mount_data() -> Data {
    let before = mounts::mounted(&crate::file::read("/proc/self/mountinfo").unwrap_or_default());
    // A supervisor before this one may have done it.
    let data = if let Some(mount) = before.iter().find(|mount| mount.target == Path::new("/var")) {
        match mount.source.strip_prefix("/dev/") {
            Some(part) => Data::Disk(part.to_owned()),
            None => Data::Memory("no disk could be used when the machine started".to_owned()),
        }
    } else {
        match boot_disk().and_then(|disk| on_disk(&disk)) {
            Ok(part) => Data::Disk(part),
            Err(error) => in_memory(&error),
        }
    };
    for error in tmpfiles::apply(Path::new(TMPFILES), Path::new("/")) {
        kmsg(Level::Warning, &error.to_string());
    }
    data
}

fn in_memory(error: &Error) -> Data {
    let why = error.to_string();
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    match mounts::attach("tmpfs", "/var", "tmpfs", flags, "mode=0755,size=60%") {
        Ok(()) => Data::Memory(why),
        Err(second) => Data::Memory(format!("{why}; {second}")),
    }
}

/// Finds or makes the data partition, makes its file system if it was never finished, checks it, mounts it.
fn on_disk(disk: &str) -> Result<String> {
    helper::end_orphans()?;
    let node = Path::new("/dev").join(disk);
    let parts = table::extend(&node)?;
    let data = parts.iter().find(|part| part.name == LABEL).ok_or_else(|| Error::Partitions {
        disk: disk.to_owned(),
        reason: "there is no data partition and no room for one".to_owned(),
    })?;
    for part in &parts {
        if let Err(error) = blkpg::announce(&node, disk, part) {
            kmsg(Level::Warning, &error.to_string());
        }
    }
    let name = block::partition_name(disk, data.number);
    let device = Path::new("/dev").join(&name);
    wait_for_device(&device)?;
    if erase::is_marked(&device)? {
        erase::erase(&device)?;
    }
    if ext4::is_made(&device, LABEL)? {
        let repaired = ext4::check(&device, LABEL)?;
        limit_reserve(&device);
        let repaired = match attach(&device) {
            Ok(()) => repaired,
            Err(error) => {
                // It said that it was clean, or nothing was found.
                alarm(&error.to_string());
                let repaired = ext4::repair(&device, LABEL)?;
                attach(&device)?;
                repaired
            }
        };
        if repaired && let Err(error) = fs::write(REPAIRED, "") {
            kmsg(Level::Warning, &Error::write(REPAIRED)(error).to_string());
        }
        fill(&device)?;
    } else {
        ext4::make(&device)?;
        limit_reserve(&device);
        attach(&device)?;
        for error in tmpfiles::apply(Path::new(TMPFILES), Path::new("/")) {
            kmsg(Level::Warning, &error.to_string());
        }
        mounts::sync_at("/var")?;
        // The last step: from here on the file system is never made again.
        ext4::set_label(Path::new("/var"), LABEL)?;
        mounts::sync_at("/var")?;
    }
    Ok(name)
}

/// A data partition with a larger reserve is better than none.
fn limit_reserve(device: &Path) {
    if let Err(error) = ext4::limit_reserve(device) {
        alarm(&error.to_string());
    }
}

/// Lets data fill its partition; one that stays as small as it was is better than none.
fn fill(device: &Path) -> Result<()> {
    match ext4::fill(Path::new("/var"), device) {
        Ok(false) => {}
        Ok(true) => {
            mounts::unmount("/var")?;
            limit_reserve(device);
            attach(device)?;
        }
        Err(error) => alarm(&error.to_string()),
    }
    Ok(())
}

fn attach(device: &Path) -> Result<()> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOATIME;
    // nats's user, who has no capability, may use the reserve; root's processes in functions may not.
    mounts::attach(device, "/var", "ext4", flags, "errors=remount-ro,resuid=900")
}

/// devtmpfs makes the node soon after the kernel knows the partition.
fn wait_for_device(device: &Path) -> Result<()> {
    for _ in 0..100 {
        if fs::metadata(device).is_ok_and(|meta| meta.file_type().is_block_device()) {
            return Ok(());
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    Err(Error::Read { path: device.to_owned(), source: std::io::ErrorKind::NotFound.into() })
}

/// Mounts the boot partition read-only. It holds a password: nobody but root reads it.
pub(crate) fn mount_boot() -> Result<PathBuf> {
    let target = PathBuf::from("/boot");
    if mounts::is_mounted(&target) {
        return Ok(target);
    }
    let disk = boot_disk()?;
    let parts = table::read(&Path::new("/dev").join(&disk))?;
    let part = parts.iter().find(|part| part.name == "boot").ok_or_else(|| Error::Partitions {
        disk: disk.clone(),
        reason: "there is no boot partition".to_owned(),
    })?;
    let device = Path::new("/dev").join(block::partition_name(&disk, part.number));
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mounts::attach(&device, &target, "vfat", flags, "umask=0077")?;
    Ok(target)
}

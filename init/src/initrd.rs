//! The initrd stage: modules, the root partition by its verity root hash, dm-verity, switch root.
//!
//! It never ends in an exit: what fails is said on the console with what was seen, and the machine restarts after a
//! while, so that a boot counter, a watchdog or a person with a cable has the next word.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::panic::catch_unwind;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::mount::MountFlags;

use crate::block::{self, Block};
use crate::cmdline::CommandLine;
use crate::console::{Level, alarm, kmsg, say};
use crate::error::{Error, Result};
use crate::mapper::{self, Target};
use crate::modules::{self, Index};
use crate::mounts;
use crate::power::{self, Ending};
use crate::uevent::{self, Listener};
use crate::verity::{self, Finding, Tree};

/// A USB disk behind a hub may need this long to appear.
const ROOT_LIMIT: Duration = Duration::from_secs(30);
/// A look at sysfs even without an event: one may have been lost.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// How long a failure stays on the screen.
const FAILURE_SHOWN: Duration = Duration::from_secs(15);
/// Where the next stage finds the root partition: "DISK PARTITION", kernel names.
pub(crate) const BOOT_DISK: &str = "/run/bothy/boot-disk";

/// Whether this process runs from an initrd.
pub(crate) fn is_here() -> bool {
    Path::new("/etc/initrd-release").exists()
}

/// Runs the stage; the process goes on as `/sbin/init` of the root.
pub(crate) fn run() -> ! {
    let why = match catch_unwind(stage) {
        Ok(Ok(never)) => match never {},
        Ok(Err(error)) => error.to_string(),
        Err(_) => "a fault in init".to_owned(),
    };
    alarm(&format!("cannot start from this disk: {why}"));
    say(&format!("bothy: restarting in {} s", FAILURE_SHOWN.as_secs()));
    std::thread::sleep(FAILURE_SHOWN);
    power::end(Ending::Reboot)
}

fn stage() -> Result<std::convert::Infallible> {
    for mount in mounts::FIRST {
        mount.mount()?;
    }
    kmsg(Level::Info, "initrd stage begins");
    let hash = CommandLine::read()?.root_hash()?;
    let listener = Listener::open()?;
    let index = Index::of_kernel();
    modules::load_listed(&index, Path::new("/usr/lib/modules-load.d"));
    let (part, tree) = find_root(&listener, &index, &hash)?;
    kmsg(Level::Info, &format!("root is on {}", part.name));
    let device = fs::metadata(part.node()).map_err(Error::read(part.node()))?.rdev();
    let numbers = format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
    let parameters = tree.parameters(&numbers, &hash);
    let target = Target { sectors: tree.sectors(), kind: "verity", parameters: &parameters };
    let root = mapper::create_read_only("root", &target)?;
    wait_for_node(&root, &listener);
    fs::create_dir_all("/sysroot").map_err(Error::write("/sysroot"))?;
    mounts::attach(&root, "/sysroot", "squashfs", MountFlags::RDONLY | MountFlags::NODEV, "")?;
    fs::create_dir_all("/run/bothy").map_err(Error::write("/run/bothy"))?;
    fs::write(BOOT_DISK, format!("{} {}\n", part.disk, part.name)).map_err(Error::write(BOOT_DISK))?;
    for mount in mounts::FIRST {
        mounts::shift(mount.target, Path::new("/sysroot").join(mount.target.trim_start_matches('/')))?;
    }
    switch_root()
}

/// Looks at partitions as they appear until one carries the hash.
fn find_root(listener: &Listener, index: &Index, hash: &[u8; 32]) -> Result<(Block, Tree)> {
    let end = Instant::now() + ROOT_LIMIT;
    let mut asked = BTreeSet::new();
    let mut seen = BTreeMap::new();
    let mut walk = true;
    loop {
        if walk {
            modules::load_for(index, uevent::modaliases(Path::new("/sys/devices")), &mut asked);
        }
        for block in by_hope(block::list(Path::new("/sys/class/block"))) {
            // Each read of a dying disk may take half a minute.
            if Instant::now() > end {
                break;
            }
            // A verdict about a partition's content stands; only what could not be read is read again.
            if matches!(seen.get(&block.name), Some((true, _))) {
                continue;
            }
            let look = File::open(block.node()).and_then(|mut device| verity::examine(&mut device, hash));
            match look {
                Ok(Finding::Ours(tree)) => return Ok((block, tree)),
                Ok(Finding::Other(why)) => seen.insert(block.name.clone(), (true, why)),
                Err(error) => seen.insert(block.name.clone(), (false, error.to_string())),
            };
        }
        if Instant::now() > end {
            let lines = seen.iter().map(|(name, (_, why))| format!("{name}: {why}"));
            let seen =
                if seen.is_empty() { "no disk at all".into() } else { lines.collect::<Vec<_>>().join("; ") };
            return Err(Error::NoRoot { hash: verity::hex(hash), seen });
        }
        let (events, lost) = listener.wait(LOOK_AGAIN);
        modules::load_for(index, events.into_iter().filter_map(|event| event.modalias), &mut asked);
        walk = lost;
    }
}

/// Partitions that are called as ours first: the others, on a dying disk perhaps, then need not be read at all.
fn by_hope(mut blocks: Vec<Block>) -> Vec<Block> {
    blocks.sort_by_key(|block| !block.label.starts_with("root-"));
    blocks
}

/// devtmpfs makes the node a moment after the ioctl; the mount says what is wrong if it never comes.
fn wait_for_node(node: &Path, listener: &Listener) {
    let end = Instant::now() + Duration::from_secs(5);
    while !node.exists() && Instant::now() < end {
        listener.wait(Duration::from_millis(20));
    }
}

/// Frees the initrd's memory, makes `/sysroot` the root and starts its init.
fn switch_root() -> Result<std::convert::Infallible> {
    let device = fs::metadata("/").map_err(Error::read("/"))?.dev();
    std::env::set_current_dir("/sysroot").map_err(Error::read("/sysroot"))?;
    remove_below(Path::new("/"), device);
    // pivot_root does not work on the first root file system: move over it instead.
    mounts::shift(".", "/")?;
    rustix::process::chroot(".")
        .map_err(|errno| Error::Read { path: "/sysroot".into(), source: errno.into() })?;
    std::env::set_current_dir("/").map_err(Error::read("/"))?;
    let source = Command::new("/sbin/init").arg0("init").exec();
    Err(Error::Start { program: "/sbin/init".to_owned(), source })
}

/// Removes everything on one file system, mount points left alone.
fn remove_below(folder: &Path, device: u64) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let (path, Ok(meta)) = (entry.path(), entry.metadata()) else { continue };
        if meta.dev() != device {
            continue;
        }
        if meta.is_dir() {
            remove_below(&path, device);
            let _ = fs::remove_dir(&path);
        } else {
            let _ = fs::remove_file(&path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn likely_partitions_come_first() {
        let block = |name: &str, label: &str| Block {
            name: name.into(),
            disk: "d".into(),
            number: 1,
            label: label.into(),
        };
        let blocks =
            vec![block("sda", ""), block("sda1", "boot"), block("vda2", "root-a"), block("vda3", "root-b")];
        let names: Vec<_> = by_hope(blocks).into_iter().map(|block| block.name).collect();
        assert_eq!(names, ["vda2", "vda3", "sda", "sda1"]);
    }

    #[test]
    fn removes_all_of_one_file_system() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("a/b")).unwrap();
        fs::write(root.path().join("a/b/c"), "x").unwrap();
        std::os::unix::fs::symlink("/etc", root.path().join("a/link")).unwrap();
        let device = fs::metadata(root.path()).unwrap().dev();
        remove_below(root.path(), device + 1);
        assert!(root.path().join("a/b/c").exists());
        remove_below(root.path(), device);
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
        assert!(Path::new("/etc").exists());
    }
}

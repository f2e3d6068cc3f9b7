//! Block devices as sysfs shows them.

use std::fs;
use std::path::{Path, PathBuf};

/// One disk or partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Block {
    /// Kernel name: `vda2`, `mmcblk0p2`.
    pub name: String,
    /// The disk it is a part of, by kernel name; itself if it is a disk.
    pub disk: String,
    /// Number within its disk; 0 for a disk.
    pub number: u32,
    /// The GPT's name for it; empty if it has none.
    pub label: String,
}

impl Block {
    /// Its device node.
    pub(crate) fn node(&self) -> PathBuf {
        Path::new("/dev").join(&self.name)
    }
}

/// All block devices that can hold a root or data partition: no RAM disks, loops, optical or mapped ones.
pub(crate) fn list(class: &Path) -> Vec<Block> {
    const NONE_OF: [&str; 7] = ["loop", "ram", "zram", "sr", "fd", "dm-", "md"];
    let names = fs::read_dir(class).into_iter().flatten().flatten();
    let names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut found: Vec<_> = names
        .filter(|name| !NONE_OF.iter().any(|prefix| name.starts_with(prefix)))
        .filter_map(|name| describe(class, name))
        .collect();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

fn describe(class: &Path, name: String) -> Option<Block> {
    let folder = fs::canonicalize(class.join(&name)).ok()?;
    let uevent = fs::read_to_string(folder.join("uevent")).unwrap_or_default();
    let field = |key: &str| {
        uevent
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
            .unwrap_or_default()
            .to_owned()
    };
    let is_partition = field("DEVTYPE") == "partition";
    let disk = if is_partition {
        folder.parent()?.file_name()?.to_string_lossy().into_owned()
    } else {
        name.clone()
    };
    Some(Block { name, disk, number: field("PARTN").parse().unwrap_or(0), label: field("PARTNAME") })
}

/// The kernel's name of a disk's partition: a disk whose name ends with a digit gets a `p` between.
pub(crate) fn partition_name(disk: &str, number: u32) -> String {
    let between = if disk.ends_with(|c: char| c.is_ascii_digit()) { "p" } else { "" };
    format!("{disk}{between}{number}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_disks_and_partitions() {
        let root = tempfile::tempdir().unwrap();
        let disk = root.path().join("devices/vda");
        fs::create_dir_all(disk.join("vda2")).unwrap();
        fs::write(disk.join("uevent"), "DEVNAME=vda\nDEVTYPE=disk\n").unwrap();
        fs::write(disk.join("vda2/uevent"), "DEVNAME=vda2\nDEVTYPE=partition\nPARTN=2\nPARTNAME=root-a\n")
            .unwrap();
        let class = root.path().join("class");
        fs::create_dir_all(class.join("loop0")).unwrap();
        std::os::unix::fs::symlink(&disk, class.join("vda")).unwrap();
        std::os::unix::fs::symlink(disk.join("vda2"), class.join("vda2")).unwrap();
        let found = list(&class);
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].name.as_str(), found[0].disk.as_str()), ("vda", "vda"));
        let wanted = Block { name: "vda2".into(), disk: "vda".into(), number: 2, label: "root-a".into() };
        assert_eq!(found[1], wanted);
    }

    #[test]
    fn names_partitions_as_the_kernel_does() {
        assert_eq!(partition_name("vda", 4), "vda4");
        assert_eq!(partition_name("mmcblk0", 4), "mmcblk0p4");
        assert_eq!(partition_name("nvme0n1", 1), "nvme0n1p1");
    }
}

//! The kernel's file systems as a table, and taking all mounts down again.

use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::CWD;
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};

use crate::error::{Error, Result};
use crate::file;

const NS: MountFlags = MountFlags::NOSUID;
const NSD: MountFlags = NS.union(MountFlags::NODEV);
const NSDE: MountFlags = NSD.union(MountFlags::NOEXEC);

/// One mount.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mount {
    /// Where.
    pub target: &'static str,
    /// What the kernel calls the file system.
    pub kind: &'static str,
    /// Flags.
    pub flags: MountFlags,
    /// Options of that file system.
    pub options: &'static str,
    /// Whether the machine cannot do without it.
    pub required: bool,
}

/// What the initrd mounts; the root keeps these by moving them.
pub(crate) const FIRST: [Mount; 4] = [
    Mount { target: "/proc", kind: "proc", flags: NSDE, options: "", required: true },
    Mount { target: "/sys", kind: "sysfs", flags: NSDE, options: "", required: true },
    Mount { target: "/dev", kind: "devtmpfs", flags: NS, options: "mode=0755", required: true },
    // No noexec: crun may copy itself here.
    Mount { target: "/run", kind: "tmpfs", flags: NSD, options: "mode=0755,size=20%", required: true },
];

/// What PID 1 adds. A missing optional one is a kernel without that feature.
pub(crate) const SECOND: [Mount; 9] = [
    Mount {
        target: "/dev/pts",
        kind: "devpts",
        flags: NS.union(MountFlags::NOEXEC),
        options: "mode=0620,gid=5,ptmxmode=0666",
        required: true,
    },
    Mount { target: "/dev/shm", kind: "tmpfs", flags: NSD, options: "mode=1777,size=20%", required: true },
    Mount { target: "/dev/mqueue", kind: "mqueue", flags: NSDE, options: "", required: false },
    Mount {
        target: "/tmp",
        kind: "tmpfs",
        flags: NSD,
        options: "mode=1777,size=10%,nr_inodes=100k",
        required: true,
    },
    Mount {
        target: "/sys/fs/cgroup",
        kind: "cgroup2",
        flags: NSDE,
        options: "nsdelegate,memory_recursiveprot",
        required: true,
    },
    Mount { target: "/sys/fs/bpf", kind: "bpf", flags: NSDE, options: "mode=0700", required: false },
    Mount { target: "/sys/fs/pstore", kind: "pstore", flags: NSDE, options: "", required: false },
    Mount { target: "/sys/kernel/security", kind: "securityfs", flags: NSDE, options: "", required: false },
    Mount {
        target: "/sys/firmware/efi/efivars",
        kind: "efivarfs",
        flags: NSDE.union(MountFlags::RDONLY),
        options: "",
        required: false,
    },
];

impl Mount {
    /// Mounts it, below `root`. That it is there already is success; that an optional one cannot be is none of an
    /// error either.
    pub(crate) fn mount(&self) -> Result<()> {
        if is_mounted(self.target) {
            return Ok(());
        }
        // On kernel file systems the folder is the kernel's to make; elsewhere this helps the initrd.
        let _ = std::fs::create_dir_all(self.target);
        match attach(self.kind, self.target, self.kind, self.flags, self.options) {
            Err(Error::Mount { source, .. }) if source.raw_os_error() == Some(libc::EBUSY) => Ok(()),
            Err(_) if !self.required => Ok(()),
            done => done,
        }
    }
}

/// mount(2) with words for its failure.
pub(crate) fn attach(
    source: impl AsRef<Path>,
    target: impl AsRef<Path>,
    kind: &str,
    flags: MountFlags,
    options: &str,
) -> Result<()> {
    let options = std::ffi::CString::new(options).unwrap_or_default();
    rustix::mount::mount(source.as_ref(), target.as_ref(), kind, flags, Some(options.as_c_str()))
        .map_err(|errno| failure(source.as_ref(), target.as_ref(), errno.into()))
}

/// Moves a mount.
pub(crate) fn shift(source: impl AsRef<Path>, target: impl AsRef<Path>) -> Result<()> {
    rustix::mount::mount_move(source.as_ref(), target.as_ref())
        .map_err(|errno| failure(source.as_ref(), target.as_ref(), errno.into()))
}

/// Makes the tree shared: containers' mounts must reach the host's namespace and back.
pub(crate) fn share_root() -> Result<()> {
    let flags = MountPropagationFlags::SHARED | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", flags)
        .map_err(|errno| failure(Path::new("shared propagation"), Path::new("/"), errno.into()))
}

/// `/etc`: the image's below, a tmpfs above that is filled anew at each boot.
pub(crate) fn overlay_etc() -> Result<()> {
    if mounted(&file::read("/proc/self/mountinfo")?)
        .iter()
        .any(|m| m.target == Path::new("/etc") && m.kind == "overlay")
    {
        return Ok(());
    }
    file::make_dir("/run/etc/upper", 0o755)?;
    file::make_dir("/run/etc/work", 0o755)?;
    let options = "lowerdir=/etc,upperdir=/run/etc/upper,workdir=/run/etc/work";
    attach("overlay", "/etc", "overlay", NSD, options)
}

fn failure(what: &Path, target: &Path, source: io::Error) -> Error {
    Error::Mount { what: what.display().to_string(), target: target.display().to_string(), source }
}

/// A line of mountinfo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mounted {
    /// Mount point.
    pub target: PathBuf,
    /// File system.
    pub kind: String,
    /// Device, or what stands for it.
    pub source: String,
}

/// Reads `/proc/self/mountinfo` (proc(5)), in the order of mounting.
pub(crate) fn mounted(mountinfo: &str) -> Vec<Mounted> {
    let line = |line: &str| {
        let (before, after) = line.split_once(" - ")?;
        let target = unescape(before.split(' ').nth(4)?);
        let mut words = after.split(' ');
        let (kind, source) = (words.next()?.to_owned(), unescape(words.next()?));
        Some(Mounted { target: target.into(), kind, source })
    };
    mountinfo.lines().filter_map(line).collect()
}

/// Blanks and the like are written as three octal digits.
fn unescape(text: &str) -> String {
    let mut out = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let code = tail
            .get(..3)
            .and_then(|d| std::str::from_utf8(d).ok())
            .and_then(|d| u8::from_str_radix(d, 8).ok());
        match (byte, code) {
            (b'\\', Some(code)) => {
                out.push(code);
                rest = tail.get(3..).unwrap_or_default();
            }
            _ => {
                out.push(byte);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Whether something is mounted at exactly this place.
pub(crate) fn is_mounted(target: impl AsRef<Path>) -> bool {
    let text = file::read("/proc/self/mountinfo").unwrap_or_default();
    mounted(&text).iter().any(|mount| mount.target == target.as_ref())
}

/// In which order to unmount. Overlays first: a container's root hidden below `/run` keeps the data file system
/// alive although its own unmount succeeds, and its journal then stays open (seen with e2fsck). Then the rest,
/// last mounted first. What the kernel needs to the end stays.
pub(crate) fn unmount_order(mounts: &[Mounted]) -> Vec<PathBuf> {
    const KEEP: [&str; 4] = ["/", "/proc", "/sys", "/dev"];
    let going = |mount: &&Mounted| !KEEP.iter().any(|keep| mount.target == Path::new(keep));
    let overlays = mounts.iter().rev().filter(|m| m.kind == "overlay" && m.target != Path::new("/etc"));
    let rest = mounts.iter().rev().filter(|m| m.kind != "overlay" || m.target == Path::new("/etc"));
    overlays.chain(rest).filter(going).map(|mount| mount.target.clone()).collect()
}

/// Unmounts everything, in rounds: each round frees what the next one needs. What stays busy is detached, after
/// being made read-only, and named.
pub(crate) fn unmount_all() -> Vec<PathBuf> {
    const ROUNDS: usize = 5;
    let mut left = Vec::new();
    for _ in 0..ROUNDS {
        let mounts = mounted(&file::read("/proc/self/mountinfo").unwrap_or_default());
        left = unmount_order(&mounts);
        left.retain(|target| rustix::mount::unmount(target, UnmountFlags::empty()).is_err());
        if left.is_empty() {
            return left;
        }
    }
    // Kernel and memory file systems hold nothing that could be lost.
    let mounts = mounted(&file::read("/proc/self/mountinfo").unwrap_or_default());
    let on_disk = |target: &Path| {
        mounts.iter().any(|m| m.target == target && ["ext4", "vfat", "overlay"].contains(&m.kind.as_str()))
    };
    for target in &left {
        let _ = rustix::mount::mount_remount(target, MountFlags::RDONLY, c"");
        let _ = rustix::mount::unmount(target, UnmountFlags::DETACH);
    }
    left.retain(|target| on_disk(target));
    left
}

/// Unmounts one that nobody uses.
pub(crate) fn unmount(target: &str) -> Result<()> {
    rustix::mount::unmount(target, UnmountFlags::empty()).map_err(|errno| Error::Control {
        act: "unmount",
        device: target.to_owned(),
        source: errno.into(),
    })
}

/// Flushes one file system.
pub(crate) fn sync_at(path: impl AsRef<Path>) -> Result<()> {
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC;
    rustix::fs::openat(CWD, path.as_ref(), flags, rustix::fs::Mode::empty())
        .and_then(rustix::fs::syncfs)
        .map_err(|errno| Error::write(path.as_ref())(errno.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const INFO: &str = "\
21 1 254:0 / / ro shared:1 - squashfs /dev/dm-0 ro
22 21 0:20 / /proc rw - proc proc rw
23 21 0:21 / /run rw - tmpfs tmpfs rw
24 21 0:40 / /etc rw - overlay overlay rw
25 21 254:4 / /var rw,noatime - ext4 /dev/vda4 rw
26 23 0:50 / /run/containerd/io.containerd.runtime.v2.task/openfaas-fn/a\\040b/rootfs rw - overlay overlay rw
27 21 254:1 / /boot ro - vfat /dev/vda1 ro
broken line
";

    #[test]
    fn reads_mountinfo() {
        let mounts = mounted(INFO);
        assert_eq!(mounts.len(), 7);
        assert!(mounts[5].target.ends_with("a b/rootfs"));
        assert_eq!(
            mounts[4],
            Mounted { target: "/var".into(), kind: "ext4".into(), source: "/dev/vda4".into() }
        );
    }

    #[test]
    fn overlays_go_before_the_disk_below_them() {
        let order = unmount_order(&mounted(INFO));
        let at = |name: &str| order.iter().position(|p| p.ends_with(name));
        assert_eq!(at("rootfs"), Some(0));
        assert!(at("var") > at("rootfs") && at("run") > at("rootfs"));
        assert!(at("etc") < at("run"), "{order:?}");
        assert_eq!(at("proc"), None);
        assert!(!order.contains(&PathBuf::from("/")));
    }

    #[test]
    fn the_live_tables_have_no_doubles() {
        let targets: Vec<_> = FIRST.iter().chain(&SECOND).map(|mount| mount.target).collect();
        let mut unique = targets.clone();
        unique.sort_unstable();
        unique.dedup();
        assert_eq!(unique.len(), targets.len());
    }
}

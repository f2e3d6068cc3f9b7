//! The root file system of a container, as containerd's snapshotter describes it.

use std::ffi::CString;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use containerd_shim_protos::types::mount::Mount;
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen, move_mount,
};

use crate::failure::Failure;

/// The kernel takes at most a page of options in the old call (mount(2)).
const OLD_CALL_BYTES: usize = 4095;

/// Options that are flags of the call, with what they set.
const FLAGS: [(&str, MsFlags); 6] = [
    ("ro", MsFlags::MS_RDONLY),
    ("nodev", MsFlags::MS_NODEV),
    ("nosuid", MsFlags::MS_NOSUID),
    ("noexec", MsFlags::MS_NOEXEC),
    ("bind", MsFlags::MS_BIND),
    ("rbind", MsFlags::MS_BIND.union(MsFlags::MS_REC)),
];

/// Mounts one upon the other. A failure leaves none.
pub fn attach(mounts: &[Mount], target: &Path) -> Result<(), Failure> {
    for one in mounts {
        let done = if one.options.join(",").len() > OLD_CALL_BYTES {
            by_parts(one, target)
        } else {
            at_once(one, target)
        };
        if let Err(source) = done {
            let _ = detach(target);
            return Err(Failure::Io {
                act: "mount the root file system on",
                path: target.to_owned(),
                source,
            });
        }
    }
    Ok(())
}

/// Unmounts all that is mounted there.
pub fn detach(target: &Path) -> Result<(), Failure> {
    loop {
        match umount2(target, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) => {}
            // Nothing is mounted there any more, or the folder is gone.
            Err(Errno::EINVAL | Errno::ENOENT) => return Ok(()),
            Err(errno) => return Err(Failure::errno("unmount", target)(errno)),
        }
    }
}

/// The flags and the rest of the options.
fn parts(options: &[String]) -> (MsFlags, Vec<&str>) {
    let mut flags = MsFlags::empty();
    let mut rest = Vec::new();
    for option in options {
        match FLAGS.iter().find(|(name, _)| name == option) {
            Some((_, flag)) => flags |= *flag,
            None if option == "rw" => {}
            None => rest.push(option.as_str()),
        }
    }
    (flags, rest)
}

fn at_once(one: &Mount, target: &Path) -> io::Result<()> {
    let (flags, rest) = parts(&one.options);
    let rest = (!rest.is_empty()).then(|| rest.join(","));
    mount(Some(one.source.as_str()), target, Some(one.type_.as_str()), flags, rest.as_deref())?;
    if flags.contains(MsFlags::MS_BIND | MsFlags::MS_RDONLY) {
        // A bind mount takes its flags only when it is there.
        mount(None::<&str>, target, None::<&str>, flags | MsFlags::MS_REMOUNT, None::<&str>)?;
    }
    Ok(())
}

/// An image of very many layers: the new calls (fsopen(2), Linux 6.8 for `lowerdir+`) take each by itself.
fn by_parts(one: &Mount, target: &Path) -> io::Result<()> {
    let (flags, rest) = parts(&one.options);
    let context = fsopen(one.type_.as_str(), FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(context.as_fd(), "source", one.source.as_str())?;
    for option in rest {
        match option.split_once('=') {
            Some(("lowerdir", layers)) => {
                for layer in layers.split(':') {
                    fsconfig_set_string(context.as_fd(), "lowerdir+", layer)?;
                }
            }
            Some((name, value)) => fsconfig_set_string(context.as_fd(), name, value)?,
            None => fsconfig_set_flag(context.as_fd(), option)?,
        }
    }
    fsconfig_create(context.as_fd())?;
    let mut attributes = MountAttrFlags::empty();
    for (flag, attribute) in [
        (MsFlags::MS_RDONLY, MountAttrFlags::MOUNT_ATTR_RDONLY),
        (MsFlags::MS_NODEV, MountAttrFlags::MOUNT_ATTR_NODEV),
        (MsFlags::MS_NOSUID, MountAttrFlags::MOUNT_ATTR_NOSUID),
        (MsFlags::MS_NOEXEC, MountAttrFlags::MOUNT_ATTR_NOEXEC),
    ] {
        attributes.set(attribute, flags.contains(flag));
    }
    let made = fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    let target = CString::new(target.as_os_str().as_encoded_bytes())?;
    move_mount(
        made.as_fd(),
        c"",
        rustix::fs::CWD,
        target.as_c_str(),
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_no_options() {
        let options = ["ro", "index=off", "rw", "nodev", "lowerdir=/a:/b"].map(str::to_owned);
        let (flags, rest) = parts(&options);
        assert_eq!(flags, MsFlags::MS_RDONLY | MsFlags::MS_NODEV);
        assert_eq!(rest, ["index=off", "lowerdir=/a:/b"]);
    }
}

//! A service's own view of the file system, made by the new process between fork and exec: system calls only.

use std::ffi::{CStr, CString};
use std::io;
use std::path::Path;

use super::declaration::Sandbox;

/// The declaration's folders, ready for system calls.
#[derive(Debug)]
pub(super) struct View {
    writable: Vec<CString>,
    hidden: Vec<CString>,
    private_tmp: bool,
}

/// `struct mount_attr` of mount_setattr(2).
#[repr(C)]
struct Attributes {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

const READ_ONLY: u64 = libc::MOUNT_ATTR_RDONLY;

impl View {
    /// That of a declaration; makes folders to write in that are missing. `None` where it sees all.
    pub(super) fn of(sandbox: &Sandbox) -> Option<Self> {
        let Sandbox::Folders { writable, hidden, private_tmp } = sandbox else { return None };
        for folder in writable.iter().filter(|folder| !Path::new(folder).exists()) {
            // Its absence is said by the mount that fails.
            let _ = std::fs::create_dir_all(folder);
        }
        let words = |list: &[&str]| list.iter().filter_map(|path| CString::new(*path).ok()).collect();
        Some(Self { writable: words(writable), hidden: words(hidden), private_tmp: *private_tmp })
    }

    /// Enters it. What is mounted and unmounted outside later reaches it too: it holds no function's files.
    pub(super) fn enter(&self) -> io::Result<()> {
        // SAFETY: plain calls; no pointer is kept.
        check(unsafe { libc::unshare(libc::CLONE_NEWNS) })?;
        mount(None, c"/", None, libc::MS_REC | libc::MS_SLAVE, None)?;
        change(c"/", READ_ONLY, 0)?;
        for folder in &self.writable {
            mount(Some(folder), folder, None, libc::MS_BIND | libc::MS_REC, None)?;
            change(folder, 0, READ_ONLY)?;
        }
        let closed = libc::MS_RDONLY | libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
        for folder in &self.hidden {
            match mount(Some(c"none"), folder, Some(c"tmpfs"), closed, Some(c"mode=0,size=4k")) {
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
                done => done?,
            }
        }
        if self.private_tmp {
            let flags = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
            mount(Some(c"tmp"), c"/tmp", Some(c"tmpfs"), flags, Some(c"mode=1777,size=5%,nr_inodes=10k"))?;
        }
        Ok(())
    }
}

fn check(done: i32) -> io::Result<()> {
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn mount(
    source: Option<&CStr>,
    target: &CStr,
    kind: Option<&CStr>,
    flags: libc::c_ulong,
    options: Option<&CStr>,
) -> io::Result<()> {
    let pointer = |text: Option<&CStr>| text.map_or(std::ptr::null(), CStr::as_ptr);
    // SAFETY: null or live strings.
    check(unsafe {
        libc::mount(pointer(source), target.as_ptr(), pointer(kind), flags, pointer(options).cast())
    })
}

/// Sets and clears attributes of a mount and all below it.
fn change(target: &CStr, set: u64, clear: u64) -> io::Result<()> {
    let attributes = Attributes { set, clear, propagation: 0, user_namespace: 0 };
    // SAFETY: the structure is live and its size is given.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            target.as_ptr(),
            libc::AT_RECURSIVE,
            &raw const attributes,
            size_of::<Attributes>(),
        )
    };
    check(done as i32)
}

//! What a service's new process does to itself between fork and exec.

use std::ffi::CString;
use std::io;
use std::os::fd::RawFd;

use super::capability::Set;
use super::declaration::Resource;
use super::sandbox::View;

/// The acts, prepared before the fork: system calls only are allowed after it, because the parent may have had threads
/// that hold locks (signal-safety(7)).
pub(super) struct Setup {
    /// `cgroup.procs` of its group.
    pub join: Option<RawFd>,
    /// Descriptors that it keeps.
    pub sockets: Vec<RawFd>,
    /// `oom_score_adj`.
    pub oom: CString,
    /// Resource, soft limit, hard limit.
    pub rlimits: &'static [(Resource, u64, u64)],
    /// Who it becomes.
    pub user: u32,
    /// And its only group.
    pub group: u32,
    /// Its capabilities, whoever it becomes; `None`: what the user has.
    pub keep: Option<Set>,
    /// What it sees.
    pub view: Option<View>,
}

/// `struct __user_cap_header_struct` and data, version 3 (capget(2)).
#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

#[repr(C)]
struct Words {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

const CAPABILITY_VERSION_3: u32 = 0x2008_0522;

fn check(done: i32) -> io::Result<()> {
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

impl Setup {
    /// Does all, in the order in which the right to do it is still there.
    pub(super) fn apply(&self) -> io::Result<()> {
        self.place()?;
        if let Some(view) = &self.view {
            view.enter()?;
        }
        if let Some(keep) = self.keep {
            bound(keep)?;
        }
        self.become_user()?;
        if let Some(keep) = self.keep {
            hold(keep)?;
            // SAFETY: plain call without pointers.
            check(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) })?;
        }
        Ok(())
    }

    /// Group, signals, session, limits, descriptors.
    fn place(&self) -> io::Result<()> {
        // SAFETY: all pointers are to live memory of the right size.
        unsafe {
            if let Some(fd) = self.join {
                check(libc::write(fd, c"0".as_ptr().cast(), 1) as i32)?;
            }
            let mut none: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut none);
            check(libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut()))?;
            libc::umask(0o022);
            check(libc::setsid())?;
            for (resource, soft, hard) in self.rlimits {
                let limit = libc::rlimit { rlim_cur: *soft, rlim_max: *hard };
                let resource = match resource {
                    Resource::Files => libc::RLIMIT_NOFILE,
                    Resource::Core => libc::RLIMIT_CORE,
                };
                check(libc::setrlimit(resource, &raw const limit))?;
            }
            let fd = libc::open(c"/proc/self/oom_score_adj".as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
            if fd >= 0 {
                libc::write(fd, self.oom.as_ptr().cast(), self.oom.count_bytes());
                libc::close(fd);
            }
            for fd in &self.sockets {
                check(libc::fcntl(*fd, libc::F_SETFD, 0))?;
            }
        }
        Ok(())
    }

    fn become_user(&self) -> io::Result<()> {
        if self.user == 0 && self.group == 0 {
            return Ok(());
        }
        // SAFETY: plain calls; the empty list of groups is not read.
        unsafe {
            // What it keeps would go with root.
            check(libc::prctl(libc::PR_SET_KEEPCAPS, 1, 0, 0, 0))?;
            check(libc::setgroups(0, std::ptr::null()))?;
            check(libc::setgid(self.group))?;
            check(libc::setuid(self.user))
        }
    }
}

/// Takes all others out of the bounding set: no exec brings them back.
fn bound(keep: Set) -> io::Result<()> {
    let mut number = 0;
    // SAFETY: plain calls without pointers.
    unsafe {
        // Until the kernel says that it knows no such number.
        while libc::prctl(libc::PR_CAPBSET_READ, number, 0, 0, 0) >= 0 {
            if !keep.has(number) {
                check(libc::prctl(libc::PR_CAPBSET_DROP, number, 0, 0, 0))?;
            }
            number += 1;
        }
    }
    Ok(())
}

/// Has exactly these, and hands them on at exec whoever it is.
fn hold(keep: Set) -> io::Result<()> {
    let header = Header { version: CAPABILITY_VERSION_3, pid: 0 };
    let words = keep.words().map(|word| Words { effective: word, permitted: word, inheritable: word });
    // SAFETY: both structures are live, and version 3 has two elements of data.
    unsafe {
        check(libc::syscall(libc::SYS_capset, &raw const header, words.as_ptr()) as i32)?;
        for number in (0..64_u64).filter(|number| keep.has(*number)) {
            check(libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE, number, 0, 0))?;
        }
    }
    Ok(())
}

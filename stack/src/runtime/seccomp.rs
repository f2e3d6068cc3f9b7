//! The system calls that a function's processes may make (runtime-spec, config-linux.md, "Seccomp").
//!
//! What programs use is allowed, by name. What changes the machine, looks into other processes' memory through the
//! kernel's back doors, or opens parts of the kernel that were broken often (user namespaces, io_uring, BPF, keyrings) is refused
//! with EPERM. What is in neither list (a call of a newer kernel) is answered with ENOSYS, as an older kernel would: then
//! libraries take their other way.

use serde_json::{Value, json};

const EPERM: i32 = 1;
const ENOSYS: i32 = 38;

/// Files and descriptors.
const FILES: &str = "access chdir chmod chown chown32 close close_range copy_file_range creat dup dup2 dup3 faccessat \
    faccessat2 fadvise64 fadvise64_64 arm_fadvise64_64 fallocate fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat \
    fcntl fcntl64 fdatasync fgetxattr flistxattr flock fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs fstatfs64 fsync \
    ftruncate ftruncate64 futimesat getcwd getdents getdents64 getxattr getxattrat inotify_add_watch inotify_init inotify_init1 \
    inotify_rm_watch ioctl lchown lchown32 lgetxattr link linkat listxattr listxattrat llistxattr _llseek lremovexattr lseek \
    lsetxattr lstat lstat64 mkdir mkdirat mknod mknodat name_to_handle_at newfstatat open openat openat2 pipe pipe2 pread64 \
    preadv preadv2 pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv removexattr removexattrat rename renameat \
    renameat2 rmdir sendfile sendfile64 setxattr setxattrat splice stat stat64 statfs statfs64 statx symlink symlinkat sync \
    sync_file_range sync_file_range2 syncfs tee truncate truncate64 umask unlink unlinkat utime utimensat utimensat_time64 \
    utimes vmsplice write writev cachestat";

/// Waiting for descriptors.
const WAITING: &str = "epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old \
    eventfd eventfd2 _newselect poll ppoll ppoll_time64 pselect6 pselect6_time64 select signalfd signalfd4 timerfd_create \
    timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64 io_cancel io_destroy io_getevents io_pgetevents \
    io_pgetevents_time64 io_setup io_submit fanotify_mark";

/// Sockets; which families, see `FAMILIES`. Not `socketcall` of 32-bit x86: its arguments lie in memory, where no filter looks.
const SOCKETS: &str = "accept accept4 bind connect getpeername getsockname getsockopt listen recv recvfrom recvmmsg \
    recvmmsg_time64 recvmsg send sendmmsg sendmsg sendto setsockopt shutdown socketpair";

/// Memory.
const MEMORY: &str = "brk madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mlock mlock2 mlockall mmap mmap2 \
    mprotect mremap mseal msync munlock munlockall munmap pkey_alloc pkey_free pkey_mprotect process_madvise process_mrelease \
    remap_file_pages";

/// Processes, threads and signals.
const PROCESSES: &str = "alarm arch_prctl capget capset execve execveat exit exit_group fork futex futex_requeue futex_time64 \
    futex_wait futex_waitv futex_wake getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getitimer getpgid \
    getpgrp getpid getppid getpriority getresgid getresgid32 getresuid getresuid32 getrlimit get_robust_list getrusage getsid \
    gettid get_thread_area getuid getuid32 ioprio_get ioprio_set kill landlock_add_rule landlock_create_ruleset \
    landlock_restrict_self modify_ldt nice pause pidfd_open pidfd_send_signal prctl prlimit64 restart_syscall rseq rt_sigaction \
    rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 \
    rt_tgsigqueueinfo sched_getaffinity sched_getattr sched_getparam sched_get_priority_max sched_get_priority_min \
    sched_getscheduler sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam \
    sched_setscheduler sched_yield seccomp setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups setgroups32 \
    setitimer setpgid setpriority setregid setregid32 setresgid setresgid32 setresuid setresuid32 setreuid setreuid32 setrlimit \
    set_robust_list setsid set_thread_area set_tid_address setuid setuid32 sigaltstack sigprocmask sigreturn ugetrlimit tgkill \
    tkill vfork wait4 waitid waitpid arm_sync_file_range breakpoint cacheflush set_tls";

/// Time, and what the machine is.
const REST: &str = "adjtimex clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64 \
    clock_nanosleep clock_nanosleep_time64 getcpu getrandom gettimeofday nanosleep sysinfo syslog time timer_create \
    timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64 times uname \
    mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink \
    msgctl msgget msgrcv msgsnd semctl semget semop semtimedop semtimedop_time64 shmat shmctl shmdt shmget ipc \
    process_vm_readv process_vm_writev ptrace";

/// Known, and refused.
const REFUSED: &str = "acct add_key bpf chroot clock_settime clock_settime64 create_module delete_module fanotify_init \
    finit_module fsconfig fsmount fsopen fspick get_kernel_syms get_mempolicy init_module io_uring_enter io_uring_register \
    io_uring_setup ioperm iopl kcmp kexec_file_load kexec_load keyctl lookup_dcookie mbind migrate_pages mount mount_setattr \
    move_mount move_pages nfsservctl open_by_handle_at open_tree perf_event_open pidfd_getfd pivot_root query_module quotactl \
    quotactl_fd reboot request_key set_mempolicy set_mempolicy_home_node setdomainname sethostname setns settimeofday stime \
    swapoff swapon _sysctl sysfs umount umount2 unshare uselib userfaultfd ustat vhangup vm86 vm86old listmount statmount \
    open_tree_attr lsm_set_self_attr";

/// AF_UNIX, AF_INET, AF_INET6, AF_NETLINK (socket(2)): the others are for the machine, and every few years one of them
/// is a way out.
const FAMILIES: [u64; 4] = [1, 2, 10, 16];

/// CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID and NEWNET of clone(2).
const NEW_NAMESPACES: u64 = 0x7e02_0000;

/// personality(2): the usual one, and those without address randomisation or of 32 bits; and the question for it.
const PERSONALITIES: [u64; 5] = [0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// The filter.
pub fn filter() -> Value {
    let allowed = [FILES, WAITING, SOCKETS, MEMORY, PROCESSES, REST];
    let allowed: Vec<_> = allowed.iter().flat_map(|text| text.split_whitespace()).collect();
    let refused: Vec<_> = REFUSED.split_whitespace().collect();
    let mut rules = vec![
        json!({"names": allowed, "action": "SCMP_ACT_ALLOW"}),
        json!({"names": refused, "action": "SCMP_ACT_ERRNO", "errnoRet": EPERM}),
        // Its flags lie in memory, where no filter looks: libraries then use `clone`.
        json!({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": ENOSYS}),
        json!({"names": ["clone"], "action": "SCMP_ACT_ALLOW",
               "args": [{"index": 0, "value": NEW_NAMESPACES, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]}),
    ];
    let equal = |name: &str, value: u64| json!({"names": [name], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": value, "op": "SCMP_CMP_EQ"}]});
    rules.extend(FAMILIES.map(|family| equal("socket", family)));
    rules.extend(PERSONALITIES.map(|personality| equal("personality", personality)));
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": ENOSYS,
        "architectures": architectures(),
        "syscalls": rules,
    })
}

/// Those whose programs this machine's kernel runs: without a word about it, a filter lets none of the others run.
fn architectures() -> [&'static str; 2] {
    if cfg!(target_arch = "aarch64") {
        ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]
    } else {
        ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn no_call_is_named_twice() {
        let mut seen = BTreeSet::new();
        for word in [FILES, WAITING, SOCKETS, MEMORY, PROCESSES, REST, REFUSED]
            .iter()
            .flat_map(|t| t.split_whitespace())
        {
            assert!(seen.insert(word), "{word}");
        }
        assert!(!seen.contains("clone") && !seen.contains("socket") && !seen.contains("personality"));
    }

    #[test]
    fn namespaces_are_seven_flags() {
        // sched.h: CLONE_NEWNS 0x00020000, NEWCGROUP 0x02000000, NEWUTS 0x04000000, NEWIPC 0x08000000, NEWUSER 0x10000000,
        // NEWPID 0x20000000, NEWNET 0x40000000.
        let flags =
            [0x0002_0000, 0x0200_0000, 0x0400_0000, 0x0800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000_u64];
        assert_eq!(flags.iter().sum::<u64>(), NEW_NAMESPACES);
    }
}

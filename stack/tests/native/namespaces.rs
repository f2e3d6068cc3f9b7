//! Runs a test in network, mount and process namespaces of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::lab::Lab;

/// Set in the process that is inside the namespaces.
const INSIDE: &str = "BOTHY_NATIVE_FOLDER";

/// Runs a test of this program again inside its own namespaces, or its body when it is there already.
pub fn inside(name: &str, body: impl AsyncFnOnce(Lab)) {
    again(name, &["--exact", name, "--nocapture"], body);
}

/// The same with the words that lead this program back here.
pub fn again(name: &str, words: &[&str], body: impl AsyncFnOnce(Lab)) {
    if let Some(folder) = std::env::var_os(INSIDE) {
        own_cgroups(Path::new(&folder));
        let none = None::<&str>;
        // Sockets of the shims and records of crun go there.
        nix::mount::mount(Some("none"), "/run", Some("tmpfs"), nix::mount::MsFlags::empty(), none).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (connection, handle, _) = rtnetlink::new_connection().unwrap();
            tokio::spawn(connection);
            handle.link().set(rtnetlink::LinkUnspec::new_with_index(1).up().build()).execute().await.unwrap();
            body(Lab::new(&PathBuf::from(folder))).await;
        });
        return;
    }
    assert!(nix::unistd::geteuid().is_root(), "this test makes namespaces and containers: run it as root");
    let folder = tempfile::tempdir().unwrap();
    let status = Command::new("unshare")
        .args(["--net", "--mount", "--pid", "--cgroup", "--fork", "--kill-child", "--mount-proc"])
        .arg(std::env::current_exe().unwrap())
        .args(words)
        .env(INSIDE, folder.path())
        .status()
        .unwrap();
    if !status.success() {
        for log in ["containerd.log", "gateway.log", "worker.log", "nats.log"] {
            let text = std::fs::read_to_string(folder.path().join(log)).unwrap_or_default();
            let lines: Vec<_> = text.lines().filter(|line| !line.contains("loading plugin")).collect();
            eprintln!("--- {log}\n{}", lines[lines.len().saturating_sub(60)..].join("\n"));
        }
    }
    if let Some(all) = all_groups() {
        remove_groups(&group_of(&all, folder.path()));
    }
    assert!(status.success(), "{name} inside its namespaces: {status}");
}

/// Where the namespaces of a test see its control groups.
const CGROUPS: &str = "/sys/fs/cgroup";

/// The test's group below a mount of all groups.
fn group_of(all: &Path, folder: &Path) -> PathBuf {
    all.join(format!("bothy-test-{}", folder.file_name().unwrap().display()))
}

/// A hierarchy of the test's own, seen by this mount namespace alone: containers of two tests have the same names, and
/// the runtime kills all that is in a container's group. The product knows cgroup v2 only; a host of version 1 has the
/// other hierarchy too, without controllers: good enough for everything but limits.
fn own_cgroups(folder: &Path) {
    mount_cgroups();
    let group = group_of(Path::new(CGROUPS), folder);
    fs::create_dir(&group).unwrap();
    fs::write(group.join("cgroup.procs"), "0").unwrap();
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWCGROUP).unwrap();
    mount_cgroups();
    // A group with processes cannot give controllers to the groups below.
    fs::create_dir(Path::new(CGROUPS).join("test")).unwrap();
    fs::write(Path::new(CGROUPS).join("test/cgroup.procs"), "0").unwrap();
}

/// In the place of what the host has there: the kernel refuses to mount a hierarchy on itself.
fn mount_cgroups() {
    let _ = nix::mount::umount2(CGROUPS, nix::mount::MntFlags::MNT_DETACH);
    let (none, kind) = (None::<&str>, Some("cgroup2"));
    nix::mount::mount(Some("none"), CGROUPS, kind, nix::mount::MsFlags::empty(), none).unwrap();
}

/// Where the host sees them, if it does.
fn all_groups() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/mounts").unwrap();
    mounts.lines().find_map(|line| {
        let mut words = line.split(' ').skip(1);
        let place = words.next()?;
        (words.next() == Some("cgroup2")).then(|| PathBuf::from(place))
    })
}

/// Removes a group and those below it, whose processes have ended; they take a moment to be gone.
fn remove_groups(group: &Path) {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_groups(&entry.path());
        }
    }
    for _ in 0..100 {
        match fs::remove_dir(group) {
            Err(error) if error.kind() == std::io::ErrorKind::ResourceBusy => {
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            _ => return,
        }
    }
}

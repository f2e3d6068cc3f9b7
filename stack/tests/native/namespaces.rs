//! Runs a test in network, mount and process namespaces of its own.

use std::path::PathBuf;
use std::process::Command;

use crate::lab::Lab;

/// Set in the process that is inside the namespaces.
const INSIDE: &str = "BOTHY_NATIVE_FOLDER";

/// Runs a test of this program again inside its own namespaces, or its body when it is there already.
pub fn inside(name: &str, body: impl AsyncFnOnce(Lab)) {
    if let Some(folder) = std::env::var_os(INSIDE) {
        // The product knows cgroup v2 only. A host of version 1 has the other hierarchy too, without controllers: good
        // enough for everything but limits. Seen by this mount namespace alone.
        let (none, kind) = (None::<&str>, Some("cgroup2"));
        nix::mount::mount(Some("none"), "/sys/fs/cgroup", kind, nix::mount::MsFlags::empty(), none).unwrap();
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
        .args(["--exact", name, "--nocapture"])
        .env(INSIDE, folder.path())
        .status()
        .unwrap();
    if !status.success() {
        for log in ["containerd.log", "gateway.log"] {
            let text = std::fs::read_to_string(folder.path().join(log)).unwrap_or_default();
            let lines: Vec<_> = text.lines().filter(|line| !line.contains("loading plugin")).collect();
            eprintln!("--- {log}\n{}", lines[lines.len().saturating_sub(60)..].join("\n"));
        }
    }
    assert!(status.success(), "{name} inside its namespaces: {status}");
}

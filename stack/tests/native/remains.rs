//! What instances could have left behind.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::lab::{Lab, SHIM, links};

impl Lab {
    /// Everything on the machine that an instance could have left behind.
    pub async fn leftovers(&self) -> Vec<String> {
        let mut found = Vec::new();
        let inside = |folder: &Path| -> Vec<PathBuf> {
            fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
        };
        for folder in ["netns", "fifo", "copies"] {
            found.extend(inside(&self.folder.join(folder)));
        }
        // Of each namespace.
        for folder in ["state/functions", "run/io.containerd.runtime.v2.task"] {
            found.extend(inside(&self.folder.join(folder)).iter().flat_map(|namespace| inside(namespace)));
        }
        if self.groups {
            let namespaces = inside(Path::new("/sys/fs/cgroup/workload"));
            let groups = namespaces.iter().flat_map(|namespace| inside(namespace));
            found.extend(groups.filter(|group| group.is_dir()));
        }
        let mut found: Vec<_> = found.into_iter().map(|path| path.display().to_string()).collect();
        found.extend(links().into_iter().filter(|name| name.starts_with("of0-")));
        let containerd = self.containerd();
        for namespace in containerd.namespaces().await.unwrap() {
            let namespace = namespace.name.as_str();
            let containers = containerd.containers_of(namespace, None).await.unwrap();
            found.extend(containers.into_iter().map(|container| format!("container {}", container.id)));
            let snapshots = containerd.instance_snapshots(namespace).await.unwrap();
            found.extend(snapshots.into_iter().map(|name| format!("snapshot {name}")));
        }
        found.extend(self.processes("/watchdog").into_iter().map(|pid| format!("process {pid}")));
        // A shim goes a moment after its last answer.
        let end = Instant::now() + Duration::from_secs(2);
        while !self.processes(SHIM).is_empty() && Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        found.extend(self.processes(SHIM).into_iter().map(|pid| format!("shim {pid}")));
        let sockets = fs::read_dir("/run/containerd/s").into_iter().flatten().flatten();
        found.extend(sockets.map(|entry| entry.path().display().to_string()));
        // Those of broken pulls go a moment later, and that of the collection of garbage after them.
        let end = Instant::now() + Duration::from_secs(30);
        let leases = async || containerd.leases("openfaas-fn").await.unwrap();
        let mut left = leases().await;
        while !left.is_empty() && Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(50)).await;
            left = leases().await;
        }
        found.extend(left.into_iter().map(|lease| format!("lease {lease}")));
        found
    }
}

//! The least that a start takes: the OCI runtime alone, without containerd, shim, network and gateway.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::figure::percentile;
use crate::lab::Lab;
use crate::{PROGRAM, layer};

const PORT: u16 = 9080;
const ID: &str = "floor";

/// Medians in milliseconds.
pub struct Floor {
    /// `crun start` of a container that was created before, to the first HTTP 200.
    pub start_ms: f64,
    /// `crun run` to the first HTTP 200.
    pub run_ms: f64,
    /// The write that thaws a frozen cgroup to the first HTTP 200.
    pub thaw_ms: f64,
}

/// Measures all of them, with the same program as the functions run.
pub async fn of_starts(lab: &Lab, rounds: usize) -> Floor {
    let bundle = bundle(&lab.folder.join("floor"));
    let crun = lab.folder.join("bin/crun");
    let call = |words: &[&str]| {
        let mut command = Command::new(&crun);
        command.args(words).stdin(Stdio::null()).stdout(Stdio::null());
        assert!(command.status().unwrap().success(), "crun {words:?}");
    };
    let folder = bundle.to_str().unwrap();
    let (mut starts, mut runs, mut thaws) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        call(&["create", "--bundle", folder, ID]);
        let began = Instant::now();
        call(&["start", ID]);
        answer().await;
        starts.push(milliseconds(began));
        call(&["delete", "--force", ID]);
        let began = Instant::now();
        call(&["run", "--detach", "--bundle", folder, ID]);
        answer().await;
        runs.push(milliseconds(began));
        let group = freeze(lab).await;
        let began = Instant::now();
        fs::write(group.join("cgroup.freeze"), "0").unwrap();
        answer().await;
        thaws.push(milliseconds(began));
        call(&["delete", "--force", ID]);
    }
    let median = |values| percentile(values, 50);
    Floor { start_ms: median(starts), run_ms: median(runs), thaw_ms: median(thaws) }
}

/// Puts the program into a cgroup of its own and freezes it.
async fn freeze(lab: &Lab) -> PathBuf {
    let group = Path::new("/sys/fs/cgroup/floor");
    fs::create_dir_all(group).unwrap();
    for pid in lab.processes(PROGRAM) {
        fs::write(group.join("cgroup.procs"), pid.to_string()).unwrap();
    }
    fs::write(group.join("cgroup.freeze"), "1").unwrap();
    let rests = || fs::read_to_string(group.join("cgroup.events")).unwrap().contains("frozen 1");
    let began = Instant::now();
    while !rests() {
        assert!(began.elapsed() < Duration::from_secs(10), "the floor's program does not come to rest");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    group.to_owned()
}

/// Since then.
pub fn milliseconds(began: Instant) -> f64 {
    began.elapsed().as_secs_f64() * 1e3
}

/// Asks until there is an answer.
async fn answer() {
    let began = Instant::now();
    while !ask().await.is_ok_and(|answer| answer.starts_with("HTTP/1.1 200")) {
        assert!(began.elapsed() < Duration::from_secs(10), "the floor's program does not answer");
        tokio::time::sleep(Duration::from_micros(200)).await;
    }
}

async fn ask() -> std::io::Result<String> {
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", PORT)).await?;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: floor\r\nconnection: close\r\n\r\n").await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

/// A bundle with the image's files and the namespaces of a function, but that of the network.
fn bundle(folder: &Path) -> PathBuf {
    let root = folder.join("rootfs");
    fs::create_dir_all(&root).unwrap();
    fs::write(folder.join("layer.tar"), layer()).unwrap();
    let mut unpack = Command::new("tar");
    assert!(unpack.arg("-xf").arg(folder.join("layer.tar")).arg("-C").arg(&root).status().unwrap().success());
    let kinds = ["pid", "ipc", "uts", "mount"].map(|kind| json!({"type": kind}));
    let config = json!({
        "ociVersion": "1.0.2",
        "process": {"user": {"uid": 1000, "gid": 1000}, "args": [PROGRAM, "echo", PORT.to_string()], "cwd": "/",
                    "env": ["PATH=/bin"], "noNewPrivileges": true},
        "root": {"path": "rootfs"},
        "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
        "linux": {"namespaces": kinds},
    });
    fs::write(folder.join("config.json"), config.to_string()).unwrap();
    folder.to_owned()
}

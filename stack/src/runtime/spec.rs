//! The OCI runtime specification (runtime-spec 1.0) of an instance.
//!
//! The process gets what faasd gives it or less: no capability at all. What a function may want of one is given
//! otherwise: low ports and ping by two sysctls of its own network namespace.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use super::limits::{Limits, Requests};
use super::seccomp;
use super::user::Identity;
use crate::containerd::Process;
use crate::desired::Document;

/// Search path where the image sets none: Docker's.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Processes and threads of one function at most.
const PIDS: i64 = 512;

/// Open files of a process: what select(2) can take. Who wants more raises it, up to our own limit or this.
const SOFT_FILES: u64 = 1024;
const MOST_FILES: u64 = 524_288;

/// What of the kernel's files is hidden: they tell of the machine, or of its other users.
const MASKED: [&str; 10] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// What of them must not be written.
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Where an instance's surroundings lie on the machine.
#[derive(Debug, Clone)]
pub struct Paths {
    /// Its network namespace.
    pub netns: PathBuf,
    /// Its `/etc/resolv.conf`.
    pub resolv_conf: PathBuf,
    /// Its `/etc/hosts`.
    pub hosts: PathBuf,
    /// Folder of its secrets, if it has some.
    pub secrets: Option<PathBuf>,
    /// Its cgroup; nothing: neither cgroup nor limits.
    pub cgroup: Option<String>,
}

/// Writes the specification. Without `limits` its cgroup sets none, not even ours. `time` is the longest that a call may
/// take.
pub fn specification(
    document: &Document,
    process: &Process,
    identity: &Identity,
    limits: Option<(Limits, Requests)>,
    paths: &Paths,
    time: Duration,
) -> Value {
    let cwd = if process.working_dir.is_empty() { "/" } else { &process.working_dir };
    let files = most_files();
    let args: Vec<_> = process.entrypoint.iter().chain(&process.cmd).collect();
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": identity.uid, "gid": identity.gid, "additionalGids": identity.groups},
            "args": args,
            "env": environment(document, process, time),
            "cwd": cwd,
            "capabilities": {"bounding": [], "effective": [], "permitted": []},
            "noNewPrivileges": true,
            // Not that of containerd, which the kernel spares: when memory ends, functions go before the appliance.
            "oomScoreAdj": FUNCTION_OOM_SCORE,
            "rlimits": [{"type": "RLIMIT_NOFILE", "soft": SOFT_FILES.min(files), "hard": files}],
        },
        "root": {"path": "rootfs", "readonly": document.read_only_root_filesystem},
        "hostname": document.name,
        "mounts": mounts(document, paths),
        "linux": linux(limits, paths),
    })
}

/// How much sooner than a service the kernel kills a function for its memory (proc(5), `oom_score_adj`).
const FUNCTION_OOM_SCORE: i32 = 500;

/// The runtime may raise no limit above its own where it lacks CAP_SYS_RESOURCE, and it is started as we are.
fn most_files() -> u64 {
    let own = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE);
    own.map_or(SOFT_FILES, |(_, hard)| hard.min(MOST_FILES))
}

/// The watchdog's time limits: as long as the gateway waits, and no longer.
const TIMEOUTS: [&str; 3] = ["read_timeout", "write_timeout", "exec_timeout"];

/// The machine's variables, the image's, then the request's, which win; `fprocess` is one of them.
fn environment(document: &Document, process: &Process, time: Duration) -> Vec<String> {
    // In Go's notation, which all watchdogs read.
    let time = format!("{}ms", time.as_millis());
    let mut variables: Vec<(&str, &str)> = Vec::new();
    let mut set = |name, value| match variables.iter_mut().find(|(known, _)| *known == name) {
        Some(variable) => variable.1 = value,
        None => variables.push((name, value)),
    };
    for name in TIMEOUTS {
        set(name, &time);
    }
    let image = [PATH].into_iter().chain(process.env.iter().map(String::as_str));
    for (name, value) in image.filter_map(|variable| variable.split_once('=')) {
        set(name, value);
    }
    if let Some(fprocess) = &document.env_process {
        set("fprocess", fprocess);
    }
    for (name, value) in &document.environment {
        set(name, value);
    }
    variables.into_iter().map(|(name, value)| format!("{name}={value}")).collect()
}

fn mounts(document: &Document, paths: &Paths) -> Vec<Value> {
    let mount = |destination: &str, kind: &str, options: &[&str]| json!({"destination": destination, "type": kind, "source": kind, "options": options});
    let bind = |source: &PathBuf, destination: &str| {
        json!({"destination": destination, "type": "bind", "source": source,
               "options": ["rbind", "ro", "nosuid", "nodev", "noexec"]})
    };
    let mut mounts = vec![
        mount("/proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount(
            "/dev/pts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        json!({"destination": "/dev/shm", "type": "tmpfs", "source": "shm",
               "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]}),
        mount("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
    ];
    if paths.cgroup.is_some() {
        mounts.push(mount("/sys/fs/cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]));
    }
    if document.read_only_root_filesystem {
        mounts.push(mount("/tmp", "tmpfs", &["nosuid", "nodev", "mode=1777"]));
    }
    mounts.push(bind(&paths.resolv_conf, "/etc/resolv.conf"));
    mounts.push(bind(&paths.hosts, "/etc/hosts"));
    if let Some(folder) = &paths.secrets {
        // The folder and not its files: a file that is mounted would stay the old one when it is replaced.
        mounts.push(bind(folder, "/var/openfaas/secrets"));
    }
    mounts
}

fn linux(limits: Option<(Limits, Requests)>, paths: &Paths) -> Value {
    let mut namespaces: Vec<_> =
        ["pid", "ipc", "uts", "mount"].iter().map(|kind| json!({"type": kind})).collect();
    namespaces.push(json!({"type": "network", "path": paths.netns}));
    let mut linux = json!({
        "maskedPaths": MASKED,
        "readonlyPaths": READ_ONLY,
        "seccomp": seccomp::filter(),
        "sysctl": {
            "net.ipv4.ip_unprivileged_port_start": "0",
            "net.ipv4.ping_group_range": "0 2147483647",
        },
    });
    if let Some(cgroup) = &paths.cgroup {
        namespaces.push(json!({"type": "cgroup"}));
        linux["cgroupsPath"] = json!(cgroup);
    }
    if let (Some((limits, requests)), Some(_)) = (limits, &paths.cgroup) {
        // What the memory killer ends, it ends as a whole: half a function would neither answer nor be started again.
        let mut resources = json!({"pids": {"limit": PIDS}, "unified": {"memory.oom.group": "1"}});
        if let Some(bytes) = limits.memory {
            // Swap counts in: a function over its limit is ended, not slowed down.
            resources["memory"] = json!({"limit": bytes, "swap": bytes});
        }
        if let Some(quota) = limits.quota {
            resources["cpu"] = json!({"quota": quota, "period": Limits::PERIOD_US});
        }
        // The kernel's names: the specification's older ones would be converted.
        if let Some(bytes) = requests.memory {
            resources["unified"]["memory.low"] = json!(bytes.to_string());
        }
        if let Some(weight) = requests.weight {
            resources["unified"]["cpu.weight"] = json!(weight.to_string());
        }
        linux["resources"] = resources;
    }
    linux["namespaces"] = json!(namespaces);
    linux
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Key;

    const TIME: Duration = Duration::from_secs(60);

    fn paths() -> Paths {
        Paths {
            netns: "/run/netns/a".into(),
            resolv_conf: "/run/r".into(),
            hosts: "/run/h".into(),
            secrets: Some("/run/s".into()),
            cgroup: Some("/workload/openfaas-fn/f.0".into()),
        }
    }

    #[test]
    fn the_request_wins_over_the_image() {
        let mut document = Document::new(&Key::new("f", "").unwrap(), "f");
        document.env_process = Some("cat".into());
        document.environment = [("mode".into(), "http".into()), ("A".into(), "b=c".into())].into();
        let image =
            Process { env: vec!["mode=streaming".into(), "fprocess=env".into()], ..Process::default() };
        let variables = |document: &Document| environment(document, &image, Duration::from_secs(90));
        let times = ["read_timeout=90000ms", "write_timeout=90000ms", "exec_timeout=90000ms"];
        let others = [PATH, "mode=http", "fprocess=cat", "A=b=c"];
        assert_eq!(variables(&document), [&times[..], &others].concat());
        for own in ["fprocess=wc", "exec_timeout=5s"] {
            let (name, value) = own.split_once('=').unwrap();
            document.environment.insert(name.into(), value.into());
            assert!(variables(&document).contains(&own.to_owned()), "{own}");
        }
    }

    #[test]
    fn isolation() {
        let mut document = Document::new(&Key::new("f", "").unwrap(), "f");
        document.read_only_root_filesystem = true;
        let limits = Limits { memory: Some(1 << 20), quota: Some(5000) };
        let requests = Requests { memory: Some(4096), weight: Some(200) };
        let made = |limits, paths: &Paths| {
            specification(&document, &Process::default(), &Identity::default(), limits, paths, TIME)
        };
        let spec = made(Some((limits, requests)), &paths());
        assert_eq!(spec["process"]["noNewPrivileges"], true);
        assert_eq!(spec["process"]["oomScoreAdj"], 500);
        for set in ["bounding", "effective", "permitted"] {
            assert_eq!(spec["process"]["capabilities"][set], json!([]), "{set}");
        }
        assert_eq!(spec["root"]["readonly"], true);
        let linux = &spec["linux"];
        assert_eq!(linux["seccomp"], seccomp::filter());
        assert_eq!((&linux["maskedPaths"], &linux["readonlyPaths"]), (&json!(MASKED), &json!(READ_ONLY)));
        let kinds =
            linux["namespaces"].as_array().unwrap().iter().map(|namespace| namespace["type"].as_str());
        assert_eq!(
            kinds.map(Option::unwrap).collect::<Vec<_>>(),
            ["pid", "ipc", "uts", "mount", "network", "cgroup"]
        );
        let resources = &linux["resources"];
        assert_eq!(resources["memory"], json!({"limit": 1 << 20, "swap": 1 << 20}));
        assert_eq!(resources["cpu"], json!({"quota": 5000, "period": 100_000}));
        assert_eq!(resources["pids"]["limit"], PIDS);
        assert_eq!(
            resources["unified"],
            json!({"memory.oom.group": "1", "memory.low": "4096", "cpu.weight": "200"})
        );
        assert_eq!(linux["cgroupsPath"], "/workload/openfaas-fn/f.0");
        let text = spec.to_string();
        for part in ["\"/var/openfaas/secrets\"", "\"/tmp\"", "/run/netns/a"] {
            assert!(text.contains(part), "{part}");
        }
        let spec = made(None, &paths());
        assert_eq!(spec["linux"]["cgroupsPath"], "/workload/openfaas-fn/f.0");
        assert!(spec["linux"].get("resources").is_none());
        let bare = Paths { cgroup: None, ..paths() };
        let spec = made(Some((limits, requests)), &bare);
        assert!(!spec.to_string().contains("cgroup"));
        assert!(spec["linux"].get("resources").is_none());
    }
}

//! A machine for one test: real containerd and a real gateway, with folders, namespaces and a network of their own.

use std::fs;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use hyper::{Method, StatusCode};

pub use crate::answer::{Answer, ask};

/// The administrator: `admin:secret` in base64.
pub const BASIC: &str = "Basic YWRtaW46c2VjcmV0";

/// How the path of a shim ends.
pub const SHIM: &str = "/containerd-shim-bothy-v2";

pub struct Lab {
    pub folder: PathBuf,
    pub programs: PathBuf,
    containerd: Option<Child>,
    gateway: Option<Child>,
    journald: Option<Child>,
    pub nats: Option<Child>,
    pub worker: Option<Child>,
    address: SocketAddr,
    /// More of the gateway's command line.
    pub arguments: Vec<String>,
    /// Whether functions have cgroups: without limits, for which this kind of host may have no controllers.
    pub groups: bool,
    /// Where the gateway tells how it goes (sd_notify(3)).
    pub notify: Option<PathBuf>,
    /// A socket that the gateway is handed, with its name (sd_listen_fds(3)).
    pub handed: Option<(&'static str, OwnedFd)>,
}

impl Lab {
    /// Prepares the folders, and wrappers that run the programs of `BOTHY_ROOTFS` with their own libraries.
    pub fn new(folder: &Path) -> Self {
        let root = PathBuf::from(std::env::var_os("BOTHY_ROOTFS").expect(
            "BOTHY_ROOTFS is not set: it names an unpacked root file system with containerd, crun and nft (run `cargo \
             bothy test`)",
        ));
        let programs = folder.join("bin");
        fs::create_dir_all(&programs).unwrap();
        let libraries = root.join(format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH));
        let loader = fs::read_dir(&libraries)
            .unwrap()
            .flatten()
            .map(|entry| entry.path())
            .find(|path| path.file_name().unwrap().to_str().unwrap().starts_with("ld-linux"))
            .expect("BOTHY_ROOTFS has no loader");
        for (name, program) in [
            ("crun", "usr/bin/crun"),
            ("nft", "usr/sbin/nft"),
            ("journalctl", "usr/bin/journalctl"),
            ("systemd-journald", "usr/lib/systemd/systemd-journald"),
        ] {
            // systemd's programs have a folder of their own in there.
            let text = format!(
                "#!/bin/sh\nexec {} --library-path {1}:{1}/systemd {2} \"$@\"\n",
                loader.display(),
                libraries.display(),
                root.join(program).display()
            );
            fs::write(programs.join(name), text).unwrap();
            fs::set_permissions(programs.join(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
        // A Go program that needs no library but the C one: the host's is good enough.
        let link = |to: &Path, name: &str| std::os::unix::fs::symlink(to, programs.join(name)).unwrap();
        link(&root.join("usr/bin/containerd"), "containerd");
        link(&root.join("usr/sbin/nats-server"), "nats-server");
        link(Path::new(env!("CARGO_BIN_EXE_containerd-shim-bothy-v2")), "containerd-shim-bothy-v2");
        fs::create_dir_all(folder.join("credentials")).unwrap();
        fs::write(folder.join("credentials/basic-auth-user"), "admin\n").unwrap();
        fs::write(folder.join("credentials/basic-auth-password"), "secret\n").unwrap();
        fs::write(folder.join("bothy.toml"), "version = 1\n").unwrap();
        let disabled = [
            "grpc.v1.cri",
            "snapshotter.v1.btrfs",
            "snapshotter.v1.zfs",
            "snapshotter.v1.devmapper",
            "snapshotter.v1.aufs",
            "snapshotter.v1.blockfile",
            "snapshotter.v1.native",
            "nri.v1.nri",
            "tracing.processor.v1.otlp",
            "internal.v1.tracing",
            "internal.v1.opt",
            "internal.v1.restart",
        ]
        .map(|plugin| format!("\"io.containerd.{plugin}\""))
        .join(", ");
        let state = folder.display();
        let config = format!(
            "version = 2\nroot = \"{state}/containerd\"\nstate = \"{state}/run\"\ndisabled_plugins = [{disabled}]\n\
             [grpc]\naddress = \"{state}/containerd.sock\"\n"
        );
        fs::write(folder.join("containerd.toml"), config).unwrap();
        Self {
            folder: folder.to_owned(),
            programs,
            containerd: None,
            gateway: None,
            journald: None,
            nats: None,
            worker: None,
            address: "127.0.0.1:8080".parse().unwrap(),
            arguments: Vec::new(),
            groups: false,
            notify: None,
            handed: None,
        }
    }

    pub fn command(&self, program: &Path, log: &str) -> Command {
        let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", self.programs.display());
        let log = fs::File::options().create(true).append(true).open(self.folder.join(log)).unwrap();
        let mut command = Command::new(program);
        command.env("PATH", path).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        command
    }

    pub fn start_containerd(&mut self) {
        let mut command = self.command(&self.programs.join("containerd"), "containerd.log");
        command.arg("--config").arg(self.folder.join("containerd.toml"));
        // As on the machine, where a crun that got it from here would wait for a word of the function's.
        command.env("NOTIFY_SOCKET", self.folder.join("notify"));
        self.containerd = Some(command.spawn().unwrap());
    }

    pub fn start_gateway(&mut self) {
        let program = Path::new(env!("CARGO_BIN_EXE_stack"));
        let mut command = match &self.handed {
            None => self.command(program, "gateway.log"),
            Some((name, socket)) => {
                // Its own number, which the protocol asks for, is known only when it is there.
                let mut command = self.command(Path::new("/bin/sh"), "gateway.log");
                let line = "LISTEN_PID=$$ exec \"$0\" \"$@\"";
                command.args(["-c", line]).arg(program).env("LISTEN_FDS", "1").env("LISTEN_FDNAMES", name);
                let number = socket.as_raw_fd();
                // SAFETY: one system call.
                unsafe {
                    command.pre_exec(move || match nix::libc::dup2(number, 3) {
                        3 => Ok(()),
                        _ => Err(std::io::Error::last_os_error()),
                    });
                }
                command
            }
        };
        if let Some(path) = &self.notify {
            command.env("NOTIFY_SOCKET", path);
        }
        command.args(["--log", "info,stack=debug,hyper=warn,h2=warn,netlink_proto=warn", "gateway"]);
        for (flag, name) in [
            ("--config", "bothy.toml"),
            ("--credentials", "credentials"),
            ("--control", "control"),
            ("--state", "state"),
            ("--secrets-dir", "copies"),
            ("--images", "images"),
            ("--containerd", "containerd.sock"),
            ("--containerd-state", "run"),
            ("--fifo-dir", "fifo"),
            ("--nats-store", "nats"),
            ("--run-dir", "functions"),
            ("--netns", "netns"),
            ("--resolv-conf", "resolv.conf"),
            ("--runtime-binary", "bin/crun"),
            ("--nft", "bin/nft"),
            ("--journalctl", "bin/journalctl"),
        ] {
            command.arg(flag).arg(self.folder.join(name));
        }
        command.args(["--listen", "0.0.0.0:8080", "--ready-timeout", "20s"]);
        match self.groups {
            true => command.args(["--shim-cgroup", "/workload/shims", "--without-limits"]),
            false => command.args(["--shim-cgroup", "", "--cgroup-root", ""]),
        };
        command.args(&self.arguments);
        self.gateway = Some(command.spawn().unwrap());
    }

    /// Starts the log service, which writes to the socket `journal` in the lab's folder; it ends with the test.
    pub fn start_log(&self) {
        self.start_log_to(&self.folder.join("journal"));
    }

    /// Starts it in front of another socket.
    pub fn start_log_to(&self, journal: &Path) {
        let mut command = self.command(Path::new(env!("CARGO_BIN_EXE_stack")), "log.log");
        command.arg("log").arg("--fifo-dir").arg(self.folder.join("fifo"));
        command.arg("--journal").arg(journal);
        drop(command.spawn().unwrap());
    }

    /// Starts the appliance's own journald, with its own configuration, whose journal nobody outside sees. (`/run` is
    /// this test's alone already.) It ends with the test.
    pub fn start_journald(&mut self) {
        let (none, drop_ins) = (None::<&str>, Path::new("/run/systemd/journald.conf.d"));
        if !drop_ins.exists() {
            // At once to /var, as on the machine.
            fs::create_dir_all("/run/systemd/journal").unwrap();
            fs::write("/run/systemd/journal/flushed", "").unwrap();
            nix::mount::mount(none, "/var/log", Some("tmpfs"), nix::mount::MsFlags::empty(), none).unwrap();
        }
        fs::create_dir_all(drop_ins).unwrap();
        let overlay = Path::new(env!("CARGO_MANIFEST_DIR")).join("../overlay/etc/systemd/journald.conf");
        fs::copy(overlay, drop_ins.join("bothy.conf")).unwrap();
        fs::write(drop_ins.join("test.conf"), "[Journal]\nReadKMsg=no\n").unwrap();
        let journald = self.command(&self.programs.join("systemd-journald"), "journald.log").spawn().unwrap();
        self.journald = Some(journald);
        // Until then there is nothing to read.
        let end = Instant::now() + Duration::from_secs(30);
        while self.journalctl(&["--list-boots"]).stdout.is_empty() {
            assert!(Instant::now() < end, "journald makes no journal");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Runs the appliance's journalctl.
    pub fn journalctl(&self, words: &[&str]) -> std::process::Output {
        Command::new(self.programs.join("journalctl")).args(words).stdin(Stdio::null()).output().unwrap()
    }

    /// Runs the appliance's nft, which must succeed.
    pub fn nft(&self, words: &[&str]) {
        let status =
            Command::new(self.programs.join("nft")).args(words).stdin(Stdio::null()).status().unwrap();
        assert!(status.success(), "nft {words:?}: {status}");
    }

    pub fn kill_journald(&mut self) {
        let mut child = self.journald.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    pub fn kill_containerd(&mut self) {
        let mut child = self.containerd.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    pub fn kill_gateway(&mut self) {
        let mut child = self.gateway.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// SIGTERM; gives the exit status and the time taken.
    pub fn stop_gateway(&mut self) -> (Option<i32>, Duration) {
        let mut child = self.gateway.take().unwrap();
        let start = Instant::now();
        let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        (child.wait().unwrap().code(), start.elapsed())
    }

    /// Where the gateway is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// One request; an error is a connection that was refused or broke.
    pub async fn ask(&self, method: Method, path: &str, body: &str) -> Result<Answer, String> {
        self.ask_with(method, path, body, &[("authorization", BASIC)]).await
    }

    pub async fn ask_with(
        &self,
        method: Method,
        path: &str,
        body: &str,
        headers: &[(&str, &str)],
    ) -> Result<Answer, String> {
        ask(self.address, method, path, body, headers).await
    }

    /// A request that must be answered so.
    pub async fn expect(&self, status: u16, method: Method, path: &str, body: &str) -> Answer {
        let answer =
            self.ask(method.clone(), path, body).await.unwrap_or_else(|e| panic!("{method} {path}: {e}"));
        assert_eq!(answer.status, status, "{method} {path} {body}: {}", answer.text);
        answer
    }

    /// Waits until the gateway takes connections; it may have no containerd.
    pub async fn until_listening(&self) {
        let end = Instant::now() + Duration::from_secs(30);
        while tokio::net::TcpStream::connect(self.address).await.is_err() {
            assert!(Instant::now() < end, "the gateway does not listen");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until a GET is answered with 200 and that text.
    pub async fn until(&self, path: &str, text: &str, patience: Duration) -> Duration {
        let start = Instant::now();
        loop {
            let last = self.ask(Method::GET, path, "").await;
            if last.as_ref().is_ok_and(|answer| answer.status == StatusCode::OK && answer.text == text) {
                return start.elapsed();
            }
            let last = last.map(|answer| (answer.status, answer.text));
            assert!(start.elapsed() < patience, "{path} after {patience:?}: {last:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until a GET is answered with 200.
    pub async fn until_answered(&self, path: &str) {
        let end = Instant::now() + Duration::from_secs(30);
        while !self.ask(Method::GET, path, "").await.is_ok_and(|answer| answer.status == StatusCode::OK) {
            assert!(Instant::now() < end, "{path} does not answer");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// How many of a function's instances are shown as ready.
    pub async fn available(&self, function: &str) -> u64 {
        let path = format!("/system/function/{function}");
        let shown = self.expect(200, Method::GET, &path, "").await.json();
        shown["availableReplicas"].as_u64().unwrap_or(0)
    }

    /// Waits until so many of them are.
    pub async fn until_available(&self, function: &str, wanted: u64) {
        let end = Instant::now() + Duration::from_secs(30);
        loop {
            let available = self.available(function).await;
            if available == wanted {
                return;
            }
            assert!(Instant::now() < end, "{available} instances are ready, {wanted} are wanted");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Processes whose program's path ends with that, in this test's own process namespace.
    pub fn processes(&self, program: &str) -> Vec<i32> {
        let is_it = |pid: &i32| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.split(|b| *b == 0).next().is_some_and(|word| word.ends_with(program.as_bytes()))
        };
        everybody().into_iter().filter(is_it).collect()
    }

    /// Waits until a process runs no more; who should reap it may be gone.
    pub async fn until_ended(&self, pid: i32, patience: Duration) {
        let end = Instant::now() + patience;
        while fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty()) {
            assert!(Instant::now() < end, "process {pid} does not end");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// A connection of the test's own to containerd.
    pub fn containerd(&self) -> stack::containerd::Containerd {
        let runtime = stack::containerd::Runtime { binary: String::new(), shim_cgroup: String::new() };
        let socket = self.folder.join("containerd.sock");
        stack::containerd::Containerd::new(socket, "overlayfs".into(), runtime, self.folder.clone())
    }
}

/// The links of the test's own network. (`/sys` shows those of the host.)
pub fn links() -> Vec<String> {
    let text = fs::read_to_string("/proc/net/dev").unwrap();
    text.lines().filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned())).collect()
}

/// All processes of this test's own process namespace.
pub fn everybody() -> Vec<i32> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// The parent of a process; nothing where that is gone.
pub fn parent(pid: i32) -> Option<i32> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    text.lines().find_map(|line| line.strip_prefix("PPid:")?.trim().parse().ok())
}

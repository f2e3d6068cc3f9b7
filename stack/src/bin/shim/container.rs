//! The one container of this shim: from its root file system to the end of its process.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use containerd_shim_protos::api::Status;
use containerd_shim_protos::protobuf::well_known_types::timestamp::Timestamp;
use containerd_shim_protos::types::mount::Mount;
use nix::libc;
use nix::unistd::Pid;

use crate::failure::Failure;
use crate::reaper::{End, Ended, Reaper, end};
use crate::rootfs;
use crate::runtime::Runtime;
use crate::streams::Streams;

/// Where the OCI runtime writes the number of the function's process, in the bundle.
pub const PID_FILE: &str = "init.pid";

/// How long a cgroup may take to stand still: a process in a call of the kernel ends that first.
const FREEZING: Duration = Duration::from_secs(10);

/// What it is asked to be.
pub struct Order {
    /// Its identifier.
    pub id: String,
    /// The bundle's folder: `config.json`, `rootfs`.
    pub bundle: PathBuf,
    /// What its root file system is mounted from.
    pub mounts: Vec<Mount>,
    /// The FIFO of its standard output; may be empty.
    pub stdout: String,
    /// The FIFO of its standard error; may be empty.
    pub stderr: String,
    /// The OCI runtime.
    pub runtime: Runtime,
}

/// A container whose process exists, or did.
pub struct Container {
    /// What it was asked to be.
    pub order: Order,
    /// Its first process.
    pub pid: Pid,
    ended: Ended,
    reaper: Reaper,
    state: Mutex<State>,
    /// Held by what changes its state: one after the other.
    acting: tokio::sync::Mutex<()>,
    cgroup: Option<PathBuf>,
    _streams: Streams,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Created,
    Running,
    Paused,
}

impl Container {
    /// Makes it. A failure leaves nothing behind.
    pub async fn create(order: Order, reaper: Reaper) -> Result<Self, Failure> {
        let mut streams = Streams::open(&order.stdout, &order.stderr)?;
        let target = order.bundle.join("rootfs");
        rootfs::attach(&order.mounts, &target)?;
        let pid_file = order.bundle.join(PID_FILE);
        let made = order.runtime.create(&reaper, &order.bundle, &pid_file, &mut streams).await;
        let pid = made.and_then(|()| read_pid(&pid_file));
        let pid = match pid {
            Ok(pid) => pid,
            Err(failure) => {
                if order.runtime.knows() {
                    let _ = order.runtime.call(&reaper, &["delete", "--force"]).await;
                }
                let _ = rootfs::detach(&target);
                return Err(failure);
            }
        };
        Ok(Self {
            pid,
            ended: reaper.expect(pid),
            cgroup: cgroup(pid),
            order,
            reaper,
            state: Mutex::new(State::Created),
            acting: tokio::sync::Mutex::default(),
            _streams: streams,
        })
    }

    /// How its process ended, if it did.
    pub fn end(&self) -> Option<End> {
        *self.ended.borrow()
    }

    /// Waits for the end of its process.
    pub async fn wait(&self) -> End {
        end(&mut self.ended.clone()).await
    }

    /// Its state as containerd calls it.
    pub fn status(&self) -> Status {
        match (self.end(), self.state()) {
            (Some(_), _) => Status::STOPPED,
            (None, State::Created) => Status::CREATED,
            (None, State::Running) => Status::RUNNING,
            (None, State::Paused) => Status::PAUSED,
        }
    }

    fn state(&self) -> State {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, state: State) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }

    fn is_alive(&self) -> Result<(), Failure> {
        if self.end().is_none() { Ok(()) } else { Err(Failure::Ended(self.order.id.clone())) }
    }

    fn wrong(&self, state: &'static str, needs: &'static str) -> Failure {
        Failure::State { id: self.order.id.clone(), state, needs }
    }

    /// Lets its process begin.
    pub async fn start(&self) -> Result<(), Failure> {
        let _acting = self.acting.lock().await;
        self.is_alive()?;
        if self.state() != State::Created {
            return Err(self.wrong("started", "it starts once"));
        }
        self.order.runtime.start(&self.reaper).await?;
        self.set(State::Running);
        Ok(())
    }

    /// Sends a signal to its first process. Without that one the kernel ends all others of its namespace.
    pub fn kill(&self, signal: u32) -> Result<(), Failure> {
        self.is_alive()?;
        // SAFETY: a system call. The process is our child and not reaped as long as nobody told its end: the number is
        // still its own.
        let done = unsafe { libc::kill(self.pid.as_raw(), signal.cast_signed()) };
        if done == 0 {
            return Ok(());
        }
        match std::io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::ESRCH) => Err(Failure::Ended(self.order.id.clone())),
            error => Err(Failure::io("send a signal to", self.pid.to_string())(error)),
        }
    }

    /// Stops or continues all its processes where they are.
    pub async fn freeze(&self, frozen: bool) -> Result<(), Failure> {
        let _acting = self.acting.lock().await;
        self.is_alive()?;
        let (from, to) =
            if frozen { (State::Running, State::Paused) } else { (State::Paused, State::Running) };
        if self.state() != from {
            let needs = if frozen { "only what runs is paused" } else { "only what is paused goes on" };
            return Err(self.wrong("in another state", needs));
        }
        let folder = self.group()?;
        let switch = folder.join("cgroup.freeze");
        let write = |value: &str| fs::write(&switch, value).map_err(Failure::io("write", &switch));
        write(if frozen { "1" } else { "0" })?;
        let events = folder.join("cgroup.events");
        let wanted = if frozen { "frozen 1" } else { "frozen 0" };
        let end = tokio::time::Instant::now() + FREEZING;
        loop {
            let text = fs::read_to_string(&events).map_err(Failure::io("read", &events))?;
            if text.lines().any(|line| line == wanted) {
                self.set(to);
                return Ok(());
            }
            if tokio::time::Instant::now() > end {
                let _ = write(if frozen { "0" } else { "1" });
                return Err(self.wrong("not still", "a process of it does not come out of the kernel"));
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// The numbers of its processes. The first is always among them: a list without any tells containerd that the task is
    /// gone.
    pub fn pids(&self) -> Vec<u32> {
        let list =
            self.cgroup.iter().filter_map(|folder| fs::read_to_string(folder.join("cgroup.procs")).ok());
        let mut pids: Vec<u32> = list
            .flat_map(|text| text.lines().filter_map(|line| line.parse().ok()).collect::<Vec<_>>())
            .collect();
        let first = self.pid.as_raw().cast_unsigned();
        if !pids.contains(&first) {
            pids.insert(0, first);
        }
        pids
    }

    /// Forgets a container whose process has ended, or never began.
    pub async fn delete(&self) -> Result<End, Failure> {
        let _acting = self.acting.lock().await;
        let ended = match (self.end(), self.state()) {
            (Some(ended), _) => ended,
            (None, State::Created) => {
                // Its process waits for a start that never comes.
                let _ = self.kill(libc::SIGKILL.cast_unsigned());
                self.wait().await
            }
            (None, _) => return Err(self.wrong("running", "end its process first")),
        };
        let removed = self.order.runtime.call(&self.reaper, &["delete", "--force"]).await;
        if self.order.runtime.knows() {
            removed?;
        }
        rootfs::detach(&self.order.bundle.join("rootfs"))?;
        Ok(ended)
    }

    fn group(&self) -> Result<&Path, Failure> {
        let folder = self.cgroup.as_deref().filter(|folder| folder.join("cgroup.freeze").exists());
        folder.ok_or_else(|| self.wrong("without a cgroup of its own", "give it one (cgroup v2)"))
    }
}

fn read_pid(path: &Path) -> Result<Pid, Failure> {
    let text = fs::read_to_string(path).map_err(Failure::io("read", path))?;
    let number = text.trim().parse().ok().filter(|number| *number > 1);
    let damaged = || std::io::Error::new(std::io::ErrorKind::InvalidData, format!("{text:?} is no number"));
    number.map(Pid::from_raw).ok_or_else(|| Failure::io("read", path)(damaged()))
}

/// The cgroup of a process, v2; nothing for the root, which is nobody's own.
fn cgroup(pid: Pid) -> Option<PathBuf> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::/")).filter(|path| !path.is_empty())?;
    Some(Path::new("/sys/fs/cgroup").join(path))
}

/// As protobuf writes it; a time before 1970 is 1970.
pub fn timestamp(time: SystemTime) -> Timestamp {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let seconds = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
    Timestamp { seconds, nanos: since.subsec_nanos().cast_signed(), ..Default::default() }
}

//! A machine that runs: its process, its console, its monitor, its port.

use std::fs;
use std::net::TcpListener;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::machine::PROGRAM;
use super::shell::Session;
use super::{Accel, Answer, Boot, Client, Console, Error, Machine, Monitor, Result};

/// How long QEMU may take to connect to our sockets, on a host that is busy.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often something that gives no sign is looked at.
const TICK: Duration = Duration::from_millis(25);

/// Pause between two tries to get an answer over HTTP.
const AGAIN: Duration = Duration::from_millis(100);

/// A machine that runs. Dropping it pulls the plug.
pub struct Running {
    // The order is that of dropping: first the machine ends, then what listens to it.
    child: Guard,
    monitor: Monitor,
    console: Console,
    errors: PathBuf,
    began: Instant,
    port: u16,
    /// At the console.
    pub(super) session: Session,
    _sockets: Folder,
}

/// Our own child process, killed by its number when it is dropped.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        // It was not waited for yet, or this does nothing: the number is still its own.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    pub(crate) fn start(machine: &Machine) -> Result<Self> {
        fs::create_dir_all(&machine.folder).map_err(Error::file("create", &machine.folder))?;
        if let Boot::Firmware(firmware) = &machine.boot {
            firmware.variables_at(&machine.variables())?;
        }
        if let Some(writes) = &machine.writes {
            // QEMU opens it and does not make it.
            fs::File::create(writes).map_err(Error::file("create", writes))?;
        }
        // A free port can be taken by somebody else before QEMU has it: then another one.
        let mut tries = 3;
        loop {
            match Self::attempt(machine) {
                Err(Error::Ended { stderr, .. })
                    if machine.port.is_none() && tries > 1 && stderr.contains("host forwarding") =>
                {
                    tries -= 1;
                }
                other => return other,
            }
        }
    }

    fn attempt(machine: &Machine) -> Result<Self> {
        let port = machine.port.map_or_else(free_port, Ok)?;
        let sockets = Folder::create()?;
        let console_socket = Socket::bind(&sockets.0.join("console"))?;
        let monitor_socket = Socket::bind(&sockets.0.join("monitor"))?;
        let errors = machine.folder.join("qemu.log");
        let log = fs::File::create(&errors).map_err(Error::file("create", &errors))?;
        let mut command = Command::new(PROGRAM);
        command
            .args(machine.arguments(port))
            .arg("-chardev")
            .arg(format!("socket,id=console,path={}", console_socket.path.display()))
            .args(["-serial", "chardev:console", "-chardev"])
            .arg(format!("socket,id=monitor,path={}", monitor_socket.path.display()))
            .args(["-mon", "chardev=monitor,mode=control"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            // Ctrl-C at our terminal is for us to handle, not for QEMU.
            .process_group(0);
        let parent = nix::unistd::getpid();
        // SAFETY: between fork and exec only two system calls are made, neither of which touches our memory.
        unsafe {
            command.pre_exec(move || {
                nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
                // If the parent died before that call, nobody would ever send the signal.
                if nix::unistd::getppid() != parent {
                    return Err(std::io::Error::from_raw_os_error(nix::libc::ESRCH));
                }
                Ok(())
            });
        }
        let began = Instant::now();
        let mut child = Guard(command.spawn().map_err(|source| Error::start(PROGRAM, source))?);
        let emulated = machine.accel == Accel::Tcg || machine.counted;
        let stream = console_socket.accept(&mut child.0, &errors)?;
        let console = Console::attach(stream, &machine.console_log(), began, emulated)?;
        let monitor = monitor_socket.accept(&mut child.0, &errors).and_then(Monitor::attach);
        let monitor = monitor.map_err(|error| ended_soon(&mut child.0, &errors).unwrap_or(error))?;
        Ok(Self {
            child,
            monitor,
            console,
            errors,
            began,
            port,
            session: Session::new("", ""),
            _sockets: sockets,
        })
    }

    /// Its console.
    pub fn console(&self) -> &Console {
        &self.console
    }

    /// Its monitor.
    pub fn monitor(&mut self) -> &mut Monitor {
        &mut self.monitor
    }

    /// The port of 127.0.0.1 that leads to its port 8080.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// A client for that port.
    pub fn client(&self) -> Client {
        Client::new(self.port)
    }

    /// Time since QEMU was started.
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Fails when the machine has ended, its kernel gave up, or the emulator failed.
    ///
    /// # Errors
    /// What happened.
    pub fn check(&mut self) -> Result<()> {
        self.console.check()?;
        match self.child.0.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(Error::Ended { status, stderr: said(&self.errors) }),
            Err(source) => Err(Error::Start { program: PROGRAM.to_owned(), source }),
        }
    }

    /// Waits for a line of the console, from the start of the machine on.
    ///
    /// # Errors
    /// As [`Console::wait`]; and the machine ended.
    pub fn wait_for(&mut self, pattern: &str, limit: Duration) -> Result<super::Line> {
        let waited = self.console.wait(pattern, super::Mark::default(), limit);
        self.explain(waited)
    }

    /// Asks again and again until `good` likes the answer; gives it with the time since QEMU was started.
    ///
    /// # Errors
    /// No such answer came in time; the error has the last one. Or the machine ended.
    pub fn answer(
        &mut self,
        what: &str,
        limit: Duration,
        mut ask: impl FnMut() -> Result<Answer>,
        good: impl Fn(&Answer) -> bool,
    ) -> Result<(Answer, Duration)> {
        let began = Instant::now();
        loop {
            let asked = ask();
            let at = self.elapsed();
            let last = match asked {
                Ok(answer) if good(&answer) => return Ok((answer, at)),
                Ok(answer) => format!("the last answer was {} {}", answer.status, answer.body.trim()),
                Err(error) => error.to_string(),
            };
            self.check()?;
            let waited = began.elapsed();
            if waited >= limit {
                return Err(Error::Late {
                    what: format!("{what} ({last})"),
                    waited,
                    tail: self.console.tail(20),
                });
            }
            std::thread::sleep(AGAIN);
        }
    }

    /// Presses the power button and waits for the machine to end by itself; gives how long that took.
    ///
    /// # Errors
    /// It did not end in time.
    pub fn power_off(&mut self, limit: Duration) -> Result<Duration> {
        self.console.check()?;
        self.monitor.powerdown()?;
        self.wait_end(limit)
    }

    /// Waits for the machine to end by itself; gives how long that took.
    ///
    /// # Errors
    /// It did not end in time, or QEMU failed.
    pub fn wait_end(&mut self, limit: Duration) -> Result<Duration> {
        let began = Instant::now();
        loop {
            let ended = self.child.0.try_wait();
            let ended = ended.map_err(|source| Error::Start { program: PROGRAM.to_owned(), source })?;
            let waited = began.elapsed();
            match ended {
                Some(status) if status.success() => return Ok(waited),
                Some(status) => return Err(Error::Ended { status, stderr: said(&self.errors) }),
                None if waited >= limit => {
                    let what = "the machine to power off".to_owned();
                    return Err(Error::Late { what, waited, tail: self.console.tail(20) });
                }
                None => std::thread::sleep(TICK),
            }
            self.console.check()?;
        }
    }

    /// Processor time that QEMU itself has used so far, user and system together.
    pub fn cpu_time(&self) -> Option<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.0.id())).ok()?;
        // proc_pid_stat(5): utime and stime are fields 14 and 15; the name in brackets before them may hold anything.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
        let per_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok()??;
        Some(Duration::from_secs_f64(ticks as f64 / per_second as f64))
    }

    /// An error of the console's is often the consequence of the machine's end: say that instead.
    pub(super) fn explain<T>(&mut self, result: Result<T>) -> Result<T> {
        if let Err(Error::Late { .. }) = &result {
            // QEMU closes the console a moment before it has ended.
            if self.console.is_closed() {
                let limit = Instant::now() + Duration::from_secs(2);
                while Instant::now() < limit {
                    self.check()?;
                    std::thread::sleep(TICK);
                }
            }
        }
        result
    }
}

/// QEMU's own words, if a connection broke because it ended.
fn ended_soon(child: &mut Child, errors: &Path) -> Option<Error> {
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(1) {
        if let Ok(Some(status)) = child.try_wait() {
            return Some(Error::Ended { status, stderr: said(errors) });
        }
        std::thread::sleep(TICK);
    }
    None
}

/// What QEMU said, for messages.
fn said(errors: &Path) -> String {
    String::from_utf8_lossy(&fs::read(errors).unwrap_or_default()).trim().to_owned()
}

/// A port that was free a moment ago.
pub(crate) fn free_port() -> Result<u16> {
    let any = "127.0.0.1:0";
    TcpListener::bind(any).and_then(|l| l.local_addr()).map(|a| a.port()).map_err(Error::file("bind", any))
}

/// A socket that QEMU connects to. It connects, not we, so that not one byte of the console is lost.
struct Socket {
    listener: UnixListener,
    path: PathBuf,
}

impl Socket {
    fn bind(path: &Path) -> Result<Self> {
        let listener = UnixListener::bind(path).map_err(Error::file("bind", path))?;
        listener.set_nonblocking(true).map_err(Error::file("bind", path))?;
        Ok(Self { listener, path: path.to_owned() })
    }

    fn accept(&self, child: &mut Child, errors: &Path) -> Result<UnixStream> {
        let failed = || Error::file("accept", &self.path);
        let began = Instant::now();
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(false).map_err(failed())?;
                    return Ok(stream);
                }
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(failed()(e)),
            }
            let ended: Option<ExitStatus> = child.try_wait().map_err(failed())?;
            if let Some(status) = ended {
                return Err(Error::Ended { status, stderr: said(errors) });
            }
            if began.elapsed() > PATIENCE {
                return Err(failed()(std::io::ErrorKind::TimedOut.into()));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// A folder for sockets, removed with everything in it. Not below the machine's own folder: the name of a socket may
/// have 107 bytes at most (unix(7)).
struct Folder(PathBuf);

static NEXT: AtomicU32 = AtomicU32::new(0);

impl Folder {
    fn create() -> Result<Self> {
        use std::os::unix::fs::DirBuilderExt;
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("bothy-{}-{number}", std::process::id()));
        // Left behind by an earlier process of the same number, which is dead.
        let _ = fs::remove_dir_all(&path);
        fs::DirBuilder::new().mode(0o700).create(&path).map_err(Error::file("create", &path))?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

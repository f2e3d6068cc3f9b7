//! `bothy bench watchdog`: what the watchdog adds to a function's image, and to its memory. The program is the one of
//! images for publishing.

use std::fs;
use std::io;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::{Figure, median};
use crate::build::{Options, compile};
use crate::place;
use crate::progress::step;
use crate::qemu::{Client, Error, Result, free_port};
use crate::squashfs::Compression;

const BENCH: &str = "watchdog";

/// How many calls it answers before it is measured again.
const CALLS: usize = 1_000;

/// How long it may take to listen, or to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Measures `file`, `rss` (after a first call) and `rss_after_calls` (after 1,000 more), in mode `http`; the last two are
/// medians of `runs` processes.
///
/// # Errors
/// It cannot be compiled, or started on this machine, or it does not answer.
pub fn watchdog(options: &Options, runs: usize) -> Result<Vec<Figure>> {
    let published = Options { compression: Compression::Release, ..options.clone() };
    let program = compile(&published)?.join("watchdog");
    let size = fs::metadata(&program).map_err(Error::file("read", &program))?.len();
    let folder = place::target(&options.source).join("bothy/bench/watchdog");
    fs::create_dir_all(&folder).map_err(Error::file("create", &folder))?;
    let page = folder.join("index.html");
    fs::write(&page, "hello").map_err(Error::file("write", &page))?;

    let _step = step("measure the watchdog");
    // The program that it passes calls on to is another one of it, which serves a file.
    let file =
        Running::start(&program, &[("mode", "static"), ("static_path", &folder.display().to_string())])?;
    let url = format!("http://127.0.0.1:{}", file.port);
    let (mut started, mut called) = (Vec::new(), Vec::new());
    for _ in 0..runs.max(1) {
        let variables = [("mode", "http"), ("upstream_url", url.as_str()), ("fprocess", "sleep infinity")];
        let one = Running::start(&program, &variables)?;
        started.push(one.resident()?);
        for _ in 0..CALLS {
            one.call()?;
        }
        called.push(one.resident()?);
    }
    Ok(vec![
        Figure::new(BENCH, "file", size as f64, "bytes"),
        Figure::new(BENCH, "rss", median(started).unwrap_or_default(), "bytes"),
        Figure::new(BENCH, "rss_after_calls", median(called).unwrap_or_default(), "bytes"),
    ])
}

/// A watchdog that listens; it is asked to end when this is dropped, and ends its function.
struct Running {
    child: Child,
    port: u16,
    client: Client,
}

impl Running {
    fn start(program: &Path, variables: &[(&str, &str)]) -> Result<Self> {
        let (port, metrics) = (free_port()?, free_port()?);
        let mut command = Command::new(program);
        command.env_clear().env("PATH", "/usr/bin:/bin").envs(variables.iter().copied());
        command.env("port", port.to_string()).env("metrics_port", metrics.to_string());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let named = |source| Error::Start { program: program.display().to_string(), source };
        let mut running = Self { child: command.spawn().map_err(named)?, port, client: Client::new(port) };
        let begun = Instant::now();
        while let Err(error) = running.call() {
            let ended = running.child.try_wait().map_err(Error::file("wait for", program))?;
            if let Some(status) = ended {
                let (program, stderr) = (program.display().to_string(), error.to_string());
                return Err(crate::Error::Program { program, status, stderr }.into());
            }
            if begun.elapsed() > PATIENCE {
                return Err(error);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(running)
    }

    /// One call on a connection of its own.
    fn call(&self) -> Result<()> {
        self.client.get("/", PATIENCE)?.done("call the watchdog".to_owned())
    }

    /// What is in memory of it, in bytes: `VmRSS`.
    fn resident(&self) -> Result<f64> {
        let path = Path::new("/proc").join(self.child.id().to_string()).join("status");
        let text = fs::read_to_string(&path).map_err(Error::file("read", &path))?;
        let kib = text.lines().find_map(|line| {
            line.strip_prefix("VmRSS:")?.trim().strip_suffix("kB")?.trim().parse::<f64>().ok()
        });
        kib.map(|kib| kib * 1024.0)
            .ok_or_else(|| Error::file("read VmRSS of", &path)(io::ErrorKind::InvalidData.into()))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // SIGKILL would leave its function behind.
        let pid = nix::unistd::Pid::from_raw(self.child.id().cast_signed());
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = self.child.wait();
    }
}

//! The OCI runtime, crun: a program that is called and ends.

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::libc;
use serde::Deserialize;

use crate::failure::Failure;
use crate::reaper::{Reaper, end};
use crate::streams::Streams;

/// Where it keeps its records, one folder for each of containerd's namespaces.
const RECORDS: &str = "/run/containerd/runc";

/// In a container's folder there: what its process reads from before it begins.
const FIFO: &str = "exec.fifo";

/// How long it may take: less than who asked for a container waits (the gateway, 60 s).
const PATIENCE: Duration = Duration::from_secs(50);

/// The program where containerd names none.
const PROGRAM: &str = "crun";

/// How it is called for one container.
#[derive(Debug, Clone)]
pub struct Runtime {
    program: String,
    records: PathBuf,
    log: PathBuf,
    id: String,
}

/// A line of its log.
#[derive(Deserialize)]
struct Line {
    level: String,
    msg: String,
}

impl Runtime {
    /// `program` may be empty.
    pub fn new(program: &str, namespace: &str, id: &str, bundle: &Path) -> Self {
        Self {
            program: if program.is_empty() { PROGRAM } else { program }.to_owned(),
            records: Path::new(RECORDS).join(namespace),
            log: bundle.join("log.json"),
            id: id.to_owned(),
        }
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        // Of containerd's environment it needs only where programs are. With NOTIFY_SOCKET it would wait for a word of
        // the function's.
        command.env_clear().envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
        command.arg("--root").arg(&self.records).arg("--log").arg(&self.log).args(["--log-format", "json"]);
        command.args(words).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    /// Makes the container: its process exists and waits for [`Runtime::start`].
    pub async fn create(
        &self,
        reaper: &Reaper,
        bundle: &Path,
        pid_file: &Path,
        streams: &mut Streams,
    ) -> Result<(), Failure> {
        let mut command = self.command(&["create", "--bundle"]);
        command.arg(bundle).arg("--pid-file").arg(pid_file).arg(&self.id);
        streams.give(&mut command);
        self.ended(reaper, "create", &mut command).await
    }

    /// Lets the process of a created container begin.
    ///
    /// For a container without hooks, crun's `start` is one byte for the FIFO at which that process waits (status.c,
    /// libcrun_status_write_exec_fifo). To start a program for it would take half of a cold start, so it is called only where
    /// that is not to be had: runc, for one, waits there the other way round.
    pub async fn start(&self, reaper: &Reaper) -> Result<(), Failure> {
        match self.let_go() {
            Ok(()) => Ok(()),
            Err(_) => self.call(reaper, &["start"]).await,
        }
    }

    fn let_go(&self) -> std::io::Result<()> {
        let fifo = self.records.join(&self.id).join(FIFO);
        // Without blocking: if nobody reads there, it is an error.
        let mut writer = OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(&fifo)?;
        // As long as it is there, crun takes the container for one that was not started.
        std::fs::remove_file(&fifo)?;
        writer.write_all(&[0])
    }

    /// Calls a command with the container's identifier behind it.
    pub async fn call(&self, reaper: &Reaper, words: &[&str]) -> Result<(), Failure> {
        let mut command = self.command(words);
        self.ended(reaper, words.first().unwrap_or(&""), command.arg(&self.id)).await
    }

    /// The same where nobody reaps for us.
    pub fn call_alone(&self, words: &[&str]) -> Result<(), Failure> {
        let status =
            self.command(words).arg(&self.id).status().map_err(Failure::io("start", &self.program))?;
        let name = words.first().unwrap_or(&"");
        if status.success() { Ok(()) } else { Err(self.refused(name, &status.to_string())) }
    }

    /// Whether it still has a record of the container.
    pub fn knows(&self) -> bool {
        self.records.join(&self.id).exists()
    }

    async fn ended(&self, reaper: &Reaper, name: &str, command: &mut Command) -> Result<(), Failure> {
        let (mut child, mut ended) = reaper.spawn(command).map_err(Failure::io("start", &self.program))?;
        match tokio::time::timeout(PATIENCE, end(&mut ended)).await.map(|end| end.status) {
            Ok(0) => Ok(()),
            Ok(status) => Err(self.refused(name, &format!("exit status {status}"))),
            Err(_) => {
                // It was not reaped: the number is its own.
                let _ = child.kill();
                Err(self.refused(name, &format!("no end in {} s, killed", PATIENCE.as_secs())))
            }
        }
    }

    /// What it wrote last as an error, or how it ended.
    fn refused(&self, command: &str, status: &str) -> Failure {
        let lines = std::fs::File::open(&self.log).into_iter().flat_map(|file| BufReader::new(file).lines());
        let reason = lines.map_while(Result::ok).filter_map(|line| reason(&line)).last();
        Failure::Runtime {
            runtime: self.program.clone(),
            command: command.to_owned(),
            reason: reason.unwrap_or_else(|| status.to_owned()),
        }
    }
}

fn reason(line: &str) -> Option<String> {
    let line: Line = serde_json::from_str(line).ok()?;
    (line.level == "error").then_some(line.msg)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_its_log() {
        let line =
            r#"{"msg":"open executable: No such file or directory","level":"error","time":"2026-11-25"}"#;
        assert_eq!(reason(line).as_deref(), Some("open executable: No such file or directory"));
        assert_eq!(reason(r#"{"msg":"x","level":"warning"}"#), None);
        assert_eq!(reason("no JSON"), None);
    }

    /// One whose records lie in a folder of the test's own.
    fn runtime(folder: &Path) -> Runtime {
        let runtime = Runtime::new("", "n", "f.0", folder);
        let runtime = Runtime { records: folder.to_owned(), ..runtime };
        std::fs::create_dir(folder.join("f.0")).unwrap();
        nix::unistd::mkfifo(&folder.join("f.0").join(FIFO), nix::sys::stat::Mode::S_IRWXU).unwrap();
        runtime
    }

    #[test]
    fn a_process_that_waits_is_let_go_once() {
        let folder = tempfile::tempdir().unwrap();
        let runtime = runtime(folder.path());
        let fifo = folder.path().join("f.0").join(FIFO);
        let mut options = OpenOptions::new();
        let mut waits = options.read(true).custom_flags(libc::O_NONBLOCK).open(&fifo).unwrap();
        runtime.let_go().unwrap();
        let mut byte = [1; 2];
        assert_eq!(std::io::Read::read(&mut waits, &mut byte).unwrap(), 1);
        assert!(!fifo.exists());
        assert_eq!(runtime.let_go().unwrap_err().kind(), std::io::ErrorKind::NotFound);
    }

    #[test]
    fn where_nobody_waits_nothing_is_touched() {
        let folder = tempfile::tempdir().unwrap();
        let runtime = runtime(folder.path());
        assert_eq!(runtime.let_go().unwrap_err().raw_os_error(), Some(libc::ENXIO));
        assert!(folder.path().join("f.0").join(FIFO).exists());
    }
}

//! The journal, read by journalctl: one for each client, ended with it.

use std::ffi::CString;
use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::Signal;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::task::spawn_local;

use super::{Answer, Stop};
use crate::cgroup::Group;
use crate::process::{Exit, Identity};
use crate::request::Filter;
use crate::service::{Reaped, Watched};

const JOURNALCTL: &str = "/usr/bin/journalctl";
/// Bytes passed on at once.
const PIECE_BYTES: usize = 16 << 10;

/// Sends what a filter lets through. A client that reads slowly makes journalctl wait, nobody else.
pub(super) async fn read(filter: &Filter, answer: &mut Answer) -> Result<(), Stop> {
    let arguments = arguments(filter).map_err(Stop::Error)?;
    let mut reader =
        Reader::start(&arguments).map_err(|error| Stop::Error(format!("start {JOURNALCTL}: {error}")))?;
    let mut piece = vec![0_u8; PIECE_BYTES];
    loop {
        match reader.output.read(&mut piece).await {
            Ok(0) | Err(_) => break,
            Ok(length) => answer.bytes(piece.get(..length).unwrap_or_default()).await?,
        }
    }
    match reader.end().await {
        (Exit::Code(0), _) => Ok(()),
        // journalctl(1): 1 is also "nothing matched the pattern".
        (Exit::Code(1), said) if said.is_empty() => Ok(()),
        (exit, said) if said.is_empty() => Err(Stop::Error(format!("journalctl ended with {exit}"))),
        (_, said) => Err(Stop::Error(said)),
    }
}

/// A journalctl that runs. Dropped, it ends.
struct Reader {
    output: pipe::Receiver,
    errors: File,
    process: Option<Watched>,
}

impl Reader {
    fn start(arguments: &[String]) -> std::io::Result<Self> {
        let (theirs, ours) = {
            let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
            (writer, reader)
        };
        let errors = File::from(memfd_create("errors", MemfdFlags::CLOEXEC)?);
        let mut command = Command::new(JOURNALCTL);
        command.args(arguments).env_clear().env("PATH", "/usr/bin").env("LC_ALL", "C.UTF-8");
        command.stdin(Stdio::null()).stdout(Stdio::from(theirs)).stderr(errors.try_clone()?);
        let group = Group::at("system/helpers");
        let joiner: Option<OwnedFd> = group.make().and_then(|()| group.joiner()).ok();
        let oom = CString::new("0").unwrap_or_default();
        // SAFETY: system calls only, on live memory and open descriptors.
        unsafe {
            command.pre_exec(move || {
                if let Some(joiner) = &joiner {
                    libc::write(joiner.as_raw_fd(), c"0".as_ptr().cast(), 1);
                }
                let fd = libc::open(c"/proc/self/oom_score_adj".as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
                if fd >= 0 {
                    libc::write(fd, oom.as_ptr().cast(), oom.count_bytes());
                    libc::close(fd);
                }
                Ok(())
            });
        }
        let child = command.spawn()?;
        let gone = || std::io::Error::from_raw_os_error(libc::ESRCH);
        let who = Identity::of(child.id() as i32).ok_or_else(gone)?;
        let process = Watched::new(who, &Reaped::default())?;
        rustix::io::ioctl_fionbio(&ours, true)?;
        Ok(Self { output: pipe::Receiver::from_owned_fd(ours)?, errors, process: Some(process) })
    }

    /// Waits for its end; gives what it said on standard error.
    async fn end(&mut self) -> (Exit, String) {
        let exit = match self.process.take() {
            Some(process) => process.wait().await,
            None => Exit::Unknown,
        };
        let mut said = String::new();
        let _ = self.errors.rewind().and_then(|()| self.errors.read_to_string(&mut said));
        // "-- No entries --" is no failure.
        let lines: Vec<&str> = said.lines().filter(|line| !line.starts_with("-- ")).collect();
        (exit, lines.join("; "))
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if let Some(process) = self.process.take() {
            process.signal(Signal::KILL);
            spawn_local(async move { process.wait().await });
        }
    }
}

/// journalctl's arguments. Every value is behind an equals sign or checked: none can be taken for an option.
fn arguments(filter: &Filter) -> Result<Vec<String>, String> {
    let mut words: Vec<String> =
        ["--no-pager", "--quiet", "--all", "--output=json"].map(str::to_owned).into();
    let mut option = |name: &str, value: &Option<String>| {
        words.extend(value.as_ref().map(|value| format!("--{name}={value}")));
    };
    option("since", &filter.since);
    option("until", &filter.until);
    option("priority", &filter.priority);
    option("grep", &filter.grep);
    option("boot", &filter.boot);
    option("lines", &filter.lines.map(|lines| lines.to_string()));
    if filter.follow {
        words.push("--follow".to_owned());
        if filter.lines.is_none() && filter.since.is_some() {
            // Else journalctl begins with the last ten.
            words.push("--no-tail".to_owned());
        }
    }
    let mut all = Vec::new();
    for field in &filter.fields {
        let name = field.split_once('=').map(|(name, _)| name).unwrap_or_default();
        let is_name = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_';
        if name.is_empty() || !name.bytes().all(is_name) {
            return Err(format!(
                "{field:?} is no match; expected FIELD=value with a field's name in capitals"
            ));
        }
        all.push(field.clone());
    }
    all.extend(filter.function.as_ref().map(|name| format!("BOTHY_FUNCTION={name}")));
    all.extend(filter.namespace.as_ref().map(|name| format!("BOTHY_NAMESPACE={name}")));
    if filter.kernel {
        all.push("_TRANSPORT=kernel".to_owned());
    }
    match &filter.service {
        // What its processes say, and what the supervisor's stream says in its name.
        Some(name) => {
            words.extend(all.iter().cloned());
            words.push(format!("_SYSTEMD_CGROUP=/system/{name}"));
            words.push("+".to_owned());
            words.extend(all);
            words.push(format!("SYSLOG_IDENTIFIER={name}"));
        }
        None => words.extend(all),
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_become_arguments() {
        let words = |filter: Filter| arguments(&filter).unwrap().split_off(4).join(" ");
        assert_eq!(words(Filter::default()), "");
        let filter = Filter {
            service: Some("nats".into()),
            priority: Some("err".into()),
            fields: vec!["_PID=7".into()],
            ..Filter::default()
        };
        assert_eq!(
            words(filter),
            "--priority=err _PID=7 _SYSTEMD_CGROUP=/system/nats + _PID=7 SYSLOG_IDENTIFIER=nats"
        );
        let filter = Filter {
            function: Some("f".into()),
            namespace: Some("n".into()),
            follow: true,
            since: Some("-1h".into()),
            ..Filter::default()
        };
        assert_eq!(words(filter), "--since=-1h --follow --no-tail BOTHY_FUNCTION=f BOTHY_NAMESPACE=n");
    }

    #[test]
    fn nothing_becomes_an_option() {
        for field in ["--file=/etc/shadow", "x", "=x", "message=x", "A B=x", "/dev/sda"] {
            let filter = Filter { fields: vec![field.into()], ..Filter::default() };
            assert!(arguments(&filter).is_err(), "{field}");
        }
        let filter = Filter { since: Some("--file=x".into()), ..Filter::default() };
        assert!(arguments(&filter).unwrap().contains(&"--since=--file=x".to_owned()));
    }
}

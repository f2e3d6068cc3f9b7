//! Asking a service whether it works, once.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use super::declaration::{Declaration, Probe};
use super::spawn;
use super::watch::{Reaped, Watched};
use crate::cgroup::Group;
use crate::process::Exit;

/// What a probe needs to know of the service it asks: a command runs as the service does.
pub(super) struct Asked<'a> {
    /// The service.
    pub declaration: &'a Declaration,
    /// Its group.
    pub group: Option<Group>,
    /// Where its output goes.
    pub journal: &'a std::path::Path,
    /// Ends of processes.
    pub reaped: &'a Reaped,
}

impl Asked<'_> {
    /// Asks. The reason of a failure is one line, and says what was asked.
    pub(super) async fn ask(&self, probe: Probe, limit: Duration) -> Result<(), String> {
        let answer = async {
            match probe {
                Probe::Tcp(port) => TcpStream::connect(("127.0.0.1", port)).await.map(drop).map_err(text),
                Probe::Unix(path) => UnixStream::connect(path).await.map(drop).map_err(text),
                Probe::Http(port, path) => match get(port, path).await {
                    Ok(200) => Ok(()),
                    Ok(code) => Err(format!("answers {code}")),
                    Err(error) => Err(text(error)),
                },
                Probe::Exec(command) => self.run(command).await,
            }
        };
        let answer = tokio::time::timeout(limit, answer).await;
        let answer = answer.unwrap_or_else(|_| Err(format!("no answer within {} s", limit.as_secs_f32())));
        answer.map_err(|why| format!("{}: {why}", name(probe)))
    }

    async fn run(&self, command: &'static [&'static str]) -> Result<(), String> {
        let declaration = Declaration { command, ..self.declaration.clone() };
        let who = spawn::spawn(&declaration, self.group.as_ref(), None, &[], self.journal)
            .map_err(|error| error.to_string())?;
        let process = Watched::new(who, self.reaped).map_err(text)?;
        match Leash(process).0.wait().await {
            Exit::Code(0) => Ok(()),
            exit => Err(format!("ended with {exit}")),
        }
    }
}

/// Nobody may leave a process behind, whoever stops waiting for it.
struct Leash(Watched);

impl Drop for Leash {
    fn drop(&mut self) {
        self.0.put_down();
    }
}

fn text(error: io::Error) -> String {
    error.to_string()
}

fn name(probe: Probe) -> String {
    match probe {
        Probe::Tcp(port) => format!("port {port}"),
        Probe::Unix(path) => path.to_owned(),
        Probe::Http(port, path) => format!("GET 127.0.0.1:{port}{path}"),
        Probe::Exec(command) => command.join(" "),
    }
}

/// `GET`; gives the status code. HTTP/1.0: one answer, then the end.
async fn get(port: u16, path: &str) -> io::Result<u16> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: localhost\r\nUser-Agent: init\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut head = Vec::new();
    stream.take(512).read_to_end(&mut head).await?;
    code(&head).ok_or_else(|| io::Error::other("answers something that is not HTTP"))
}

fn code(head: &[u8]) -> Option<u16> {
    let line = head.split(|byte| *byte == b'\r').next()?;
    let line = std::str::from_utf8(line).ok()?.strip_prefix("HTTP/1.")?;
    line.split(' ').nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::SERVICES;
    use crate::service::declaration::{Rights, Sandbox};

    const LIMIT: Duration = Duration::from_secs(10);

    async fn ask(probe: Probe, limit: Duration) -> Result<(), String> {
        let (rights, sandbox, oom_score) = (Rights::Any, Sandbox::None, 0);
        let declaration = Declaration { rights, sandbox, oom_score, rlimits: &[], ..SERVICES[3].clone() };
        let (reaped, journal) = (Reaped::default(), std::path::Path::new("/nonexistent"));
        Asked { declaration: &declaration, group: None, journal, reaped: &reaped }.ask(probe, limit).await
    }

    #[test]
    fn reads_a_status_line() {
        assert_eq!(code(b"HTTP/1.1 200 OK\r\nx"), Some(200));
        assert_eq!(code(b"HTTP/1.0 503\r\n"), Some(503));
        assert_eq!(code(b"SSH-2.0"), None);
        assert_eq!(code(b""), None);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn http_wants_200() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        for (line, good) in [("200 OK", true), ("503 Service Unavailable", false)] {
            let serve = async {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut buffer = [0; 256];
                let length = stream.read(&mut buffer).await.unwrap();
                assert!(buffer[..length].starts_with(b"GET /well HTTP/1.0\r\n"));
                let answer = format!("HTTP/1.1 {line}\r\ncontent-length: 2\r\n\r\nOK");
                stream.write_all(answer.as_bytes()).await.unwrap();
            };
            let (answer, ()) = tokio::join!(ask(Probe::Http(port, "/well"), LIMIT), serve);
            assert_eq!(answer.is_ok(), good, "{answer:?}");
        }
        // Connects and never answers.
        let why = ask(Probe::Http(port, "/well"), Duration::from_millis(100)).await.unwrap_err();
        assert_eq!(why, format!("GET 127.0.0.1:{port}/well: no answer within 0.1 s"));
        drop(listener);
        let why = ask(Probe::Http(port, "/well"), LIMIT).await.unwrap_err();
        assert!(why.contains("refused"), "{why}");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn sockets_must_accept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let name: &'static str = path.to_str().unwrap().to_owned().leak();
        assert!(ask(Probe::Unix(name), LIMIT).await.unwrap_err().contains("No such file"));
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        ask(Probe::Unix(name), LIMIT).await.unwrap();
        // The file stays when the server goes.
        drop(listener);
        assert!(ask(Probe::Unix(name), LIMIT).await.unwrap_err().contains("refused"));
    }

    #[tokio::test(flavor = "current_thread")]
    async fn commands_must_end_with_0_and_in_time() {
        ask(Probe::Exec(&["/bin/true"]), LIMIT).await.unwrap();
        let why = ask(Probe::Exec(&["/bin/sh", "-c", "exit 3"]), LIMIT).await.unwrap_err();
        assert_eq!(why, "/bin/sh -c exit 3: ended with exit status 3");
        assert!(ask(Probe::Exec(&["/nonexistent"]), LIMIT).await.unwrap_err().contains("No such file"));
        let script = &["/bin/sh", "-c", "exec sleep 4711.25"];
        let why = ask(Probe::Exec(script), Duration::from_millis(100)).await.unwrap_err();
        assert!(why.ends_with("no answer within 0.1 s"), "{why}");
        let entries = std::fs::read_dir("/proc").unwrap().flatten();
        let lines = entries.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
        assert!(!lines.into_iter().any(|line| line == b"sleep\x004711.25\0"), "it lives on");
    }
}

//! `stack log`: carries the functions' output from FIFOs into the journal.
//!
//! ```text
//! function ── FIFO ── reader ── lines ── queue (bounded) ── writer ── journald's native socket
//! ```
//!
//! One thread for all functions. Neither side's death blocks or kills the other: a FIFO is opened for reading and
//! writing, so it never ends and its writer never gets SIGPIPE; while journald is away the queue fills, and what does
//! not fit is dropped, counted, and told about when journald is back. While this service is away the supervisor keeps
//! the FIFOs open: what a function wrote before it ended is still there, its FIFO's name gone or not.

mod entry;
mod folder;
mod keep;
mod lines;
mod queue;
mod reader;
pub mod remark;
mod writer;

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use tokio::net::unix::pipe::Receiver;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::{JoinSet, LocalSet};

use crate::error::{Error, Result};
use crate::notify::notify;
use entry::Source;
use folder::{Change, Folder};
use keep::Keeper;
use queue::Queue;
use reader::End;

/// Pause between two looks at the whole folder: for FIFOs that could not be opened, and for what was not told.
const SCAN: Duration = Duration::from_secs(10);

/// How long the end may wait for journald.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Works until SIGTERM or SIGINT. `handed` are the FIFOs that a former life of this service had open.
pub async fn run(fifos: &Path, journal: &Path, handed: Vec<(String, OwnedFd)>) -> Result<()> {
    let signals = |source| Error::Read { path: "signals".into(), source };
    let mut terminate = signal(SignalKind::terminate()).map_err(signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(signals)?;
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    let serving = async {
        let kept = Kept { handed, keeper: Keeper::start(Keeper::socket()) };
        serve(fifos, journal, kept, stop).await
    };
    LocalSet::new().run_until(serving).await
}

/// What outlives this process.
struct Kept {
    handed: Vec<(String, OwnedFd)>,
    keeper: Keeper,
}

/// Works until `stop`; has to run in a `LocalSet`.
async fn serve(fifos: &Path, journal: &Path, kept: Kept, stop: impl Future<Output = ()>) -> Result<()> {
    let folder = Folder::watch(fifos)?;
    let queue = Rc::new(Queue::default());
    let writer = tokio::task::spawn_local(writer::run(queue.clone(), journal.to_owned()));
    let Kept { handed, keeper } = kept;
    let mut readers = Readers {
        fifos,
        queue: queue.clone(),
        keeper: Rc::new(keeper),
        ends: HashMap::new(),
        tasks: JoinSet::new(),
    };
    handed.into_iter().for_each(|(name, fd)| readers.take_back(&name, fd));
    readers.scan(&folder)?;
    notify("READY=1");
    tokio::pin!(stop);
    loop {
        let changes = tokio::select! {
            changes = folder.changes() => changes?,
            () = tokio::time::sleep(SCAN) => vec![Change::Unknown],
            () = &mut stop => break,
        };
        for change in changes {
            match change {
                Change::Appeared(name) => readers.open(&name),
                Change::Vanished(name) => readers.close(&name),
                Change::Unknown => readers.scan(&folder)?,
            }
        }
        while readers.tasks.try_join_next().is_some() {}
    }
    notify("STOPPING=1");
    // What lies in the FIFOs stays there for our next life; what was read is written.
    readers.ends.values().for_each(|(_, end)| end.at_once());
    while readers.tasks.join_next().await.is_some() {}
    let _ = tokio::time::timeout(LAST_WORDS, queue.drained()).await;
    writer.abort();
    Ok(())
}

/// The FIFOs that are open.
struct Readers<'a> {
    fifos: &'a Path,
    queue: Rc<Queue>,
    keeper: Rc<Keeper>,
    /// By their names: which file it is, and how its reader is told to end.
    ends: HashMap<String, (u64, Rc<End>)>,
    tasks: JoinSet<()>,
}

impl Readers<'_> {
    fn scan(&mut self, folder: &Folder) -> Result<()> {
        let names = folder.names()?;
        let gone: Vec<_> = self.ends.keys().filter(|name| !names.contains(*name)).cloned().collect();
        gone.iter().for_each(|name| self.close(name));
        names.iter().for_each(|name| self.open(name));
        Ok(())
    }

    fn open(&mut self, name: &str) {
        let Some(source) = Source::parse(name) else { return };
        let path = self.fifos.join(name);
        // Gone again already: there is nothing to read that its reader does not have.
        let Ok(inode) = std::fs::metadata(&path).map(|found| found.ino()) else { return };
        match self.ends.get(name) {
            Some((known, _)) if *known == inode => return,
            // Another one under the same name: its predecessor's end was not told.
            Some(_) => self.close(name),
            None => {}
        }
        match reader::open(&path) {
            Ok(fifo) => {
                self.keeper.keep(&kept_name(name, inode), fifo.as_fd());
                self.read(name, inode, source, fifo);
            }
            Err(error) => tracing::error!("{error}"),
        }
    }

    /// Goes on with a FIFO of our former life.
    fn take_back(&mut self, kept: &str, fd: OwnedFd) {
        let named = kept.rsplit_once('@').and_then(|(name, inode)| Some((name, inode.parse().ok()?)));
        let found = named.and_then(|(name, inode)| Some((name, inode, Source::parse(name)?)));
        let Some((name, inode, source)) = found else {
            tracing::warn!("{kept} is no output of a function");
            return self.keeper.forget(kept);
        };
        match reader::reopen(fd) {
            Ok(fifo) => {
                // Two of one name: the earlier one's has been removed, and is read out.
                self.close(name);
                self.read(name, inode, source, fifo);
            }
            Err(error) => {
                tracing::error!("{kept}: {error}");
                self.keeper.forget(kept);
            }
        }
    }

    fn read(&mut self, name: &str, inode: u64, source: Source, fifo: Receiver) {
        let end = Rc::new(End::default());
        self.ends.insert(name.to_owned(), (inode, end.clone()));
        let (keeper, kept) = (self.keeper.clone(), kept_name(name, inode));
        let reading = reader::run(fifo, source, self.queue.clone(), end);
        self.tasks.spawn_local(async move {
            if reading.await {
                keeper.forget(&kept);
            }
        });
    }

    fn close(&mut self, name: &str) {
        if let Some((_, end)) = self.ends.remove(name) {
            end.when_empty();
        }
    }
}

/// A FIFO's name at the supervisor's: one function after the other may have the same name, but not the same file.
fn kept_name(name: &str, inode: u64) -> String {
    format!("{name}@{inode}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::net::UnixDatagram;

    fn fifo(folder: &Path, name: &str) -> std::fs::File {
        let path = folder.join(name);
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
        std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap()
    }

    async fn receive(journal: &UnixDatagram) -> Vec<u8> {
        let journal = journal.try_clone().unwrap();
        tokio::task::spawn_blocking(move || {
            journal.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            let mut buffer = vec![0; 1 << 17];
            let n = journal.recv(&mut buffer).unwrap();
            buffer.truncate(n);
            buffer
        })
        .await
        .unwrap()
    }

    fn kept(handed: Vec<(String, OwnedFd)>, supervisor: Option<&Path>) -> Kept {
        Kept { handed, keeper: Keeper::start(supervisor.map(Path::to_owned)) }
    }

    fn contains(entry: &[u8], part: &[u8]) -> bool {
        entry.windows(part.len()).any(|window| window == part)
    }

    #[tokio::test]
    async fn output_arrives_whole_and_in_order_even_when_journald_comes_late() {
        let place = tempfile::tempdir().unwrap();
        let (fifos, socket) = (place.path().join("fifo"), place.path().join("socket"));
        std::fs::create_dir(&fifos).unwrap();
        let mut early = fifo(&fifos, "openfaas-fn.a.0.out");
        early.write_all(b"first\nsec\xffond\n").unwrap();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let local = LocalSet::new();
        let served =
            local.run_until(async {
                let service = tokio::task::spawn_local({
                    let (fifos, socket) = (fifos.clone(), socket.clone());
                    async move {
                        serve(&fifos, &socket, kept(Vec::new(), None), async { drop(stopped.await) }).await
                    }
                });
                tokio::time::sleep(Duration::from_millis(50)).await;
                let journal = UnixDatagram::bind(&socket).unwrap();
                let entry = receive(&journal).await;
                assert!(contains(&entry, b"MESSAGE\n\x05\0\0\0\0\0\0\0first\n"));
                for field in [
                    "SYSLOG_IDENTIFIER=openfaas-fn:a\n",
                    "PRIORITY=6\n",
                    "BOTHY_REPLICA=0\n",
                    "BOTHY_STREAM=out\n",
                ] {
                    assert!(contains(&entry, field.as_bytes()), "{field}");
                }
                assert!(contains(&receive(&journal).await, b"sec\xffond\n"));
                let mut late = fifo(&fifos, "openfaas-fn.b.1.err");
                late.write_all(b"oops\n").unwrap();
                assert!(contains(&receive(&journal).await, b"PRIORITY=3\n"));
                // A FIFO that is taken away is read to its end, an unfinished line included.
                late.write_all(b"last words").unwrap();
                std::fs::remove_file(fifos.join("openfaas-fn.b.1.err")).unwrap();
                assert!(contains(&receive(&journal).await, b"last words\n"));
                // journald is restarted.
                drop(journal);
                std::fs::remove_file(&socket).unwrap();
                early.write_all(b"while away\n").unwrap();
                tokio::time::sleep(Duration::from_millis(50)).await;
                let journal = UnixDatagram::bind(&socket).unwrap();
                assert!(contains(&receive(&journal).await, b"while away\n"));
                // The service ends: what it has read is told, ended or not.
                early.write_all(b"unfinished").unwrap();
                tokio::time::sleep(Duration::from_millis(50)).await;
                stop.send(()).unwrap();
                let outcome = service.await.unwrap();
                assert!(contains(&receive(&journal).await, b"unfinished\n"));
                outcome
            });
        served.await.unwrap();
    }

    /// A message to the supervisor, and the descriptor that came with it.
    async fn told(supervisor: &tokio::net::UnixDatagram) -> (String, Option<OwnedFd>) {
        use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
        use std::os::fd::{AsRawFd, FromRawFd};

        let receive = || {
            let mut bytes = [0; 256];
            let mut control = nix::cmsg_space!([std::os::fd::RawFd; 1]);
            let mut parts = [std::io::IoSliceMut::new(&mut bytes)];
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
            let message = recvmsg::<()>(supervisor.as_raw_fd(), &mut parts, Some(&mut control), flags)?;
            let length = message.bytes;
            let fd = message.cmsgs()?.find_map(|part| match part {
                ControlMessageOwned::ScmRights(fds) => fds.first().copied(),
                _ => None,
            });
            // SAFETY: it has just been given to us.
            let fd = fd.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
            Ok((String::from_utf8_lossy(&bytes[..length]).into_owned(), fd))
        };
        let message = supervisor.async_io(tokio::io::Interest::READABLE, receive);
        tokio::time::timeout(Duration::from_secs(10), message).await.unwrap().unwrap()
    }

    #[tokio::test]
    async fn a_fifo_outlives_this_service_and_its_own_name() {
        let place = tempfile::tempdir().unwrap();
        let (fifos, socket) = (place.path().join("fifo"), place.path().join("socket"));
        std::fs::create_dir(&fifos).unwrap();
        let journal = UnixDatagram::bind(&socket).unwrap();
        let notify = place.path().join("notify");
        let supervisor = tokio::net::UnixDatagram::bind(&notify).unwrap();
        let mut function = fifo(&fifos, "openfaas-fn.a.0.out");
        let inode = function.metadata().unwrap().ino();
        let live = |handed| {
            let (fifos, socket, notify) = (fifos.clone(), socket.clone(), notify.clone());
            tokio::task::spawn_local(async move {
                serve(&fifos, &socket, kept(handed, Some(&notify)), std::future::pending()).await
            })
        };
        let local = LocalSet::new();
        let lives = local.run_until(async {
            let first = live(Vec::new());
            let name = format!("openfaas-fn.a.0.out@{inode}");
            let (text, fd) = told(&supervisor).await;
            assert_eq!(text, format!("FDSTORE=1\nFDNAME={name}"));
            // It is killed; the function writes, ends, and is removed.
            first.abort();
            let _ = first.await;
            function.write_all(b"last words\n").unwrap();
            drop(function);
            std::fs::remove_file(fifos.join("openfaas-fn.a.0.out")).unwrap();
            // Another one takes its name.
            let _other = fifo(&fifos, "openfaas-fn.a.0.out");
            let second =
                live(vec![(name.clone(), fd.unwrap()), ("nonsense".to_owned(), journal_copy(&journal))]);
            assert!(contains(&receive(&journal).await, b"last words\n"));
            let mut said = Vec::new();
            for _ in 0..3 {
                let (text, fd) = told(&supervisor).await;
                said.push((text.lines().next().unwrap().to_owned(), text.contains(&name), fd.is_some()));
            }
            said.sort();
            let wanted = [
                ("FDSTORE=1", false, true),
                ("FDSTOREREMOVE=1", false, false),
                ("FDSTOREREMOVE=1", true, false),
            ];
            assert_eq!(said, wanted.map(|(word, same, fd)| (word.to_owned(), same, fd)));
            second.abort();
        });
        lives.await;
    }

    fn journal_copy(journal: &UnixDatagram) -> OwnedFd {
        journal.try_clone().unwrap().into()
    }
}

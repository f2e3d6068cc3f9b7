//! `stack log`: carries the functions' output from FIFOs into the journal.
//!
//! ```text
//! function ── FIFO ── reader ── lines ── queue (bounded) ── writer ── journald's native socket
//! ```
//!
//! One thread for all functions. Neither side's death blocks or kills the other: a FIFO is opened for reading and
//! writing, so it never ends and its writer never gets SIGPIPE; while journald is away the queue fills, and what does
//! not fit is dropped, counted, and told about when journald is back.

mod entry;
mod folder;
mod lines;
mod queue;
mod reader;
mod writer;

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::task::{JoinSet, LocalSet};

use crate::error::{Error, Result};
use crate::notify::notify;
use entry::Source;
use folder::{Change, Folder};
use queue::Queue;
use reader::End;

/// Pause between two looks at the whole folder: for FIFOs that could not be opened, and for what was not told.
const SCAN: Duration = Duration::from_secs(10);

/// How long the end may wait for journald.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Works until SIGTERM or SIGINT.
pub async fn run(fifos: &Path, journal: &Path) -> Result<()> {
    let signals = |source| Error::Read { path: "signals".into(), source };
    let mut terminate = signal(SignalKind::terminate()).map_err(signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(signals)?;
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    LocalSet::new().run_until(serve(fifos, journal, stop)).await
}

/// Works until `stop`; has to run in a `LocalSet`.
async fn serve(fifos: &Path, journal: &Path, stop: impl Future<Output = ()>) -> Result<()> {
    let folder = Folder::watch(fifos)?;
    let queue = Rc::new(Queue::default());
    let writer = tokio::task::spawn_local(writer::run(queue.clone(), journal.to_owned()));
    let mut readers = Readers { fifos, queue: queue.clone(), ends: HashMap::new(), tasks: JoinSet::new() };
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
                let end = Rc::new(End::default());
                self.ends.insert(name.to_owned(), (inode, end.clone()));
                self.tasks.spawn_local(reader::run(fifo, source, self.queue.clone(), end));
            }
            Err(error) => tracing::error!("{error}"),
        }
    }

    fn close(&mut self, name: &str) {
        if let Some((_, end)) = self.ends.remove(name) {
            end.when_empty();
        }
    }
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
        let served = local.run_until(async {
            let service = tokio::task::spawn_local({
                let (fifos, socket) = (fifos.clone(), socket.clone());
                async move { serve(&fifos, &socket, async { drop(stopped.await) }).await }
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
}

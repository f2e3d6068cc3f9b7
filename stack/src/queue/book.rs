//! Writes lines into the ledger, and brings them and all that was stored before them to the disk: in groups, since one sync
//! costs as much for a thousand lines as for one.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::broker::Broker;
use super::index::Index;
use super::ledger::{Line, pieces};
use super::subject::LEDGER_SUBJECT;

/// Lines at most in one group.
const GROUP: usize = 2048;

/// Whoever waits for a line to be safe.
type Waiting = oneshot::Sender<Result<(), String>>;

/// Takes lines. Clones write into the same ledger.
#[derive(Clone)]
pub struct Book(mpsc::Sender<(Line, Waiting)>);

impl Book {
    /// Starts the two tasks that write and sync, on the caller's runtime; they end when nobody has the book any more.
    /// `index` takes note of what was written at once.
    pub fn start(broker: Broker, index: Arc<Index>) -> Self {
        let (lines, incoming) = mpsc::channel(GROUP);
        let (written, to_sync) = mpsc::channel(1);
        let disk = broker.disk.clone();
        tokio::spawn(write(broker, index, incoming, written));
        tokio::spawn(async move {
            let mut to_sync: mpsc::Receiver<Vec<Waiting>> = to_sync;
            let mut groups = Vec::new();
            let mut before = Ok(());
            while to_sync.recv_many(&mut groups, GROUP).await > 0 {
                let synced = disk.sync().await;
                // The kernel tells of a failure once, and it may have been of what this group wrote while the last one was
                // synced.
                let told = std::mem::replace(&mut before, synced.clone());
                let synced = told.and(synced);
                for waiting in groups.drain(..).flatten() {
                    let _ = waiting.send(synced.clone());
                }
            }
        });
        Self(lines)
    }

    /// Returns when the line is on the disk, and with it all that JetStream acknowledged before.
    ///
    /// # Errors
    /// It could not be written; in words. It may be there all the same.
    pub async fn write(&self, line: Line) -> Result<(), String> {
        let (waiting, written) = oneshot::channel();
        let ended = || "the program ends".to_owned();
        self.0.send((line, waiting)).await.map_err(|_| ended())?;
        written.await.map_err(|_| ended())?
    }
}

/// Writes groups while the one before is being synced: what comes meanwhile is the next group.
async fn write(
    broker: Broker,
    index: Arc<Index>,
    mut incoming: mpsc::Receiver<(Line, Waiting)>,
    written: mpsc::Sender<Vec<Waiting>>,
) {
    let mut group = Vec::new();
    while incoming.recv_many(&mut group, GROUP).await > 0 {
        let (lines, waiting): (Vec<Line>, Vec<Waiting>) = group.drain(..).unzip();
        match publish(&broker, &index, &lines).await {
            Ok(()) => drop(written.send(waiting).await),
            Err(error) => {
                for waiting in waiting {
                    let _ = waiting.send(Err(error.clone()));
                }
            }
        }
    }
}

async fn publish(broker: &Broker, index: &Index, lines: &[Line]) -> Result<(), String> {
    broker.prepared().await?;
    let mut lines = lines.iter();
    for (piece, number) in pieces(lines.clone()) {
        let sequence = broker.publish(LEDGER_SUBJECT.to_owned(), piece.into()).await?;
        index.note(sequence, lines.by_ref().take(number));
    }
    Ok(())
}

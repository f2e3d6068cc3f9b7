//! One client's stream.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream as Items;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;

use super::entry;
use super::reader::{Line, Reader};
use super::wanted::Wanted;
use crate::gateway::reply::BodyError;

/// journalctl gives up where journald removes a file that it reads ("Bad message"). So many times in a row it is started
/// again without having told anything.
const TRIES: u32 = 3;
/// Pause before each.
const PAUSE: Duration = Duration::from_millis(100);

/// Where lines come from.
#[derive(Debug, Clone)]
pub struct Source {
    /// journalctl.
    pub program: PathBuf,
    /// A journal other than the machine's own.
    pub folder: Option<PathBuf>,
}

/// What a client is told. Dropped, it leaves nothing behind.
pub struct Stream {
    source: Source,
    wanted: Wanted,
    reader: Reader,
    /// The place of the last line in the journal.
    cursor: Option<String>,
    tries: u32,
    /// The gateway ends.
    ending: CancellationToken,
    _place: OwnedSemaphorePermit,
}

impl Stream {
    /// Starts a journalctl.
    pub fn open(
        source: Source,
        wanted: Wanted,
        ending: CancellationToken,
        place: OwnedSemaphorePermit,
    ) -> io::Result<Self> {
        let reader = Reader::start(&source.program, wanted.arguments(source.folder.as_deref(), None))?;
        Ok(Self { source, wanted, reader, cursor: None, tries: 0, ending, _place: place })
    }

    /// The next line; nothing at the end, an error where it is not the end of what there is.
    pub async fn next(&mut self) -> Result<Option<Bytes>, BodyError> {
        let ending = self.ending.clone();
        tokio::select! {
            line = self.read() => line,
            () = ending.cancelled() => Ok(None),
        }
    }

    /// All that is left.
    pub fn rest(self) -> impl Items<Item = Result<Bytes, BodyError>> {
        futures_util::stream::unfold(Some(self), |stream| async {
            let mut stream = stream?;
            match stream.next().await {
                Ok(Some(line)) => Some((Ok(line), Some(stream))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        })
    }

    async fn read(&mut self) -> Result<Option<Bytes>, BodyError> {
        loop {
            let read = match self.reader.next().await? {
                Line::Whole(text) => entry::read(&self.wanted.key, &text),
                Line::TooLong => Err("it is too long".to_owned()),
                Line::End => {
                    // It has said why on our own standard error.
                    let status = self.reader.wait().await?;
                    if status.success() {
                        return Ok(None);
                    }
                    self.go_on(&format!("journalctl ended with {status}")).await?;
                    continue;
                }
            };
            match read {
                Ok(entry) => {
                    if entry.cursor.is_some() && entry.cursor != self.cursor {
                        (self.cursor, self.tries) = (entry.cursor, 0);
                    }
                    return Ok(Some(entry.line.into()));
                }
                Err(reason) => {
                    tracing::warn!("an entry of {} in the journal is left out: {reason}", self.wanted.key);
                }
            }
        }
    }

    /// Starts another journalctl, behind the last line.
    async fn go_on(&mut self, reason: &str) -> Result<(), BodyError> {
        if self.tries == TRIES {
            tracing::error!("reading the journal of {}: {reason}", self.wanted.key);
            return Err(reason.into());
        }
        self.tries += 1;
        tracing::info!("reading the journal of {}: {reason}; another one goes on", self.wanted.key);
        tokio::time::sleep(PAUSE).await;
        let arguments = self.wanted.arguments(self.source.folder.as_deref(), self.cursor.as_deref());
        self.reader = Reader::start(&self.source.program, arguments)?;
        Ok(())
    }
}

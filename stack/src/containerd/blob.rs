//! Bytes in containerd's content store.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use containerd_client::services::v1::content_client::ContentClient;
use containerd_client::services::v1::{
    AbortRequest, DeleteContentRequest, InfoRequest, ReadContentRequest, UpdateRequest, WriteAction,
    WriteContentRequest,
};
use containerd_client::types::Descriptor;
use futures_util::stream;
use tokio::io::AsyncReadExt;

use super::client::{Containerd, LARGEST_MESSAGE_BYTES, TRANSFER, call, next, request, within};
use crate::error::{Error, Result};

/// How much of a blob goes into one message.
const MESSAGE_BYTES: usize = 1 << 20;

/// Largest manifest or configuration that is read: they are kilobytes, and come from outside.
const LARGEST_DOCUMENT_BYTES: i64 = 8 << 20;

impl Containerd {
    fn content(&self) -> ContentClient<tonic::transport::Channel> {
        ContentClient::new(self.channel.clone()).max_decoding_message_size(LARGEST_MESSAGE_BYTES)
    }

    /// Whether the namespace has the blob.
    pub(super) async fn has_blob(&self, namespace: &str, digest: &str) -> Result<bool> {
        let info = InfoRequest { digest: digest.to_owned() };
        match call(format!("info of blob {digest}"), self.content().info(request(namespace, None, info)))
            .await
        {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Reads a manifest or configuration as a whole.
    pub(super) async fn read_document(&self, namespace: &str, blob: &Descriptor) -> Result<Vec<u8>> {
        let act = format!("read blob {}", blob.digest);
        if blob.size > LARGEST_DOCUMENT_BYTES {
            let reason = format!("has {} bytes, at most {LARGEST_DOCUMENT_BYTES} are read", blob.size);
            return Err(Error::Invalid { what: format!("blob {}", blob.digest), reason });
        }
        let read = ReadContentRequest { digest: blob.digest.clone(), offset: 0, size: 0 };
        let mut parts = call(act.clone(), self.content().read(request(namespace, None, read))).await?;
        let mut bytes = Vec::new();
        while let Some(part) = next(&act, &mut parts).await? {
            bytes.extend_from_slice(&part.data);
        }
        Ok(bytes)
    }

    /// Forgets a blob; one that is not there is fine. Its file goes with the next collection of garbage.
    pub(super) async fn delete_blob(&self, namespace: &str, digest: &str) -> Result<()> {
        let delete = DeleteContentRequest { digest: digest.to_owned() };
        let mut client = self.content();
        let answer = client.delete(request(namespace, None, delete));
        crate::error::absent_is_fine(call(format!("delete blob {digest}"), answer).await.map(drop))
    }

    /// Sets labels of a blob that is there: what the garbage collector follows.
    pub(super) async fn label_blob(
        &self,
        namespace: &str,
        digest: &str,
        labels: HashMap<String, String>,
    ) -> Result<()> {
        let paths = labels.keys().map(|key| format!("labels.{key}")).collect();
        let info =
            containerd_client::services::v1::Info { digest: digest.to_owned(), labels, ..Default::default() };
        let update = UpdateRequest { info: Some(info), update_mask: Some(prost_types::FieldMask { paths }) };
        call(format!("label blob {digest}"), self.content().update(request(namespace, None, update)))
            .await
            .map(drop)
    }

    /// Writes a blob into the content store under its digest, which containerd checks. One that is there already only
    /// gets its labels. Of what fails nothing stays.
    pub(super) async fn write_blob<O: Origin>(
        &self,
        namespace: &str,
        lease: &str,
        bytes: O,
        blob: &Descriptor,
        labels: HashMap<String, String>,
    ) -> Result<()> {
        // A blob has one writer of a kind: whoever waited finds it there.
        let kind = O::KIND;
        let _turn = self.turns.take(&format!("{namespace} {kind} {}", blob.digest)).await;
        if self.has_blob(namespace, &blob.digest).await? {
            return if labels.is_empty() {
                Ok(())
            } else {
                self.label_blob(namespace, &blob.digest, labels).await
            };
        }
        // Of one's own: containerd holds the name of a write that broke off until it has noticed. What is left under it
        // goes with the lease.
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let (life, number) = (std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let name = format!("bothy-{kind}-{}-{life}-{number}", blob.digest);
        let failure = Arc::default();
        let writer = Writer {
            bytes,
            rest: Bytes::new(),
            name: name.clone(),
            blob: blob.clone(),
            labels,
            offset: 0,
            done: false,
            failure: Arc::clone(&failure),
        };
        let written = self.send(namespace, lease, writer).await;
        // What the source said is the reason; what containerd says of it follows from that.
        let cause = failure.lock().unwrap_or_else(PoisonError::into_inner).take();
        let written = cause.map_or(written, Err);
        if written.is_err()
            && let Err(error) = self.abort(namespace, lease, &name).await
        {
            tracing::debug!("{error}");
        }
        written
    }

    async fn abort(&self, namespace: &str, lease: &str, name: &str) -> Result<()> {
        let abort = AbortRequest { r#ref: name.to_owned() };
        let mut client = self.content();
        let answer = client.abort(request(namespace, Some(lease), abort));
        crate::error::absent_is_fine(call(format!("abort {name}"), answer).await.map(drop))
    }

    async fn send<O: Origin>(&self, namespace: &str, lease: &str, writer: Writer<O>) -> Result<()> {
        let (act, blob) = (format!("write blob {}", writer.blob.digest), writer.blob.clone());
        let messages = stream::unfold(writer, Writer::next);
        let mut client = self.content();
        let write = client.write(request(namespace, Some(lease), messages));
        let mut answers = match within(TRANSFER, act.clone(), write).await {
            Err(error) if error.is_already_there() => return Ok(()),
            other => other?,
        };
        let mut committed = false;
        loop {
            match next(&act, &mut answers).await {
                Ok(Some(answer)) => committed = answer.action() == WriteAction::Commit,
                Ok(None) => break,
                Err(error) if error.is_already_there() => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        if committed {
            return Ok(());
        }
        let reason = format!("ended before its {} bytes", blob.size);
        Err(Error::Invalid { what: format!("blob {}", blob.digest), reason })
    }
}

/// Where a blob's bytes come from.
pub(super) trait Origin: Send + 'static {
    /// What is at hand does not wait for what comes from far away.
    const KIND: &'static str;

    /// The next ones, of which there are some; nothing at the end.
    fn next(&mut self) -> impl Future<Output = Result<Option<Bytes>>> + Send;
}

/// A file's bytes.
pub(super) struct FileBytes {
    path: PathBuf,
    file: Option<tokio::fs::File>,
}

impl FileBytes {
    /// Opened when they are asked for.
    pub fn new(path: PathBuf) -> Self {
        Self { path, file: None }
    }
}

impl Origin for FileBytes {
    const KIND: &'static str = "here";

    async fn next(&mut self) -> Result<Option<Bytes>> {
        let read = |source| Error::Read { path: self.path.clone(), source };
        let file = match &mut self.file {
            Some(file) => file,
            None => self.file.insert(tokio::fs::File::open(&self.path).await.map_err(read)?),
        };
        let mut data = BytesMut::with_capacity(MESSAGE_BYTES);
        while data.len() < MESSAGE_BYTES && file.read_buf(&mut data).await.map_err(read)? > 0 {}
        Ok((!data.is_empty()).then(|| data.freeze()))
    }
}

/// Bytes in memory.
impl Origin for Option<Bytes> {
    const KIND: &'static str = "here";

    async fn next(&mut self) -> Result<Option<Bytes>> {
        Ok(self.take())
    }
}

impl Origin for crate::registry::Blob {
    const KIND: &'static str = "far";

    fn next(&mut self) -> impl Future<Output = Result<Option<Bytes>>> + Send {
        Self::next(self)
    }
}

/// The messages of one blob: parts, then the commit.
struct Writer<O> {
    bytes: O,
    /// What did not fit into the last message.
    rest: Bytes,
    name: String,
    blob: Descriptor,
    labels: HashMap<String, String>,
    offset: i64,
    done: bool,
    /// Why the messages ended early.
    failure: Arc<Mutex<Option<Error>>>,
}

impl<O: Origin> Writer<O> {
    async fn next(mut self) -> Option<(WriteContentRequest, Self)> {
        if self.done {
            return None;
        }
        let mut message = WriteContentRequest {
            action: WriteAction::Write.into(),
            r#ref: self.name.clone(),
            total: self.blob.size,
            expected: self.blob.digest.clone(),
            offset: self.offset,
            ..Default::default()
        };
        if self.offset >= self.blob.size {
            message.action = WriteAction::Commit.into();
            message.labels = std::mem::take(&mut self.labels);
            self.done = true;
            return Some((message, self));
        }
        if self.rest.is_empty() {
            match self.bytes.next().await {
                Ok(Some(bytes)) => self.rest = bytes,
                // The messages end without a commit.
                Ok(None) => return None,
                Err(error) => {
                    *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                    return None;
                }
            }
        }
        let left = usize::try_from(self.blob.size - self.offset).unwrap_or(MESSAGE_BYTES);
        let part = self.rest.split_to(self.rest.len().min(MESSAGE_BYTES).min(left));
        self.offset += part.len() as i64;
        message.data = part.into();
        Some((message, self))
    }
}

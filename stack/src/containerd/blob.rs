//! Bytes in containerd's content store.

use std::collections::HashMap;
use std::path::Path;

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

    /// Writes a file into the content store under its digest, which containerd checks. A blob that is there already
    /// only gets its labels.
    pub(super) async fn write_blob(
        &self,
        namespace: &str,
        lease: &str,
        file: &Path,
        blob: &Descriptor,
        labels: HashMap<String, String>,
    ) -> Result<()> {
        let act = format!("write blob {}", blob.digest);
        if self.has_blob(namespace, &blob.digest).await? {
            return if labels.is_empty() {
                Ok(())
            } else {
                self.label_blob(namespace, &blob.digest, labels).await
            };
        }
        // What an interrupted import of the same blob left.
        let name = format!("bothy-{}", blob.digest);
        let abort = AbortRequest { r#ref: name.clone() };
        crate::error::absent_is_fine(
            call(format!("abort {name}"), self.content().abort(request(namespace, Some(lease), abort)))
                .await
                .map(drop),
        )?;
        let opened = tokio::fs::File::open(file)
            .await
            .map_err(|source| Error::Read { path: file.to_owned(), source })?;
        let writer = Writer { file: opened, name, blob: blob.clone(), labels, offset: 0, done: false };
        let messages = stream::unfold(writer, Writer::next);
        let mut answers = match within(
            TRANSFER,
            act.clone(),
            self.content().write(request(namespace, Some(lease), messages)),
        )
        .await
        {
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
        // The stream ended early because the file did: it is shorter than its descriptor says, or unreadable.
        let reason = format!("is not the blob {} of {} bytes", blob.digest, blob.size);
        Err(Error::Invalid { what: file.display().to_string(), reason })
    }
}

/// The messages of one blob: parts, then the commit.
struct Writer {
    file: tokio::fs::File,
    name: String,
    blob: Descriptor,
    labels: HashMap<String, String>,
    offset: i64,
    done: bool,
}

impl Writer {
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
        let room = usize::try_from(self.blob.size - self.offset)
            .map_or(MESSAGE_BYTES, |left| left.min(MESSAGE_BYTES));
        let mut data = vec![0; room];
        self.file.read_exact(&mut data).await.ok()?;
        self.offset += room as i64;
        message.data = data;
        Some((message, self))
    }
}

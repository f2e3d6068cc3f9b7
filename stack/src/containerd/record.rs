//! containerd's records of images: their names, and when they were last of use.

use containerd_client::services::v1::images_client::ImagesClient;
use containerd_client::services::v1::{Image as Named, ListImagesRequest, UpdateImageRequest};
use containerd_client::types::Descriptor;

use super::client::{Containerd, LARGEST_MESSAGE_BYTES, call, request};
use crate::error::{Result, absent_is_fine};
use crate::timestamp;

/// When an image was last of use to a function (RFC 3339). On containerd's own record, so that it is there as long as the
/// image, and no longer.
const LABEL_USED: &str = "bothy.last-used";

/// An image by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its full reference.
    pub reference: String,
    /// When it was last of use, in microseconds since 1970. Where nobody has written that, or not so that it can be read:
    /// when the record was last written.
    pub last_used: u64,
}

impl Containerd {
    /// All images that containerd knows in a namespace.
    pub async fn image_records(&self, namespace: &str) -> Result<Vec<Record>> {
        let mut client =
            ImagesClient::new(self.channel.clone()).max_decoding_message_size(LARGEST_MESSAGE_BYTES);
        let list = client.list(request(namespace, None, ListImagesRequest::default()));
        Ok(call("list images", list).await?.images.into_iter().map(record).collect())
    }

    /// Writes down that an image was of use at a moment, in microseconds since 1970. One that is not there is fine.
    pub async fn note_use(&self, namespace: &str, reference: &str, moment: u64) -> Result<()> {
        let labels = [(LABEL_USED.to_owned(), timestamp::rfc3339_micros(moment))].into();
        // containerd 1.7 ends without a target (services/images/helpers.go: descFromProto reads what is not there), and
        // leaves the one that it has: only what the mask names is changed.
        let target = Some(Descriptor::default());
        let image = Named { name: reference.to_owned(), labels, target, ..Default::default() };
        let update_mask = Some(prost_types::FieldMask { paths: vec![format!("labels.{LABEL_USED}")] });
        let update = UpdateImageRequest { image: Some(image), update_mask, ..Default::default() };
        let mut client = ImagesClient::new(self.channel.clone());
        let answer = client.update(request(namespace, None, update));
        absent_is_fine(call(format!("label image {reference}"), answer).await.map(drop))
    }
}

fn record(image: Named) -> Record {
    let noted = image.labels.get(LABEL_USED).and_then(|text| u64::try_from(timestamp::parse(text)?).ok());
    let written = image.updated_at.and_then(|at| {
        let micros = u64::try_from(at.nanos).unwrap_or(0) / 1000;
        Some(u64::try_from(at.seconds).ok()?.saturating_mul(1_000_000).saturating_add(micros))
    });
    Record { reference: image.name, last_used: noted.or(written).unwrap_or(0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_use_is_the_noted_one_else_the_last_write() {
        let image = |label: Option<&str>| Named {
            name: "a:1".into(),
            labels: label.map(|text| (LABEL_USED.to_owned(), text.to_owned())).into_iter().collect(),
            updated_at: Some(prost_types::Timestamp { seconds: 7, nanos: 5000 }),
            ..Default::default()
        };
        assert_eq!(record(image(Some("1970-01-01T00:00:09.5Z"))).last_used, 9_500_000);
        for broken in [None, Some(""), Some("yesterday"), Some("1969-12-31T23:59:59Z")] {
            assert_eq!(record(image(broken)).last_used, 7_000_005, "{broken:?}");
        }
        assert_eq!(record(Named { updated_at: None, ..image(None) }).last_used, 0);
    }
}

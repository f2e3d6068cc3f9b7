//! Containers: containerd's records of our instances. Everything that must survive our own end is in their labels.

use containerd_client::services::v1::container::Runtime;
use containerd_client::services::v1::containers_client::ContainersClient;
use containerd_client::services::v1::{
    Container, CreateContainerRequest, DeleteContainerRequest, ListContainersRequest,
};
use prost_types::Any;
use tonic::transport::Channel;

use super::client::{Containerd, LARGEST_MESSAGE_BYTES, call, request};
use crate::error::{Result, absent_is_fine};

/// The function's name; containers without it are not ours.
pub const LABEL_FUNCTION: &str = "bothy.function";
/// The instance's number.
pub const LABEL_REPLICA: &str = "bothy.replica";
/// Digest of the document that the instance was made from.
pub const LABEL_DIGEST: &str = "bothy.document";
/// The instance's IPv4 address.
pub const LABEL_ADDRESS: &str = "bothy.address";

/// Our shim for OCI runtimes: containerd starts `containerd-shim-bothy-v2` for it.
const RUNTIME: &str = "io.containerd.bothy.v2";

/// What a new container is made of.
#[derive(Debug)]
pub struct NewContainer<'a> {
    /// Its identifier, its snapshot's too.
    pub id: &'a str,
    /// The image's full reference.
    pub image: &'a str,
    /// The labels above.
    pub labels: Vec<(&'static str, String)>,
    /// The runtime specification (JSON).
    pub spec: Vec<u8>,
}

impl Containerd {
    fn containers(&self) -> ContainersClient<Channel> {
        ContainersClient::new(self.channel.clone()).max_decoding_message_size(LARGEST_MESSAGE_BYTES)
    }

    /// Our containers in a namespace, of one function or of all.
    pub async fn containers_of(&self, namespace: &str, function: Option<&str>) -> Result<Vec<Container>> {
        let filter = match function {
            Some(function) => format!("labels.{LABEL_FUNCTION:?}=={function:?}"),
            None => format!("labels.{LABEL_FUNCTION:?}"),
        };
        let list = ListContainersRequest { filters: vec![filter] };
        Ok(call("list containers", self.containers().list(request(namespace, None, list))).await?.containers)
    }

    /// Records a container; its snapshot is there already.
    pub async fn create_container(&self, namespace: &str, new: NewContainer<'_>) -> Result<()> {
        let container = Container {
            id: new.id.to_owned(),
            image: new.image.to_owned(),
            labels: new.labels.into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
            runtime: Some(Runtime { name: RUNTIME.into(), options: Some(self.runtime_options()) }),
            // The specification travels as JSON inside Any (containerd's typeurl of runtime-spec types).
            spec: Some(Any {
                type_url: "types.containerd.io/opencontainers/runtime-spec/1/Spec".into(),
                value: new.spec,
            }),
            snapshotter: self.snapshotter.clone(),
            snapshot_key: new.id.to_owned(),
            ..Default::default()
        };
        let create = CreateContainerRequest { container: Some(container) };
        let mut client = self.containers();
        let answer = client.create(request(namespace, None, create));
        call(format!("create container {}", new.id), answer).await.map(drop)
    }

    /// Forgets a container; one that is not there is fine.
    pub async fn delete_container(&self, namespace: &str, id: &str) -> Result<()> {
        let delete = DeleteContainerRequest { id: id.to_owned() };
        let mut client = self.containers();
        let answer = client.delete(request(namespace, None, delete));
        absent_is_fine(call(format!("delete container {id}"), answer).await.map(drop))
    }
}

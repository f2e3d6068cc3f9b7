//! The connection: made on first use, made again after containerd was gone, and never waited on for ever.

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use containerd_client::services::v1::namespaces_client::NamespacesClient;
use containerd_client::services::v1::tasks_client::TasksClient;
use containerd_client::services::v1::{CreateNamespaceRequest, GetRequest, ListNamespacesRequest, Namespace};
use hyper_util::rt::TokioIo;
use prost_types::Any;
use tokio::net::UnixStream;
use tokio::sync::{Mutex, Semaphore};
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Request, Status};

use super::image::Records;
use super::lease::Leftovers;
use super::room::Pleas;
use super::turns::Turns;
use crate::error::{Error, Result};

/// No call that returns at once when all is well may take longer than this.
const PATIENCE: Duration = Duration::from_secs(60);

/// A container's name that no instance has: theirs end with a number.
const NOBODY: &str = "nobody";

/// A call that moves an image's bytes, or one step of it, may take so long: a large layer on a slow card takes minutes.
pub(super) const TRANSFER: Duration = Duration::from_secs(900);

/// Layers that are fetched at the same time, over all pulls: each has buffers, and the disk is one.
const LAYERS_AT_ONCE: usize = 4;

/// What containerd sends at most in one message (tonic takes 4 MiB unless told).
pub(super) const LARGEST_MESSAGE_BYTES: usize = 16 << 20;

/// Which program makes containers, and where its shims live.
#[derive(Debug, Clone)]
pub struct Runtime {
    /// OCI runtime: a name in containerd's PATH, or a path.
    pub binary: String,
    /// cgroup of the shims; empty: they stay in containerd's, and die with it.
    pub shim_cgroup: String,
}

/// A connection to containerd. Clones share it.
#[derive(Debug, Clone)]
pub struct Containerd {
    pub(super) channel: Channel,
    pub(super) snapshotter: String,
    /// Held by who unpacks. Whoever has it waits for nobody's transfer.
    pub(super) unpacking: Arc<Mutex<()>>,
    /// Places for layers that are fetched, over all pulls.
    pub(super) layers: Arc<Semaphore>,
    pub(super) leftovers: Leftovers,
    pub(super) records: Records,
    /// Those who write the same blob, or pull the same image.
    pub(super) turns: Turns,
    pub(super) pleas: Pleas,
    /// A folder on the file system that images are stored in.
    pub(super) data: PathBuf,
    runtime: Runtime,
}

/// `containerd.runc.v1.Options`: the fields that we set. containerd-client ships the proto but does not generate it
/// (api/types/runc/options/oci.proto).
#[derive(Clone, PartialEq, prost::Message)]
struct RuncOptions {
    #[prost(string, tag = "3")]
    shim_cgroup: String,
    #[prost(string, tag = "6")]
    binary_name: String,
}

impl Containerd {
    /// Prepares a connection; nothing is sent yet, so containerd need not be there. `data` is any folder on the file
    /// system that it stores images in.
    pub fn new(socket: PathBuf, snapshotter: String, runtime: Runtime, data: PathBuf) -> Self {
        // The URI is never used: the connector goes to the socket.
        let endpoint = Endpoint::from(Uri::from_static("http://containerd.invalid"));
        Self {
            channel: endpoint.connect_with_connector_lazy(Connector { socket }),
            snapshotter,
            unpacking: Arc::default(),
            layers: Arc::new(Semaphore::new(LAYERS_AT_ONCE)),
            leftovers: Leftovers::default(),
            records: Records::default(),
            turns: Turns::default(),
            pleas: Pleas::default(),
            data,
            runtime,
        }
    }

    /// The runtime's options, for containers and tasks alike.
    pub(super) fn runtime_options(&self) -> Any {
        let options = RuncOptions {
            shim_cgroup: self.runtime.shim_cgroup.clone(),
            binary_name: self.runtime.binary.clone(),
        };
        Any { type_url: "containerd.runc.v1.Options".into(), value: prost::Message::encode_to_vec(&options) }
    }

    /// Succeeds when containerd can do what we need: its task service answers. READY=1 and the Version call come
    /// earlier than that, or even without it. It is asked for what is not there: of what is, it would ask the shims, and
    /// one that does not answer is no fault of containerd's.
    pub async fn check(&self, patience: Duration) -> Result<()> {
        let mut client = TasksClient::new(self.channel.clone());
        let get = GetRequest { container_id: NOBODY.to_owned(), ..Default::default() };
        let got = client.get(request("openfaas-fn", None, get));
        match within(patience, "look for a task", got).await {
            Err(error) if error.is_not_found() => Ok(()),
            other => other.map(drop),
        }
    }

    /// All namespaces with their labels.
    pub async fn namespaces(&self) -> Result<Vec<Namespace>> {
        let mut client = NamespacesClient::new(self.channel.clone());
        let list = client.list(Request::new(ListNamespacesRequest::default()));
        Ok(call("list namespaces", list).await?.namespaces)
    }

    /// Makes a namespace that carries OpenFaaS's mark; one that is there stays as it is.
    pub async fn ensure_namespace(&self, name: &str) -> Result<()> {
        let labels = [("openfaas".to_owned(), "1".to_owned())].into();
        let create = CreateNamespaceRequest { namespace: Some(Namespace { name: name.to_owned(), labels }) };
        let mut client = NamespacesClient::new(self.channel.clone());
        match call(format!("create namespace {name}"), client.create(Request::new(create))).await {
            Err(error) if error.is_already_there() => Ok(()),
            other => other.map(drop),
        }
    }
}

/// A request in a namespace, and under a lease where there is one.
pub(super) fn request<T>(namespace: &str, lease: Option<&str>, message: T) -> Request<T> {
    let mut request = Request::new(message);
    for (name, value) in [("containerd-namespace", Some(namespace)), ("containerd-lease", lease)] {
        // Namespaces and leases are of our own names' characters, which are all header characters.
        if let Some(value) = value.and_then(|v| v.parse().ok()) {
            request.metadata_mut().insert(name, value);
        }
    }
    request
}

/// Waits for a call's answer, for a bounded time.
pub(super) async fn call<T>(
    act: impl Into<String>,
    answer: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<T> {
    within(PATIENCE, act, answer).await
}

/// Waits for a stream's next message, for a bounded time; nothing when it has ended.
pub(super) async fn next<T>(act: &str, stream: &mut tonic::Streaming<T>) -> Result<Option<T>> {
    match tokio::time::timeout(TRANSFER, stream.message()).await {
        Ok(Ok(message)) => Ok(message),
        Ok(Err(status)) => Err(Error::Containerd { act: act.to_owned(), source: Box::new(status) }),
        Err(_) => Err(Error::ContainerdSilent { act: act.to_owned(), seconds: TRANSFER.as_secs() }),
    }
}

/// Waits for a call's answer, for a time of its own.
pub(super) async fn within<T>(
    patience: Duration,
    act: impl Into<String>,
    answer: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<T> {
    match tokio::time::timeout(patience, answer).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(Error::Containerd { act: act.into(), source: Box::new(status) }),
        Err(_) => Err(Error::ContainerdSilent { act: act.into(), seconds: patience.as_secs() }),
    }
}

/// Opens the socket whenever the channel wants a new connection.
struct Connector {
    socket: PathBuf,
}

impl tonic::codegen::Service<Uri> for Connector {
    type Response = TokioIo<UnixStream>;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = std::io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let socket = self.socket.clone();
        Box::pin(async move { Ok(TokioIo::new(UnixStream::connect(socket).await?)) })
    }
}

//! The second process: serves containerd until its task is gone and it is told to go.

use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use containerd_shim_protos::shim_async::create_task;
use containerd_shim_protos::ttrpc::r#async::{Server, transport::Listener};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;

use crate::events::Events;
use crate::failure::Failure;
use crate::reaper::Reaper;
use crate::service::Service;

/// How long the last answer may take to leave.
const LEAVING: Duration = Duration::from_millis(200);

/// What `start` knows.
pub struct Shim {
    /// The container's identifier.
    pub id: String,
    /// containerd's namespace.
    pub namespace: String,
    /// The bundle's folder.
    pub bundle: PathBuf,
    /// containerd's socket for events; may be empty.
    pub events: String,
    /// Our own socket.
    pub socket: PathBuf,
}

/// Serves; returns when it is over.
pub fn run(shim: Shim, listener: UnixListener) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(Failure::io("start", "a runtime"))?;
    runtime.block_on(async {
        let reaper = Reaper::start().map_err(Failure::io("listen for", "ends of processes"))?;
        // The task is ended by containerd, never by a signal to its shim. A handler, since what is ignored would be
        // ignored by the function too.
        for kind in [SignalKind::terminate(), SignalKind::interrupt()] {
            let mut signals = signal(kind).map_err(Failure::io("listen for", "signals"))?;
            tokio::spawn(async move { while signals.recv().await.is_some() {} });
        }
        let listener = Listener::try_from(listener).map_err(Failure::io("listen on", &shim.socket))?;
        let over = Arc::new(Notify::new());
        let events = Events::to(&shim.events, &shim.namespace);
        let service = Arc::new(Service::new(shim, reaper, events, over.clone()));
        let mut server = Server::new().add_listener(listener);
        // An address alone, as `start` prints it, stands for version 2 of the API; its messages are those of version 3.
        let methods = create_task(service).into_iter();
        server = server
            .register_service(methods.map(|(name, service)| (name.replace("v3", "v2"), service)).collect());
        let start = server.start().await;
        start.map_err(|error| Failure::Refused(format!("serve containerd: {error}")))?;
        over.notified().await;
        let _ = tokio::time::timeout(LEAVING, server.shutdown()).await;
        Ok(())
    })
}

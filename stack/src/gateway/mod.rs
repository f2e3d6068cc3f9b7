//! `stack gateway`: HTTP in, straight to the function out, and the API that says which functions there should be.

mod alert;
mod asynchronous;
mod auth;
mod callback;
mod called;
mod calls;
mod check;
mod claims;
mod clock;
mod connection;
mod dead_letters;
mod headers;
mod listen;
mod logs;
mod machine;
mod metrics;
mod moving;
mod namespaces;
mod options;
mod proxy;
mod query;
mod queues;
mod reply;
mod router;
mod secrets;
mod server;
mod system;
mod target;
mod tls;
mod ui;
mod wire;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::socket::Backlog;
use provisioning::{Config, Provider};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

pub use headers::CALL_ID;
pub use metrics::process::write as process_metrics;
pub use metrics::{Listen, serve as serve_metrics, text};
pub use options::{Options, parse_duration};
pub use reply::INTERNAL;
pub use target::target;

use crate::configuration;
use crate::containerd::{Containerd, Layout, Runtime};
use crate::desired::{self, Document, Namespaces, Scale, Store, Unreadable};
use crate::error::{Error, Result};
use crate::key::Key;
use crate::network::{self, Network};
use crate::notify::notify;
use crate::reconcile::{self, Functions, Secrets, World};
use crate::registry;
use crate::scaler;
use server::{CONNECTIONS, Door, Neighbours, Server, WORKER_CONNECTIONS};

/// The supervisor hears READY=1 when containerd is there and each function was tried once; or without containerd after
/// the first of these, or so long after it came: neither must make the gateway look broken.
const CONTAINERD: Duration = Duration::from_secs(30);
const FIRST_PASS: Duration = Duration::from_secs(10);
/// How long the calls that waited meanwhile may take, before it hears so.
const FIRST_ANSWERS: Duration = Duration::from_secs(2);

/// Name of the socket that the gateway listens on when it is handed one (sd_listen_fds_with_names(3)): it stays open
/// while the gateway is away, so that nobody is refused.
const SOCKET: &str = "http";

/// Everything a request may need.
pub struct Gateway {
    world: Arc<World>,
    functions: Arc<Functions>,
    credentials: auth::Credentials,
    proxy: proxy::Proxy,
    /// What we call ourselves.
    provider: Provider,
    claims: Arc<claims::Claims>,
    /// The supervisor's socket.
    control: PathBuf,
    logs: logs::Logs,
    requests: metrics::Requests,
    queues: queues::Queues,
    /// Cancelled when no more connections are taken: what would go on for ever ends.
    ending: CancellationToken,
}

/// Serves until SIGTERM or SIGINT, then until the calls inside have ended. Of what it was `handed` it listens on the
/// socket [`SOCKET`]; without one it binds its own.
pub async fn run(mut options: Options, handed: Vec<(String, OwnedFd)>) -> Result<()> {
    let credentials = auth::Credentials::read(&options.credentials)?;
    let listen = |source| Error::Listen { address: options.listen.to_string(), source };
    let mut handed: BTreeMap<String, OwnedFd> = handed.into_iter().collect();
    let listener = match handed.remove(SOCKET) {
        Some(socket) => taken(socket).map_err(listen)?,
        None => bound(options.listen).await.map_err(listen)?,
    };
    options.listen = listener.local_addr().map_err(listen)?;
    let store = Store::new(&options.state);
    let config = configuration::read(options.config.as_deref());
    let documents = documents(&store, &config.functions)?;
    let timeout = options.upstream_timeout.unwrap_or(config.gateway.timeout.duration());
    let secure = tls::settings(&options, config.gateway.tls.clone());
    let world = Arc::new(world(&options, store, &config, timeout)?);
    let functions = Functions::start(world.clone(), documents);
    tokio::spawn(scaler::run(world.clone(), functions.clone(), options.idling(config.stack.idler)));
    let proxy = proxy::Proxy::new(timeout);
    let ending = CancellationToken::new();
    let (journalctl, journal) = (options.journalctl.clone(), options.journal_dir.clone());
    let gateway = Arc::new(Gateway {
        world: world.clone(),
        functions: functions.clone(),
        credentials,
        proxy,
        provider: options.provider_name.unwrap_or(config.gateway.provider),
        claims: Arc::default(),
        control: options.control.clone(),
        logs: logs::Logs::new(journalctl, journal, ending.clone()),
        requests: metrics::Requests::default(),
        queues: queues::Queues::open(&config.stack, &options.nats_store, options.nats.as_deref()).await?,
        ending,
    });
    tracing::info!("listening on {}", options.listen);
    if let metrics::Listen(Some(address)) = options.metrics_listen {
        let of = gateway.clone();
        tokio::spawn(metrics::serve(address, Arc::new(move || of.exposition())));
    }
    tokio::spawn(async move {
        ready_after(CONTAINERD, reconcile::begin(&world, &functions)).await;
        ready_after(FIRST_PASS, reconcile::first_pass(&functions)).await;
        // Others start when we are ready, and would take the processor from who has waited longest.
        reconcile::first_answers(&functions, FIRST_ANSWERS).await;
        // A second READY=1 changes nothing.
        notify("READY=1");
        reconcile::import_baked(&world).await;
    });
    let listen = |source| Error::Listen { address: options.listen.to_string(), source };
    let mut terminate = signal(SignalKind::terminate()).map_err(listen)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(listen)?;
    let stop = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        notify("STOPPING=1");
    };
    let (server, known) = (Server::new(gateway.clone()).map_err(Error::Threads)?, gateway.functions.clone());
    let functions = options.subnet;
    let only = secure
        .as_ref()
        .filter(|tls| tls.only)
        .map(|tls| Neighbours { functions, tls_port: tls.listen.port() });
    tokio::spawn(server.clone().open(Door { listener, tls: None, only, places: CONNECTIONS }));
    // A door of its own: whoever keeps the other ones busy does not keep calls in their queues. Functions do not wait for it.
    let (inside, of) = (options.worker_listen, server.clone());
    tokio::spawn(async move {
        let listener = listen::listen(inside, "no asynchronous calls are made").await;
        of.open(Door { listener, tls: None, only: None, places: WORKER_CONNECTIONS }).await;
    });
    match secure {
        Some(secure) => open_tls(&server, secure, handed.remove(tls::SOCKET), known)?,
        None => tls::forget(),
    }
    stop.await;
    server.end(options.drain).await;
    Ok(())
}

/// Opens the TLS port as soon as its address can be had.
fn open_tls(
    server: &Server,
    secure: provisioning::Tls,
    handed: Option<OwnedFd>,
    functions: Arc<Functions>,
) -> Result<()> {
    let provisioning::Tls { certificate, key, listen, .. } = secure;
    let tell = move |wrong| functions.notice("TLS", wrong);
    let acceptor = tls::start(tls::Files { certificate, key }, tell)?;
    let (port, server) = (tls::Port::new(listen, handed), server.clone());
    tokio::spawn(async move {
        let listener = port.open().await;
        tracing::info!("listening on {listen} for TLS");
        server.open(Door { listener, tls: Some(acceptor), only: None, places: CONNECTIONS }).await;
    });
    Ok(())
}

/// Does an act to its end; whoever waits for us to be ready waits for it no longer than that.
async fn ready_after(limit: Duration, act: impl Future<Output = ()>) {
    tokio::pin!(act);
    if tokio::time::timeout(limit, &mut act).await.is_err() {
        notify("READY=1");
        act.await;
    }
}

/// A socket of our own. As many may wait for a place as the kernel lets, as with the one that we are handed.
async fn bound(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address).await?;
    nix::sys::socket::listen(&listener, Backlog::MAXALLOWABLE)?;
    Ok(listener)
}

/// A socket that listens already.
fn taken(socket: OwnedFd) -> io::Result<TcpListener> {
    let listener = std::net::TcpListener::from(socket);
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

/// The documents on disk, after what the configuration changes of them.
fn documents(store: &Store, declared: &[provisioning::Function]) -> Result<Vec<(Key, Document)>> {
    let (found, unreadable) = store.load()?;
    tell(unreadable);
    let mut documents: BTreeMap<Key, Document> =
        found.into_iter().filter_map(|document| Some((document.key()?, document))).collect();
    for (key, document) in desired::apply(declared, &documents) {
        tracing::info!("{key} is declared by the configuration");
        // It runs even where the disk is full; the next start applies the entry again.
        if let Err(error) = store.put(&key, &document) {
            tracing::error!("{error}");
        }
        documents.insert(key, document);
    }
    for document in documents.values_mut() {
        // Older versions did not look at the labels of all of them.
        document.replicas = Scale::of(&document.labels).clamp(document.replicas);
    }
    Ok(documents.into_iter().collect())
}

fn tell(unreadable: Vec<Unreadable>) {
    for bad in unreadable {
        tracing::error!("{} is left out: it {}", bad.path.display(), bad.reason);
    }
}

fn world(options: &Options, store: Store, config: &Config, timeout: Duration) -> Result<World> {
    let runtime =
        Runtime { binary: options.runtime_binary.clone(), shim_cgroup: options.shim_cgroup.clone() };
    let socket = options.containerd.clone();
    let containerd = Containerd::new(socket, options.snapshotter.clone(), runtime, options.state.clone());
    let network = Network::open(network::Settings {
        bridge: options.bridge.clone(),
        subnet: options.subnet,
        netns: options.netns.clone(),
        nft: options.nft.clone(),
        table: options.table.clone(),
        port: options.listen.port(),
        egress: config.egress.clone(),
    })?;
    let (baked, problems) = Layout::scan(&options.images);
    for problem in problems {
        tracing::error!("a baked image is left out: {problem}");
    }
    let registries = config.registries.clone();
    let settings = reconcile::Settings {
        fifos: options.fifo_dir.clone(),
        run: options.run_dir.clone(),
        resolv_conf: options.resolv_conf.clone(),
        registries: registry::Settings {
            policy: registries.pull_policy,
            named: registries.named,
            docker_config: (options.docker_config.clone().or(registries.docker_config))
                .unwrap_or_else(|| options.state.join("docker/config.json")),
            patience: options.registry_patience,
        },
        cgroup_root: options.cgroup_root.clone(),
        limits: !options.without_limits,
        containerd_state: options.containerd_state.clone(),
        ready_timeout: options.ready_timeout,
        call_timeout: timeout,
        grace: options.grace,
        prepared: options.prepared,
        images: config.images,
        disk_look: options.disk_look.max(Duration::from_secs(1)),
    };
    let (namespaces, unreadable) = Namespaces::load(&options.state);
    tell(unreadable);
    let stored = desired::Secrets::new(&options.state);
    // On a full or broken disk functions run all the same.
    if let Err(error) = stored.prepare() {
        tracing::error!("{error}");
    }
    let secrets = Secrets::new(stored, options.secrets_dir.clone());
    if let Err(error) = secrets.prepare() {
        tracing::error!("copies of secrets share their memory with others: {error}");
    }
    Ok(World::new(containerd, network, store, secrets, namespaces, baked, settings))
}

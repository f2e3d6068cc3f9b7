//! `stack queue-worker`: makes the asynchronous calls. It takes them from the queues, calls the functions through the
//! gateway, delivers the answers, and sees to it that what failed is made again or is kept as a dead letter.
//!
//! ```text
//! worker ── a lane for each function of each queue, while it has calls ── a task for each call that runs
//!            fetches; takes turns for the queue's places (`places`)        `attempt`, `callback`, `outcome`
//! ```

mod attempt;
mod callback;
mod destination;
mod lane;
mod lanes;
mod options;
mod outcome;
mod pace;
mod places;
mod roll;
mod statistics;

use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use options::Options;

use crate::configuration;
use crate::error::{Error, Result};
use crate::notify::notify;
use crate::queue::{Book, Broker, Index, Which};
use crate::upstream::Upstream;
use callback::Callbacks;
use lanes::Lanes;
use roll::Roll;
use statistics::Statistics;

/// Batches of messages that are held at a time beside the first few of each function; each has a megabyte at most.
const BATCHES: usize = 8;

/// How long calls may take to end when the worker is stopped; the others run again elsewhere or later.
const DRAIN: Duration = Duration::from_millis(1500);

/// What all its tasks share.
pub struct Worker {
    options: Options,
    settings: provisioning::Stack,
    /// Longest call, and a little more: after that the gateway is taken for dead.
    patience: Duration,
    broker: Broker,
    book: Book,
    index: Arc<Index>,
    /// Connections towards the gateway.
    upstream: Upstream,
    callbacks: Callbacks,
    /// The calls that it has.
    roll: Roll,
    batches: Arc<Semaphore>,
    statistics: Statistics,
    /// Cancelled when it takes no more calls.
    ending: CancellationToken,
    tasks: TaskTracker,
}

/// Works until SIGTERM or SIGINT.
pub async fn run(options: Options) -> Result<()> {
    let config = configuration::read(options.config.as_deref());
    let settings = config.stack;
    let (store, own) = (options.nats_store.clone(), options.nats.clone());
    let max_bytes = settings.queue.max_bytes;
    let broker =
        Broker::connect("bothy-queue-worker", &settings.nats, &store, max_bytes, own.as_deref()).await?;
    let index = Index::new(Which::Place);
    tokio::spawn(index.clone().follow(broker.clone()));
    let timeout = options.upstream_timeout.unwrap_or(config.gateway.timeout.duration());
    let worker = Arc::new(Worker {
        patience: timeout + Duration::from_secs(30),
        book: Book::start(broker.clone(), index.clone()),
        broker,
        index,
        upstream: Upstream::default(),
        callbacks: Callbacks::new(&options, config.egress)?,
        roll: Roll::default(),
        batches: Arc::new(Semaphore::new(BATCHES)),
        statistics: Statistics::default(),
        ending: CancellationToken::new(),
        tasks: TaskTracker::new(),
        settings,
        options,
    });
    if let Some(address) = worker.options.metrics_listen.0 {
        tokio::spawn(statistics::serve(address, worker.clone()));
    }
    let lanes = Lanes::new(worker.clone());
    tokio::spawn(roll::keep(worker.clone()));
    tokio::spawn(roll::answer(worker.clone()));
    tokio::spawn(lanes.look());
    notify("READY=1");
    let failed = |source| Error::Signals { source };
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    notify("STOPPING=1");
    worker.ending.cancel();
    worker.tasks.close();
    if tokio::time::timeout(DRAIN, worker.tasks.wait()).await.is_err() {
        tracing::info!("{} calls had not ended; they are made again", worker.roll.len());
    }
    // What has not begun, or not ended, need not wait until it is missed.
    let giving_back = async {
        worker.roll.give_back(&worker.broker).await;
        let _ = worker.broker.client.flush().await;
    };
    let _ = tokio::time::timeout(Duration::from_secs(1), giving_back).await;
    Ok(())
}

//! What the gateway has of the queues: the connection, the ledger, and where calls are in it.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use provisioning::QueueName;
use tokio::sync::Mutex as Turn;

use super::asynchronous::Room;
use crate::error::Result;
use crate::queue::{Book, Broker, Index, Place, RUNNING, Route, WAKE, Which, Wish, keep_swept};

/// A function's workers are told of calls at most so often: they look for more by themselves meanwhile.
const WAKE_PAUSE: Duration = Duration::from_millis(500);
/// How long workers may take to say that a call runs.
const WORKERS: Duration = Duration::from_millis(500);

/// The queues.
pub struct Queues {
    pub(super) broker: Broker,
    pub(super) book: Book,
    pub(super) index: Arc<Index>,
    /// Memory for bodies.
    pub(super) room: Room,
    /// Whether its servers are others than the machine's own.
    external: bool,
    /// Largest body, bytes.
    pub(super) max_body: u64,
    /// Held while a dead letter is put back: two requests for the same one would both find it.
    pub(super) replaying: Turn<()>,
    woken: Mutex<HashMap<Route, Instant>>,
}

impl Queues {
    /// Connects in the background. `store` is the folder of the machine's own NATS server, `own` where it is found.
    ///
    /// # Errors
    /// The configuration names files that cannot be read.
    pub async fn open(stack: &provisioning::Stack, store: &Path, own: Option<&str>) -> Result<Self> {
        let broker = Broker::connect("bothy-gateway", &stack.nats, store, stack.queue.max_bytes, own).await?;
        let index = Index::new(Which::Id);
        tokio::spawn(index.clone().follow(broker.clone()));
        tokio::spawn(keep_swept(broker.clone()));
        Ok(Self {
            book: Book::start(broker.clone(), index.clone()),
            broker,
            index,
            room: Room::default(),
            external: stack.nats.url.is_some(),
            max_body: stack.queue.max_body,
            replaying: Turn::default(),
            woken: Mutex::default(),
        })
    }

    /// Sees to it that there is such a queue. Before a body is read: nobody should send one for nothing.
    pub async fn prepare(&self, queue: &QueueName) -> Result<(), String> {
        if !self.broker.is_connected() {
            return Err(match self.external {
                true => "the NATS servers of [stack.nats] in bothy.toml do not answer".to_owned(),
                false => "NATS does not answer; it is started again when it has ended".to_owned(),
            });
        }
        self.broker.prepared().await?;
        self.broker.queue(queue).await
    }

    /// Removes a body that nobody needs any more.
    pub async fn remove_body(&self, name: &str) {
        if let Ok(bodies) = self.broker.bodies().await {
            bodies.remove(name).await;
        }
    }

    /// Tells workers that there is something for a function.
    pub async fn wake(&self, route: &Route) {
        let now = Instant::now();
        {
            let mut woken = self.woken.lock().unwrap_or_else(PoisonError::into_inner);
            if woken.get(route).is_some_and(|last| now.duration_since(*last) < WAKE_PAUSE) {
                return;
            }
            woken.retain(|_, last| now.duration_since(*last) < WAKE_PAUSE);
            woken.insert(route.clone(), now);
        }
        // They find out a little later where it does not arrive.
        let _ = self.broker.client.publish(WAKE, route.subject().into()).await;
    }

    /// Whether a worker says that it has that call running.
    pub async fn is_running(&self, place: &Place) -> bool {
        let asked = async_nats::Request::new().payload(Wish::encode(place).into()).timeout(Some(WORKERS));
        self.broker.client.send_request(RUNNING, asked).await.is_ok()
    }
}

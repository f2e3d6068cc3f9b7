//! What containerd is told without asking: events of the task, in order.
//!
//! containerd may be away, and comes back: an event is tried again for a while. Nothing of ours depends on one; the
//! state of a task is asked for.

use std::time::{Duration, SystemTime};

use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::protobuf::{Message, MessageField};
use containerd_shim_protos::shim::{event::Envelope, events::ForwardRequest};
use containerd_shim_protos::shim_async::{Client, EventsClient};
use containerd_shim_protos::ttrpc::context;
use tokio::sync::mpsc;

use crate::container::timestamp;

/// How often an event is tried, and the pause between two tries.
const TRIES: u32 = 30;
const PAUSE: Duration = Duration::from_secs(1);

/// How long containerd may take to accept one.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where events go.
#[derive(Clone)]
pub struct Events {
    queue: mpsc::UnboundedSender<Envelope>,
    namespace: String,
}

impl Events {
    /// Sends to containerd's socket for events, `unix:` or not. There are a handful in a task's life.
    pub fn to(address: &str, namespace: &str) -> Self {
        let (queue, events) = mpsc::unbounded_channel();
        let path = address.strip_prefix("unix://").unwrap_or(address);
        if !path.is_empty() {
            tokio::spawn(forward(format!("unix://{path}"), events));
        }
        Self { queue, namespace: namespace.to_owned() }
    }

    /// Queues one.
    pub fn send<M: Message>(&self, topic: &str, event: &M) {
        let Ok(value) = event.write_to_bytes() else { return };
        // The full name from the message's own descriptor would parse the descriptors of all of them.
        let event = Any { type_url: format!("containerd.events.{}", M::NAME), value, ..Default::default() };
        // Without a socket nobody listens.
        let _ = self.queue.send(Envelope {
            timestamp: MessageField::some(timestamp(SystemTime::now())),
            namespace: self.namespace.clone(),
            topic: topic.to_owned(),
            event: MessageField::some(event),
            ..Default::default()
        });
    }
}

/// A connection is made for what is there and dropped then: hundreds of idle tasks hold none.
async fn forward(address: String, mut events: mpsc::UnboundedReceiver<Envelope>) {
    let mut client = None;
    while let Some(event) = events.recv().await {
        let request = ForwardRequest { envelope: MessageField::some(event), ..Default::default() };
        for tried in 1..=TRIES {
            if client.is_none() {
                client = Client::connect(&address).await.ok().map(EventsClient::new);
            }
            let Some(open) = client.as_ref() else {
                tokio::time::sleep(PAUSE).await;
                continue;
            };
            match open.forward(context::with_duration(PATIENCE), &request).await {
                Ok(_) => break,
                Err(error) => {
                    client = None;
                    if tried == TRIES {
                        eprintln!("containerd-shim-bothy-v2: an event was not taken: {error}");
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
        if events.is_empty() {
            client = None;
        }
    }
}

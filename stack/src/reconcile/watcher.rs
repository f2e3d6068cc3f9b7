//! The end of a process, as its actor hears of it.

use std::sync::Arc;

use super::command::Command;
use super::endpoint::Endpoint;
use super::functions::Function;
use super::instance::Instance;
use super::{World, pause};

/// Waits until an instance's process ends, however often containerd goes away meanwhile; closes its way in at once, for
/// the actor may be busy with another instance, and tells the actor.
pub async fn watch(world: Arc<World>, function: Arc<Function>, instance: Instance, endpoint: Arc<Endpoint>) {
    let namespace = instance.key.namespace.as_str();
    let mut attempt = 0;
    let status = loop {
        match world.containerd.wait_task(namespace, &instance.id).await {
            Ok(status) => break Some(status),
            Err(error) if error.is_not_found() => break None,
            Err(_) => {
                tokio::time::sleep(pause(attempt)).await;
                attempt += 1;
            }
        }
    };
    function.left(&endpoint);
    let _ = function.mailbox.send(Command::Ended { id: instance.id, status });
}

//! The end of a process, as its actor hears of it.

use std::sync::Arc;

use super::command::Command;
use super::endpoint::Endpoint;
use super::function::Function;
use super::instance::Instance;
use super::{World, pause};

/// Waits until an instance's process ends, however often containerd goes away meanwhile. Gives its status, where containerd
/// tells.
pub async fn end_of(world: &World, instance: &Instance) -> Option<u32> {
    let namespace = instance.key.namespace.as_str();
    let mut attempt = 0;
    loop {
        match world.containerd.wait_task(namespace, &instance.id).await {
            Ok(status) => return Some(status),
            Err(error) if error.is_not_found() => return None,
            Err(_) => {
                tokio::time::sleep(pause(attempt)).await;
                attempt += 1;
            }
        }
    }
}

/// Waits for that end; closes the instance's way in at once, for the actor may be busy, and tells the actor.
pub async fn watch(world: Arc<World>, function: Arc<Function>, instance: Instance, endpoint: Arc<Endpoint>) {
    let status = end_of(&world, &instance).await;
    function.left(&endpoint);
    let _ = function.mailbox.send(Command::Ended { id: instance.id, status });
}

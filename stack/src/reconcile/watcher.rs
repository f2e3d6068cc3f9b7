//! The end of a process, as its actor hears of it.

use std::sync::Arc;

use super::command::Command;
use super::functions::Function;
use super::instance::Instance;
use super::{World, pause};

/// Tells the actor when an instance's process ends, or when that cannot be known because containerd went away.
pub async fn watch(world: Arc<World>, function: Arc<Function>, instance: Instance) {
    let namespace = instance.key.namespace.as_str();
    let mut attempt = 0;
    loop {
        match world.containerd.wait_task(namespace, &instance.id).await {
            Ok(_) => break,
            Err(error) if error.is_not_found() => break,
            Err(_) => {
                tokio::time::sleep(pause(attempt)).await;
                attempt += 1;
            }
        }
    }
    let _ = function.mailbox.send(Command::Ended { id: instance.id });
}

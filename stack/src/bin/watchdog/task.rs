//! Work that goes on beside the calls.

use std::pin::Pin;

use tokio::task::JoinHandle;

/// A task, whatever it does: what the runtime needs for a kind of task is a few kilobytes, and this makes one kind of
/// all of them.
pub type Task = Pin<Box<dyn Future<Output = ()>>>;

/// Begins a task.
pub fn spawn(task: impl Future<Output = ()> + 'static) -> JoinHandle<()> {
    tokio::task::spawn_local(Box::pin(task) as Task)
}

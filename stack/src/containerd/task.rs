//! Tasks: the processes of containers.

use std::path::Path;
use std::time::Duration;

use containerd_client::services::v1::tasks_client::TasksClient;
use containerd_client::services::v1::{
    CreateTaskRequest, DeleteTaskRequest, GetRequest, KillRequest, StartRequest, WaitRequest,
};
use containerd_client::types::Mount;
use containerd_client::types::v1::Status;
use tonic::transport::Channel;

use super::client::{Containerd, call, request, within};
use crate::error::{Error, Result, absent_is_fine};

const SIGTERM: u32 = 15;
const SIGKILL: u32 = 9;

/// How long a killed process may take to be gone: the kernel has to free its memory.
const KILL_PATIENCE: Duration = Duration::from_secs(30);

/// How long a shim may take to pass a signal on, or to let a process begin: a call waits for it.
const SIGNAL: Duration = Duration::from_secs(10);

/// What a container's process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// There is none.
    None,
    /// It is there and has not begun.
    Created,
    /// It runs, or is frozen.
    Alive,
    /// It ended.
    Stopped,
    /// Nobody knows: its shim does not tell.
    Unclear,
}

/// What containerd's status means. A shim that does not tell in 2 s is answered for with UNKNOWN, and no error.
fn read(status: i32) -> Task {
    match Status::try_from(status) {
        Ok(Status::Running | Status::Paused | Status::Pausing) => Task::Alive,
        Ok(Status::Created) => Task::Created,
        Ok(Status::Stopped) => Task::Stopped,
        Ok(Status::Unknown) | Err(_) => Task::Unclear,
    }
}

impl Containerd {
    fn tasks(&self) -> TasksClient<Channel> {
        TasksClient::new(self.channel.clone())
    }

    /// Looks at a container's process.
    pub async fn task(&self, namespace: &str, id: &str) -> Result<Task> {
        let get = GetRequest { container_id: id.to_owned(), ..Default::default() };
        match call(format!("get task {id}"), self.tasks().get(request(namespace, None, get))).await {
            Ok(answer) => Ok(answer.process.map_or(Task::None, |process| read(process.status))),
            Err(error) if error.is_not_found() => Ok(Task::None),
            Err(error) => Err(error),
        }
    }

    /// Creates a container's process, which waits to be begun. Both streams go to FIFOs (containerd takes both or neither).
    pub async fn create_task(
        &self,
        namespace: &str,
        id: &str,
        rootfs: Vec<Mount>,
        stdout: &Path,
        stderr: &Path,
    ) -> Result<()> {
        let create = CreateTaskRequest {
            container_id: id.to_owned(),
            rootfs,
            stdout: stdout.display().to_string(),
            stderr: stderr.display().to_string(),
            options: Some(self.runtime_options()),
            ..Default::default()
        };
        call(format!("create task {id}"), self.tasks().create(request(namespace, None, create)))
            .await
            .map(drop)
    }

    /// Lets a container's process begin.
    pub async fn begin_task(&self, namespace: &str, id: &str) -> Result<()> {
        let start = StartRequest { container_id: id.to_owned(), ..Default::default() };
        let mut client = self.tasks();
        let answer = client.start(request(namespace, None, start));
        within(SIGNAL, format!("start task {id}"), answer).await.map(drop)
    }

    /// Waits until a container's process ends, however long that takes. Gives its status; a signal is 128 and more.
    pub async fn wait_task(&self, namespace: &str, id: &str) -> Result<u32> {
        let wait = WaitRequest { container_id: id.to_owned(), ..Default::default() };
        let answer = self.tasks().wait(request(namespace, None, wait)).await;
        let error =
            |status| Error::Containerd { act: format!("wait for task {id}"), source: Box::new(status) };
        Ok(answer.map_err(error)?.into_inner().exit_status)
    }

    /// Ends a container's process: SIGTERM, its time, SIGKILL to everything in it; then forgets it.
    pub async fn stop_task(&self, namespace: &str, id: &str, grace: Duration) -> Result<()> {
        // What may be alive is ended like what is.
        if matches!(self.task(namespace, id).await?, Task::Alive | Task::Unclear) {
            self.kill(namespace, id, SIGTERM).await?;
            if tokio::time::timeout(grace, self.wait_task(namespace, id)).await.is_err() {
                self.kill(namespace, id, SIGKILL).await?;
                // The deletion below reports what is still there.
                let _ = tokio::time::timeout(KILL_PATIENCE, self.wait_task(namespace, id)).await;
            }
        }
        let delete = DeleteTaskRequest { container_id: id.to_owned() };
        let mut client = self.tasks();
        let answer = client.delete(request(namespace, None, delete));
        absent_is_fine(call(format!("delete task {id}"), answer).await.map(drop))
    }

    async fn kill(&self, namespace: &str, id: &str, signal: u32) -> Result<()> {
        let kill = KillRequest {
            container_id: id.to_owned(),
            signal,
            // SIGTERM is the first process's to pass on; SIGKILL must leave nobody.
            all: signal == SIGKILL,
            ..Default::default()
        };
        let mut client = self.tasks();
        let answer = client.kill(request(namespace, None, kill));
        absent_is_fine(within(SIGNAL, format!("kill task {id}"), answer).await.map(drop))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_nobody_knows_of_is_not_stopped() {
        assert_eq!(read(Status::Running.into()), Task::Alive);
        assert_eq!(read(Status::Pausing.into()), Task::Alive);
        assert_eq!(read(Status::Created.into()), Task::Created);
        assert_eq!(read(Status::Stopped.into()), Task::Stopped);
        assert_eq!(read(Status::Unknown.into()), Task::Unclear);
        assert_eq!(read(99), Task::Unclear);
    }
}

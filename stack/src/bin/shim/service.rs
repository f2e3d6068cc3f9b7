//! containerd's task service (api/runtime/task/v2/shim.proto) for one container without further processes.

use std::sync::Arc;

use async_trait::async_trait;
use containerd_shim_protos::api::{
    ConnectRequest, ConnectResponse, CreateTaskRequest, CreateTaskResponse, DeleteRequest, DeleteResponse,
    Empty, KillRequest, PauseRequest, PidsRequest, PidsResponse, ProcessInfo, ResumeRequest, ShutdownRequest,
    StartRequest, StartResponse, StateRequest, StateResponse, WaitRequest, WaitResponse,
};
use containerd_shim_protos::events::task::{
    TaskCreate, TaskDelete, TaskExit, TaskIO, TaskPaused, TaskResumed, TaskStart,
};
use containerd_shim_protos::protobuf::{Message, MessageField};
use containerd_shim_protos::shim::oci::Options;
use containerd_shim_protos::shim_async::Task;
use containerd_shim_protos::topics;
use containerd_shim_protos::ttrpc::Result as Answer;
use containerd_shim_protos::ttrpc::r#async::TtrpcContext;
use tokio::sync::{Mutex, Notify};

use crate::container::{Container, Order, timestamp};
use crate::events::Events;
use crate::failure::Failure;
use crate::reaper::Reaper;
use crate::runtime::Runtime;
use crate::serve::Shim;

/// Serves one shim.
#[derive(Clone)]
pub struct Service {
    shim: Arc<Shim>,
    reaper: Reaper,
    events: Events,
    over: Arc<Notify>,
    container: Arc<Mutex<Option<Arc<Container>>>>,
    /// Held while a start or an end is told, so that they are told in that order.
    telling: Arc<Mutex<()>>,
}

impl Service {
    /// `over` is notified when the shim may go.
    pub fn new(shim: Shim, reaper: Reaper, events: Events, over: Arc<Notify>) -> Self {
        let shim = Arc::new(shim);
        Self { shim, reaper, events, over, container: Arc::default(), telling: Arc::default() }
    }

    /// The container, when the request means it and not a further process in it, of which there are none.
    async fn container(&self, id: &str, exec: &str) -> Result<Arc<Container>, Failure> {
        let container = self.container.lock().await.clone();
        let name = if exec.is_empty() { id.to_owned() } else { format!("{id} {exec}") };
        container.filter(|own| own.order.id == id && exec.is_empty()).ok_or(Failure::Absent(name))
    }

    /// Tells of the end of its process.
    fn watch(&self, container: Arc<Container>) {
        let (events, telling) = (self.events.clone(), self.telling.clone());
        tokio::spawn(async move {
            let end = container.wait().await;
            let _told = telling.lock().await;
            events.send(
                topics::TASK_EXIT_EVENT_TOPIC,
                &TaskExit {
                    container_id: container.order.id.clone(),
                    id: container.order.id.clone(),
                    pid: number(&container),
                    exit_status: end.status,
                    exited_at: MessageField::some(timestamp(end.at)),
                    ..Default::default()
                },
            );
        });
    }

    async fn create_now(&self, request: CreateTaskRequest) -> Answer<CreateTaskResponse> {
        let mut slot = self.container.lock().await;
        if let Some(present) = &*slot {
            return Err(Failure::Present(present.order.id.clone()).into());
        }
        if request.id != self.shim.id {
            return Err(Failure::Absent(request.id).into());
        }
        if request.terminal || !request.stdin.is_empty() || !request.checkpoint.is_empty() {
            let what = "functions have neither a terminal nor standard input, and start from no checkpoint";
            return Err(Failure::Refused(what.to_owned()).into());
        }
        let options = Options::parse_from_bytes(&request.options.value)
            .map_err(|error| Failure::Refused(format!("the runtime's options are damaged: {error}")))?;
        let bundle = self.shim.bundle.clone();
        let runtime = Runtime::new(&options.binary_name, &self.shim.namespace, &request.id, &bundle);
        let event = TaskCreate {
            container_id: request.id.clone(),
            bundle: bundle.display().to_string(),
            rootfs: request.rootfs.clone(),
            io: MessageField::some(TaskIO {
                stdout: request.stdout.clone(),
                stderr: request.stderr.clone(),
                ..Default::default()
            }),
            ..Default::default()
        };
        let order = Order {
            id: request.id,
            bundle,
            mounts: request.rootfs,
            stdout: request.stdout,
            stderr: request.stderr,
            runtime,
        };
        let container = Arc::new(Container::create(order, self.reaper.clone()).await?);
        let pid = number(&container);
        self.events.send(topics::TASK_CREATE_EVENT_TOPIC, &TaskCreate { pid, ..event });
        self.watch(container.clone());
        *slot = Some(container);
        Ok(CreateTaskResponse { pid, ..Default::default() })
    }

    async fn start_now(&self, request: StartRequest) -> Answer<StartResponse> {
        let container = self.container(&request.id, &request.exec_id).await?;
        let pid = number(&container);
        let _told = self.telling.lock().await;
        container.start().await?;
        let event = TaskStart { container_id: request.id, pid, ..Default::default() };
        self.events.send(topics::TASK_START_EVENT_TOPIC, &event);
        Ok(StartResponse { pid, ..Default::default() })
    }

    async fn delete_now(&self, request: DeleteRequest) -> Answer<DeleteResponse> {
        let container = self.container(&request.id, &request.exec_id).await?;
        let end = container.delete().await?;
        *self.container.lock().await = None;
        let (pid, exited_at) = (number(&container), MessageField::some(timestamp(end.at)));
        let event = TaskDelete {
            container_id: request.id,
            pid,
            exit_status: end.status,
            exited_at: exited_at.clone(),
            ..Default::default()
        };
        let _told = self.telling.lock().await;
        self.events.send(topics::TASK_DELETE_EVENT_TOPIC, &event);
        Ok(DeleteResponse { pid, exit_status: end.status, exited_at, ..Default::default() })
    }

    async fn freeze(&self, id: &str, frozen: bool) -> Answer<Empty> {
        let container = self.container(id, "").await?;
        container.freeze(frozen).await?;
        let container_id = id.to_owned();
        if frozen {
            let event = TaskPaused { container_id, ..Default::default() };
            self.events.send(topics::TASK_PAUSED_EVENT_TOPIC, &event);
        } else {
            let event = TaskResumed { container_id, ..Default::default() };
            self.events.send(topics::TASK_RESUMED_EVENT_TOPIC, &event);
        }
        Ok(Empty::new())
    }
}

/// Does what changes something, to its end: a handler is dropped half-way when containerd dies.
async fn to_its_end<T: Send + 'static>(act: impl Future<Output = Answer<T>> + Send + 'static) -> Answer<T> {
    let done = tokio::spawn(act).await;
    done.unwrap_or_else(|panic| Err(Failure::Refused(format!("the shim: {panic}")).into()))
}

/// The number of its first process.
fn number(container: &Container) -> u32 {
    container.pid.as_raw().cast_unsigned()
}

#[async_trait]
impl Task for Service {
    async fn create(&self, _: &TtrpcContext, request: CreateTaskRequest) -> Answer<CreateTaskResponse> {
        let own = self.clone();
        to_its_end(async move { own.create_now(request).await }).await
    }

    async fn start(&self, _: &TtrpcContext, request: StartRequest) -> Answer<StartResponse> {
        let own = self.clone();
        to_its_end(async move { own.start_now(request).await }).await
    }

    async fn state(&self, _: &TtrpcContext, request: StateRequest) -> Answer<StateResponse> {
        let container = self.container(&request.id, &request.exec_id).await?;
        let end = container.end();
        Ok(StateResponse {
            id: request.id,
            bundle: container.order.bundle.display().to_string(),
            pid: number(&container),
            status: container.status().into(),
            stdout: container.order.stdout.clone(),
            stderr: container.order.stderr.clone(),
            exit_status: end.map_or(0, |end| end.status),
            exited_at: end.map(|end| timestamp(end.at)).into(),
            ..Default::default()
        })
    }

    async fn wait(&self, _: &TtrpcContext, request: WaitRequest) -> Answer<WaitResponse> {
        let end = self.container(&request.id, &request.exec_id).await?.wait().await;
        Ok(WaitResponse {
            exit_status: end.status,
            exited_at: MessageField::some(timestamp(end.at)),
            ..Default::default()
        })
    }

    async fn kill(&self, _: &TtrpcContext, request: KillRequest) -> Answer<Empty> {
        self.container(&request.id, &request.exec_id).await?.kill(request.signal)?;
        Ok(Empty::new())
    }

    async fn delete(&self, _: &TtrpcContext, request: DeleteRequest) -> Answer<DeleteResponse> {
        let own = self.clone();
        to_its_end(async move { own.delete_now(request).await }).await
    }

    async fn pids(&self, _: &TtrpcContext, request: PidsRequest) -> Answer<PidsResponse> {
        let pids = self.container(&request.id, "").await?.pids();
        let processes = pids.into_iter().map(|pid| ProcessInfo { pid, ..Default::default() }).collect();
        Ok(PidsResponse { processes, ..Default::default() })
    }

    async fn pause(&self, _: &TtrpcContext, request: PauseRequest) -> Answer<Empty> {
        let own = self.clone();
        to_its_end(async move { own.freeze(&request.id, true).await }).await
    }

    async fn resume(&self, _: &TtrpcContext, request: ResumeRequest) -> Answer<Empty> {
        let own = self.clone();
        to_its_end(async move { own.freeze(&request.id, false).await }).await
    }

    async fn connect(&self, _: &TtrpcContext, _: ConnectRequest) -> Answer<ConnectResponse> {
        let task_pid = self.container.lock().await.as_ref().map_or(0, |container| number(container));
        Ok(ConnectResponse { shim_pid: std::process::id(), task_pid, ..Default::default() })
    }

    async fn shutdown(&self, _: &TtrpcContext, request: ShutdownRequest) -> Answer<Empty> {
        if request.now || self.container.lock().await.is_none() {
            // Before the answer: afterwards the path may be the next shim's.
            let _ = std::fs::remove_file(&self.shim.socket);
            self.over.notify_one();
        }
        Ok(Empty::new())
    }
}

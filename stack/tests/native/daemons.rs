//! What a lab has for asynchronous calls: a NATS server and a worker.

use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

use futures_util::TryStreamExt;
use hyper::Method;

use crate::PATIENCE;
use crate::lab::Lab;

impl Lab {
    /// Starts the appliance's own NATS server, with the appliance's configuration but for the folder.
    pub fn start_nats(&mut self) {
        let store = self.folder.join("nats");
        std::fs::create_dir_all(&store).unwrap();
        let mut command = self.command(&self.programs.join("nats-server"), "nats.log");
        let text = include_str!("../../../overlay/etc/nats-server.conf");
        let text = text.replace("/var/lib/nats", store.to_str().unwrap());
        let configuration = self.folder.join("nats-server.conf");
        std::fs::write(&configuration, text).unwrap();
        command.arg("-c").arg(configuration);
        self.nats = Some(command.spawn().unwrap());
    }

    pub fn start_worker(&mut self) {
        let mut command = self.command(Path::new(env!("CARGO_BIN_EXE_stack")), "worker.log");
        command.args(["--log", "info,stack=debug,hyper=warn", "queue-worker", "--config"]);
        command.arg(self.folder.join("bothy.toml")).arg("--nats-store").arg(self.folder.join("nats"));
        self.worker = Some(command.spawn().unwrap());
    }

    pub fn kill_nats(&mut self) {
        kill(self.nats.take());
    }

    pub fn kill_worker(&mut self) {
        kill(self.worker.take());
    }

    /// Kills the worker, the NATS server or the gateway, and starts it again.
    pub async fn kill_one(&mut self, number: usize) {
        match number {
            0 => {
                self.kill_worker();
                self.start_worker();
            }
            1 => {
                self.kill_nats();
                self.start_nats();
            }
            _ => {
                self.kill_gateway();
                self.start_gateway();
                self.until_listening().await;
            }
        }
    }

    /// Waits until the gateway can ask the queues.
    pub async fn until_queues_answer(&self) {
        let end = Instant::now() + PATIENCE;
        loop {
            let last = self.ask(Method::GET, "/system/dead-letters", "").await;
            if last.as_ref().is_ok_and(|answer| answer.status == 200) {
                return;
            }
            assert!(Instant::now() < end, "the queues do not answer: {:?}", last.map(|answer| answer.text));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Messages in the store of large bodies.
    pub async fn bodies(&self) -> u64 {
        self.messages("BODIES").await
    }

    /// Messages in a stream; none where there is no such stream.
    pub async fn messages(&self, stream: &str) -> u64 {
        let client = async_nats::connect("nats://127.0.0.1:4222").await.unwrap();
        let jetstream = async_nats::jetstream::new(client);
        let names: Vec<String> = jetstream.stream_names().try_collect().await.unwrap();
        if !names.iter().any(|name| name == stream) {
            return 0;
        }
        jetstream.get_stream(stream).await.unwrap().cached_info().state.messages
    }

    /// Waits until nothing is left of them.
    pub async fn until_no_bodies(&self) {
        let end = Instant::now() + PATIENCE;
        while self.bodies().await > 0 {
            assert!(Instant::now() < end, "{} messages are left of large bodies", self.bodies().await);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

fn kill(child: Option<Child>) {
    let mut child = child.unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
}

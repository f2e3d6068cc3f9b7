//! Asking after instances that take no connections, or do not say that they are ready.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;

use super::endpoint::{Endpoint, Silence};
use super::function::Function;
use super::pause;
use super::ready::{self, Wanted};

/// How long a connection to an instance may take.
const CONNECT: Duration = Duration::from_secs(1);

/// Calls do not wait longer for an instance whose process lives and takes no connections.
const DEAF: Duration = Duration::from_secs(5);

/// Waits until an instance takes connections again, or there is no reason to.
pub async fn knock(function: Arc<Function>, endpoint: Arc<Endpoint>) {
    let (mut attempt, mut told) = (0, false);
    let began = Instant::now();
    while !endpoint.is_closed() && function.document().is_some_and(|document| document.wants_instance()) {
        let connect = TcpStream::connect(endpoint.address);
        if matches!(tokio::time::timeout(CONNECT, connect).await, Ok(Ok(_))) {
            return function.resume(endpoint, Silence::Deaf);
        }
        if began.elapsed() > DEAF && !told {
            told = true;
            function.failed(&format!("{} takes no connections", endpoint.address));
        }
        tokio::time::sleep(pause(attempt)).await;
        attempt += 1;
    }
}

/// Waits until an instance says that it is ready, at `path` where its function names one, or there is no reason to.
pub async fn greet(function: Arc<Function>, endpoint: Arc<Endpoint>, path: Option<String>) {
    while !endpoint.is_closed() {
        if ready::wait(endpoint.address, Wanted { path: path.as_deref(), ..Wanted::default() }, DEAF)
            .await
            .is_ok()
        {
            return function.resume(endpoint, Silence::Unready);
        }
    }
}

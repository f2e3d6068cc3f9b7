//! Sockets that the gateway can do without for a while: functions are called all the same.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpListener;

/// Pause between two tries to bind: the address may come with the network, the port may be another program's.
const AGAIN: Duration = Duration::from_secs(5);

/// Listens as soon as that is possible. Why it is not yet is told whenever it is another reason than before, with `missing`, which
/// says what there is not meanwhile.
pub async fn listen(address: SocketAddr, missing: &str) -> TcpListener {
    let mut told = None;
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => return listener,
            Err(error) => {
                let text = error.to_string();
                if told.as_ref() != Some(&text) {
                    tracing::error!("{missing}: listen on {address}: {text}; it is tried again and again");
                    told = Some(text);
                }
                tokio::time::sleep(AGAIN).await;
            }
        }
    }
}

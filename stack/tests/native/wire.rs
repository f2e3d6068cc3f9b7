//! A bad line to a registry: it forwards HTTP over TCP, and cuts answers off or holds them up.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// What the line does to a connection.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It ends after so many bytes of answers.
    Cut(usize),
    /// Nothing comes any more after so many bytes of answers, until it is to go on.
    Stall(usize),
    /// Nothing.
    None,
}

/// A line that is in use; it ends with the test.
#[derive(Clone)]
pub struct Wire {
    state: Arc<Mutex<State>>,
    goes_on: Arc<Notify>,
}

struct State {
    /// What happens to the next connections that ask for a blob.
    faults: Vec<Fault>,
    /// What happens to all others of those.
    then: Fault,
    /// Whether clients' wishes for a part of a blob are lost.
    forgetful: bool,
    /// Starts of requests: `GET /v2/…`, with the part that was asked for.
    seen: Vec<String>,
}

impl Wire {
    /// Opens one towards an address.
    pub async fn open(port: u16, to: &str) -> Self {
        let address = ("127.0.0.1", port);
        let listener = TcpListener::bind(address).await.unwrap();
        let state = State { faults: Vec::new(), then: Fault::None, forgetful: false, seen: Vec::new() };
        let wire = Self { state: Arc::new(Mutex::new(state)), goes_on: Arc::default() };
        let (own, to) = (wire.clone(), to.to_owned());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(own.clone().carry(client, to.clone()));
            }
        });
        wire
    }

    /// Sets what happens from now on, and forgets what was seen.
    pub fn set(&self, faults: &[Fault], then: Fault, forgetful: bool) {
        *self.state.lock().unwrap() = State { faults: faults.to_vec(), then, forgetful, seen: Vec::new() };
    }

    /// Lets come what was held up, and does nothing any more.
    pub fn go_on(&self) {
        self.set(&[], Fault::None, false);
        self.goes_on.notify_waiters();
    }

    /// Requests since then that hold a word.
    pub fn seen(&self, word: &str) -> Vec<String> {
        let state = self.state.lock().unwrap();
        state.seen.iter().filter(|request| request.contains(word)).cloned().collect()
    }

    /// Notes a request. Gives what is passed on of it, and what happens to its answer where that is a blob.
    fn note(&self, text: String) -> (String, Option<Fault>) {
        let line = text.lines().next().unwrap_or_default().to_owned();
        let range = text.lines().find(|line| line.to_lowercase().starts_with("range:"));
        let mut state = self.state.lock().unwrap();
        state.seen.push(format!("{line} {}", range.unwrap_or_default()));
        let next = line
            .contains("/blobs/")
            .then(|| if state.faults.is_empty() { state.then } else { state.faults.remove(0) });
        let text = if state.forgetful { text.replace("range: bytes", "xange: bytes") } else { text };
        (text, next)
    }

    async fn carry(self, mut client: TcpStream, to: String) {
        let Ok(mut server) = TcpStream::connect(to).await else { return };
        let (mut from_client, mut to_client) = client.split();
        let (mut from_server, mut to_server) = server.split();
        let fault = Mutex::new(Fault::None);
        let requests = async {
            let mut bytes = vec![0; 1 << 16];
            loop {
                // A request without a body comes in one piece: clients write it so.
                let count = from_client.read(&mut bytes).await.unwrap_or(0);
                if count == 0 {
                    return;
                }
                let text = String::from_utf8_lossy(&bytes[..count]).into_owned();
                let (text, next) = self.note(text);
                if let Some(next) = next {
                    *fault.lock().unwrap() = next;
                }
                if to_server.write_all(text.as_bytes()).await.is_err() {
                    return;
                }
            }
        };
        let answers = async {
            let (mut bytes, mut sent, mut last) = (vec![0; 1 << 14], 0, Fault::None);
            loop {
                let count = from_server.read(&mut bytes).await.unwrap_or(0);
                let now = *fault.lock().unwrap();
                if now != last {
                    (sent, last) = (0, now);
                }
                sent += count;
                match now {
                    Fault::Cut(most) if sent > most => return,
                    Fault::Stall(most) if sent > most => {
                        self.goes_on.notified().await;
                        *fault.lock().unwrap() = Fault::None;
                    }
                    _ => {}
                }
                if count == 0 || to_client.write_all(&bytes[..count]).await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            () = requests => {}
            () = answers => {}
        }
    }
}

//! A server that does exactly what a test says: the program of mode http as far as calls are concerned.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{PATIENCE, Watchdog, start};

/// One end of a connection from the watchdog.
pub struct Caller {
    pub reader: BufReader<TcpStream>,
}

impl Caller {
    /// The next request's head, up to and with the empty line; nothing when the connection was closed.
    pub fn head(&mut self) -> Option<String> {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if self.reader.read_line(&mut head).ok()? == 0 {
                return None;
            }
        }
        Some(head)
    }

    pub fn write(&mut self, text: &str) {
        self.reader.get_mut().write_all(text.as_bytes()).unwrap();
    }

    /// Answers with a text.
    pub fn answer(&mut self, text: &str) {
        self.write(&format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len()));
    }

    /// Whether the watchdog closes the connection, with nothing more on it.
    pub fn closed(&mut self) -> bool {
        let mut rest = Vec::new();
        // A reset is an end too.
        let _ = self.reader.read_to_end(&mut rest);
        rest.is_empty()
    }
}

/// A server; each connection has a thread.
pub struct Server {
    pub port: u16,
    /// Connections that were made.
    pub connections: Arc<AtomicUsize>,
}

impl Server {
    pub fn start(each: impl Fn(Caller) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let connections = Arc::new(AtomicUsize::new(0));
        let (each, count) = (Arc::new(each), connections.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().map(Result::unwrap) {
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                count.fetch_add(1, Ordering::SeqCst);
                let each = each.clone();
                std::thread::spawn(move || each(Caller { reader: BufReader::new(stream) }));
            }
        });
        Self { port, connections }
    }

    /// A watchdog in front of it.
    pub fn watchdog(&self, more: &[(&str, &str)]) -> Watchdog {
        let url = format!("http://127.0.0.1:{}", self.port);
        let common = [("fprocess", "sleep 1000"), ("mode", "http"), ("upstream_url", &url)];
        start(&[&common[..], more].concat())
    }
}

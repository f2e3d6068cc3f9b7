//! Functions that call each other by name: `http://NAME:8080/x` is what `/function/NAME/x` is. All names lead to the gateway,
//! so the host that a caller asks for says whom it wants.

use std::net::SocketAddr;

use hyper::Request;
use hyper::header::HOST;

use super::Gateway;
use crate::key::Key;
use crate::names;

impl Gateway {
    /// The function that a request is for by its host. Only functions are asked: to everybody else a machine may have any
    /// name.
    pub(super) fn called<B>(&self, request: &Request<B>, client: SocketAddr) -> Option<Key> {
        if !self.world.network.is_function(client.ip()) {
            return None;
        }
        let key = names::read(host(request)?)?;
        // Somebody else's name, or that of a function that is gone: as if nobody had been called.
        self.functions.get(&key)?.document().map(|_| key)
    }
}

/// The host that a request is for (RFC 9112, section 3.2.2; RFC 9113, section 8.3.1): a whole address in its first line,
/// or `:authority`, counts before the header.
fn host<B>(request: &Request<B>) -> Option<&str> {
    match request.uri().authority() {
        Some(authority) => Some(authority.as_str()),
        None => request.headers().get(HOST)?.to_str().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        for (uri, header, wanted) in [
            ("/x", Some("figlet:8080"), Some("figlet:8080")),
            ("http://figlet:8080/x", Some("gateway"), Some("figlet:8080")),
            ("http://figlet/x", None, Some("figlet")),
            ("/x", None, None),
            ("*", Some("figlet"), Some("figlet")),
        ] {
            let mut request = Request::builder().uri(uri);
            if let Some(header) = header {
                request = request.header(HOST, header);
            }
            assert_eq!(host(&request.body(()).unwrap()), wanted, "{uri} {header:?}");
        }
    }
}

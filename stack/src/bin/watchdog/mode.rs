//! How the function is run.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use hyper::http::uri::PathAndQuery;

use crate::variables::{Variables, printable};

/// Names of the modes, for those who choose another.
const KNOWN: &str = "streaming, serializing, classic, http or static";

/// The mode, with what only it needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// The program is started for each call; its pipes are the bodies.
    Streaming,
    /// The program is started for each call; its output is the answer when it has ended well.
    Serializing,
    /// The same in the manner of the classic watchdog.
    Classic(Classic),
    /// The program is started once and is a server; calls are passed on to it.
    Http(Target),
    /// Files of a folder; there is no program.
    Static(PathBuf),
}

/// What the classic watchdog lets be chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Classic {
    /// The request's head goes into the program's environment.
    pub cgi_headers: bool,
    /// What the program writes to its standard error belongs to the answer.
    pub combine_output: bool,
    /// Answers are written to the log too.
    pub write_debug: bool,
    /// Heads of requests and answers are written to the log.
    pub debug_headers: bool,
}

/// The program's own server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Target {
    /// Where it may listen, the likelier first.
    pub addresses: Vec<SocketAddr>,
    /// What its paths begin with; empty, or `/` and something that does not end with one.
    pub base: String,
    /// Bodies of unknown length are read to their end first, so that the server is told a length.
    pub buffered: bool,
}

impl Mode {
    /// Its name, as the variable has it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Streaming => "streaming",
            Self::Serializing => "serializing",
            Self::Classic(_) => "classic",
            Self::Http(_) => "http",
            Self::Static(_) => "static",
        }
    }

    /// Reads the variables that only a mode knows.
    pub fn read(variables: &Variables<'_>) -> Result<Self, String> {
        let name = variables.text("mode");
        match name.as_deref() {
            None | Some("streaming") => Ok(Self::Streaming),
            Some("serializing") => Ok(Self::Serializing),
            Some("classic") => Classic::read(variables).map(Self::Classic),
            Some("http") => Target::read(variables).map(Self::Http),
            Some("static") => {
                let folder = variables.text("static_path");
                Ok(Self::Static(folder.unwrap_or_else(|| "/home/app/public".to_owned()).into()))
            }
            Some(other) => Err(format!("mode={}: expected {KNOWN}", printable(other))),
        }
    }
}

impl Classic {
    fn read(variables: &Variables<'_>) -> Result<Self, String> {
        if variables.flag(&["marshal_request"], false)? {
            return Err(
                "marshal_request=true: this watchdog does not wrap requests in JSON, expected false or \
                        nothing: the program gets the body as its input and the head as its environment"
                    .to_owned(),
            );
        }
        Ok(Self {
            cgi_headers: variables.flag(&["cgi_headers"], true)?,
            combine_output: variables.flag(&["combine_output"], true)?,
            write_debug: variables.flag(&["write_debug"], false)?,
            debug_headers: variables.flag(&["debug_headers"], false)?,
        })
    }
}

impl Target {
    fn read(variables: &Variables<'_>) -> Result<Self, String> {
        let names = ["http_upstream_url", "upstream_url"];
        let name = names.into_iter().find(|name| variables.text(name).is_some());
        let name = name.ok_or(
            "upstream_url is not set: expected where the function's program listens, such as \
             http://127.0.0.1:3000",
        )?;
        let expected = "http:// and 127.0.0.1, localhost or another address, and a port";
        let target = variables.parsed(name, expected, Self::parse)?;
        let buffered = variables.flag(&["http_buffer_req_body", "buffer_http"], false)?;
        let own = variables.port("port", 8080)?;
        let target = target.unwrap_or_default();
        if target.addresses.iter().any(|address| address.port() == own && !is_elsewhere(address.ip())) {
            return Err(format!(
                "{name}: port {own} is the watchdog's own, expected that of the function's program"
            ));
        }
        Ok(Self { buffered, ..target })
    }

    /// Names other than `localhost` are refused: the program is in the same container, and a resolver would be a good
    /// part of this program.
    fn parse(url: &str) -> Option<Self> {
        let rest = url.strip_prefix("http://")?;
        let (authority, base) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        // Each call's path is put behind it.
        if base.contains(['?', '#']) || !base.is_empty() && base.parse::<PathAndQuery>().is_err() {
            return None;
        }
        let addresses = match authority.strip_prefix("localhost") {
            Some(port) => {
                let port: u16 = if port.is_empty() { 80 } else { port.strip_prefix(':')?.parse().ok()? };
                // A server that listens on the name may have taken either.
                vec![(Ipv4Addr::LOCALHOST, port).into(), (Ipv6Addr::LOCALHOST, port).into()]
            }
            None => match authority.parse() {
                Ok(address) => vec![address],
                Err(_) => vec![SocketAddr::new(authority.parse::<IpAddr>().ok()?, 80)],
            },
        };
        Some(Self { addresses, base: base.trim_end_matches('/').to_owned(), buffered: false })
    }
}

fn is_elsewhere(ip: IpAddr) -> bool {
    !ip.is_loopback() && !ip.is_unspecified()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets() {
        let parse = |url| Target::parse(url).map(|target| (target.addresses, target.base));
        let (four, six): (SocketAddr, SocketAddr) =
            ((Ipv4Addr::LOCALHOST, 3000).into(), (Ipv6Addr::LOCALHOST, 3000).into());
        assert_eq!(parse("http://127.0.0.1:3000"), Some((vec![four], String::new())));
        assert_eq!(parse("http://127.0.0.1:3000/"), Some((vec![four], String::new())));
        assert_eq!(parse("http://localhost:3000/a/b/"), Some((vec![four, six], "/a/b".to_owned())));
        assert_eq!(parse("http://[::1]:3000"), Some((vec![six], String::new())));
        assert_eq!(parse("http://10.0.0.1").unwrap().0[0].port(), 80);
        for bad in [
            "localhost:1",
            "http://",
            "http://localhost:x",
            "http://example.org",
            "https://127.0.0.1:1",
            "http://127.0.0.1:1/a?b",
            "http://127.0.0.1:1/a b",
            "http://127.0.0.1:1/a\u{1}",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}

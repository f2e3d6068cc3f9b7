//! The NATS server, or the cluster of them, that keeps the queues.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::str::FromStr;

use crate::{Hostname, Invalid, Secret};

/// `[stack.nats]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nats {
    /// Where it is; without it, the machine's own. All that follows has other values than the default only with it.
    pub url: Option<NatsUrl>,
    /// How many servers of a cluster keep each message, 1 to 5.
    pub replicas: u8,
    /// As whom the stack comes to it.
    pub login: Option<Login>,
    /// File (PEM) of certificates that may have signed its own, besides the public ones.
    pub ca: Option<PathBuf>,
}

impl Default for Nats {
    fn default() -> Self {
        Self { url: None, replicas: 1, login: None, ca: None }
    }
}

/// How a client shows a NATS server who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Login {
    /// By a name and a password.
    Password {
        /// The name, not empty.
        user: String,
        /// The password.
        password: Secret,
    },
    /// By a credentials file: a JWT and the seed of its NKey.
    Credentials(PathBuf),
}

/// One or several servers of one cluster: `nats://10.0.0.5:4222,nats://10.0.0.6:4222`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NatsUrl {
    text: String,
    servers: Vec<String>,
    tls: bool,
}

/// The port that NATS has at IANA.
const PORT: u16 = 4222;
const PLAIN: &str = "nats://";
const TLS: &str = "tls://";

impl NatsUrl {
    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Each server with its scheme and its port: `nats://10.0.0.5:4222`. At least one.
    pub fn servers(&self) -> Vec<String> {
        self.servers.clone()
    }

    /// Whether TLS is asked for: one scheme is that of all servers.
    pub fn is_tls(&self) -> bool {
        self.tls
    }
}

impl fmt::Display for NatsUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for NatsUrl {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        // What stands there would be shown wherever the address is.
        if text.contains('@') {
            return Err(Invalid("has a user in it, expected `user` and `password` beside it".to_owned()));
        }
        let found: Option<Vec<(&str, String)>> = text.split(',').map(|one| server(one.trim())).collect();
        let found = found.ok_or_else(|| {
            Invalid(
                "is not the address of a NATS server, expected something like \"nats://10.0.0.5:4222\" or \
                 \"tls://nats.example.org\", several with commas between them"
                    .to_owned(),
            )
        })?;
        let tls = found.iter().filter(|(scheme, _)| *scheme == TLS).count();
        if tls > 0 && tls < found.len() {
            return Err(Invalid(
                "has both nats:// and tls:// in it, expected one of them for all servers".to_owned(),
            ));
        }
        let servers = found.into_iter().map(|(_, server)| server).collect();
        Ok(Self { text: text.to_owned(), servers, tls: tls > 0 })
    }
}

/// One server's scheme, and all of its address.
fn server(text: &str) -> Option<(&'static str, String)> {
    let scheme = [PLAIN, TLS].into_iter().find(|scheme| text.starts_with(scheme))?;
    let rest = text.get(scheme.len()..)?;
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => {
            let digits = port.bytes().all(|b| b.is_ascii_digit());
            (host, port.parse::<u16>().ok().filter(|port| digits && *port > 0)?)
        }
        _ => (rest, PORT),
    };
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let fits = match bracketed {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => host.parse::<Ipv4Addr>().is_ok() || host.parse::<Hostname>().is_ok(),
    };
    fits.then(|| (scheme, format!("{scheme}{host}:{port}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers() {
        for (text, servers, tls) in [
            ("nats://127.0.0.1:4222", &["nats://127.0.0.1:4222"][..], false),
            ("nats://10.0.0.5", &["nats://10.0.0.5:4222"], false),
            (
                "nats://10.0.0.5:4223, nats://barn.example.org",
                &["nats://10.0.0.5:4223", "nats://barn.example.org:4222"],
                false,
            ),
            ("tls://[fd00::1],tls://[::1]:4333", &["tls://[fd00::1]:4222", "tls://[::1]:4333"], true),
        ] {
            let url: NatsUrl = text.parse().unwrap();
            assert_eq!(url.servers(), servers, "{text}");
            assert_eq!(url.is_tls(), tls, "{text}");
            assert_eq!((url.as_str(), url.to_string().as_str()), (text, text));
        }
    }

    #[test]
    fn what_is_refused_and_why() {
        for (bad, why) in [
            ("", "is not the address"),
            ("10.0.0.5:4222", "is not the address"),
            ("NATS://a", "is not the address"),
            ("http://a", "is not the address"),
            ("nats://", "is not the address"),
            ("nats://:4222", "is not the address"),
            ("nats://a:", "is not the address"),
            ("nats://a:0", "is not the address"),
            ("nats://a:+1", "is not the address"),
            ("nats://a:65536", "is not the address"),
            ("nats://a/", "is not the address"),
            ("nats://a,", "is not the address"),
            ("nats://a,,nats://b", "is not the address"),
            ("nats://a,b", "is not the address"),
            ("nats://fd00::1", "is not the address"),
            ("nats://[fd00]:1", "is not the address"),
            ("nats://a b", "is not the address"),
            ("nats://u:swordfish@a", "has a user in it"),
            ("nats://a,tls://b", "has both nats:// and tls:// in it"),
        ] {
            let said = bad.parse::<NatsUrl>().unwrap_err().to_string();
            assert!(said.starts_with(why), "{bad}: {said}");
        }
    }
}

//! What a file says once it is understood: defaults applied, no value that could be wrong.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::PathBuf;

use crate::{
    Cpu, Egress, FunctionName, Hostname, Images, Memory, Namespace, Provider, Registries, Secret, Stack,
    Timeout,
};

/// A machine's configuration.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Config {
    /// The machine's name; without one the machine names itself.
    pub hostname: Option<Hostname>,
    /// Who may use the gateway.
    pub gateway: Gateway,
    /// Where images come from.
    pub registries: Registries,
    /// What functions may reach.
    pub egress: Egress,
    /// How long images stay that no function is of.
    pub images: Images,
    /// The queue of asynchronous calls, and what scales functions to zero.
    pub stack: Stack,
    /// The functions that run from the first boot on, in the order of their names.
    pub functions: Vec<Function>,
}

/// The gateway: its basic auth's credentials, how it introduces itself, how long calls may take, its TLS port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gateway {
    /// User name, `admin` unless the file says otherwise. Never empty, no colon (RFC 7617 forbids it).
    pub user: String,
    /// Password; without one the machine makes its own on first boot and keeps it.
    pub password: Option<Secret>,
    /// What `/system/info` calls the function provider.
    pub provider: Provider,
    /// The longest that a call of a function may take, in every part of the machine that counts.
    pub timeout: Timeout,
    /// The TLS port; without one there is only plain HTTP.
    pub tls: Option<Tls>,
}

/// The gateway's TLS port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// File (PEM) of the certificate, and of those between it and an authority that clients know.
    pub certificate: PathBuf,
    /// File (PEM) of its private key.
    pub key: PathBuf,
    /// Address and port to listen on.
    pub listen: SocketAddr,
    /// Whether plain HTTP is served to the machine itself and its functions alone.
    pub only: bool,
}

impl Tls {
    /// Where TLS is listened for unless the file says otherwise: HTTPS's own port.
    pub const LISTEN: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 443));
}

impl Default for Gateway {
    fn default() -> Self {
        Self {
            user: "admin".to_owned(),
            password: None,
            provider: Provider::default(),
            timeout: Timeout::default(),
            tls: None,
        }
    }
}

/// A function that the configuration declares: `[functions.NAME]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Function {
    /// Its name, the NAME of the table.
    pub name: FunctionName,
    /// Its namespace, `openfaas-fn` unless the file says otherwise.
    pub namespace: Namespace,
    /// The OCI image's reference, as written; not empty, no white space.
    pub image: String,
    /// The process that the image's watchdog starts, where it is not the image's own.
    pub env_process: Option<String>,
    /// Environment variables.
    pub environment: BTreeMap<String, String>,
    /// Labels, as OpenFaaS means them.
    pub labels: BTreeMap<String, String>,
    /// Annotations, as OpenFaaS means them.
    pub annotations: BTreeMap<String, String>,
    /// Names of secrets that the function may read.
    pub secrets: Vec<String>,
    /// What it may use at most.
    pub limits: Resources,
    /// What it is promised.
    pub requests: Resources,
    /// Whether its root file system is read-only; `false` unless the file says otherwise.
    pub read_only_root_filesystem: bool,
    /// Placement constraints; where this machine does not meet them, the function is not started.
    pub constraints: Vec<String>,
}

/// Memory and processor time, each where it is given.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Resources {
    /// Memory, such as `128Mi`.
    pub memory: Option<Memory>,
    /// Processor time, such as `100m` (a tenth of one processor) or `2`.
    pub cpu: Option<Cpu>,
}

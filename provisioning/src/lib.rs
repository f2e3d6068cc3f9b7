//! The configuration of a Bothy machine: what `bothy.toml` may say, and what it means.
//!
//! ```text
//! bytes ── parse_bytes ──> text ── toml ──> tables with places ── resolve ──> Config
//!                 └────────────── every problem found on the way ──────────> Diagnostics
//! ```
//!
//! [`parse`] gives either a [`Config`], in which every default is applied and every value is of a type that cannot be
//! wrong, or [`Diagnostics`]: all problems of the file at once, each with its line, its column and what was expected.
//! The tables are read without serde's derive, because that stops at the first problem. Nothing here touches a device,
//! a file or the network: this crate knows nobody, everybody may use it.
//!
//! ```
//! let config = provisioning::parse("version = 1\nhostname = \"barn\"\n", "bothy.toml").unwrap();
//! assert_eq!(config.hostname.unwrap().as_str(), "barn");
//!
//! let wrong = provisioning::parse("version = 1\nhostnam = \"barn\"\n", "bothy.toml").unwrap_err();
//! assert!(wrong.to_string().starts_with("bothy.toml:2:1: unknown key `hostnam`"));
//! ```

mod config;
mod diagnostic;
mod document;
mod egress;
mod images;
mod name;
mod provider;
mod quantity;
mod reader;
mod registry;
mod report;
mod resolve;
mod secret;
mod stack;
mod suggest;
mod timeout;

pub use config::{Config, Function, Gateway, Resources, Tls};
pub use diagnostic::{Diagnostic, Diagnostics};
pub use document::{SIZE_LIMIT_BYTES, default_document, parse, parse_bytes};
pub use egress::{Destination, Egress};
pub use images::Images;
pub use name::{FunctionName, Hostname, Invalid, Namespace};
pub use provider::Provider;
pub use quantity::{Cpu, Memory};
pub use registry::{Mirror, PullPolicy, Registries, Registry, RegistryName};
pub use secret::Secret;
pub use stack::{Backoff, Idler, Login, NamedQueue, Nats, NatsUrl, Queue, QueueName, Retries, Stack};
pub use timeout::Timeout;

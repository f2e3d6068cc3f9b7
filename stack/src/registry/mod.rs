//! Registries: where images come from that the appliance did not bring (OCI distribution-spec 1.1).
//!
//! ```text
//! reference ── Settings ──> Sources: mirrors, then the registry ── documents, blobs ──> containerd/pull.rs
//!                               │ docker/config.json, on each pull
//!                               └ Source: TLS, redirects, challenge, token
//! ```
//!
//! Nothing is kept between two pulls: connections, certificates, tokens and passwords go with the [`Sources`].

mod blob;
mod challenge;
mod client;
mod credentials;
mod document;
mod location;
mod said;
mod settings;
mod source;
mod token;

pub use blob::Blob;
pub use document::{Document, is_index};
pub use said::said;
pub use settings::{Settings, Sources};
pub use source::Source;

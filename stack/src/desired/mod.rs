//! What should be: one document per function and namespace, one file per secret, on disk, written by the API and by the
//! configuration.

mod declared;
mod document;
mod file;
mod folder;
mod namespaces;
mod scale;
mod secrets;
mod store;

pub use declared::apply;
pub use document::{Amounts, Document, hex};
pub use file::on_disk;
pub use folder::Unreadable;
pub use namespaces::{MARK, NamespaceDocument, Namespaces};
pub use scale::{Load, Measure, Rest, Scale, Zero};
pub use secrets::{BadName, LARGEST_SECRET_BYTES, SecretName, Secrets};
pub use store::Store;

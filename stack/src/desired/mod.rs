//! What should be: one document per function, on disk, written by the API and by the configuration.

mod declared;
mod document;
mod store;

pub use declared::apply;
pub use document::{Amounts, Document, hex};
pub use store::{Store, Unreadable};

//! Services: a declaration each, a process in a control group of its own, readiness, restart, stop.

mod backoff;
mod declaration;
mod journal;
mod leftover;
mod ready;
mod record;
mod runner;
mod spawn;
mod store;
mod watch;

pub(crate) use declaration::{Declaration, GATEWAY, JOURNALD, SERVICES};
pub(crate) use journal::JournalSockets;
pub(crate) use record::is_adoptable;
pub(crate) use runner::{Place, Runner};
pub(crate) use spawn::exec_with_sockets;
pub(crate) use watch::Reaped;

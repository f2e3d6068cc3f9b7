//! Services: a declaration each, a process in a control group of its own, readiness, health, restart, stop.

mod appliance;
mod capability;
mod declaration;
mod health;
mod journal;
mod ledger;
mod leftover;
mod limits;
mod probe;
mod ready;
mod record;
mod restart;
mod runner;
mod sandbox;
mod setup;
mod socket;
mod spawn;
mod store;
mod watch;

pub(crate) use appliance::{JOURNALD, QUEUE_WORKER, SERVICES};
pub(crate) use declaration::Declaration;
pub(crate) use record::is_adoptable;
pub(crate) use runner::{Place, Runner};
pub(crate) use spawn::exec_with_sockets;
pub(crate) use store::Store;
pub(crate) use watch::{Reaped, Watched};

//! The OpenFaaS-compatible stack: one process that is gateway and function provider, one that makes the asynchronous calls,
//! and one that carries the functions' output into the journal. See README.md for the processes, the flow of data, and what
//! happens when what dies.

pub mod base64;
pub mod configuration;
pub mod containerd;
pub mod desired;
pub mod duration;
pub mod error;
pub mod gateway;
pub mod handed;
pub mod histogram;
pub mod key;
pub mod lanes;
pub mod log;
pub mod logging;
pub mod names;
pub mod network;
pub mod notify;
pub mod object;
pub mod queue;
pub mod random;
pub mod reconcile;
pub mod registry;
pub mod runtime;
pub mod scaler;
pub mod space;
pub mod timestamp;
pub mod trust;
pub mod upstream;
pub mod worker;

//! The queue-worker's command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::gateway::{Listen, parse_duration};
use crate::network::Subnet;

/// Make the asynchronous calls that wait in the queues.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// Configuration whose [stack] and gateway's timeout are applied
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where the gateway takes the calls
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8083")]
    pub gateway: SocketAddr,
    /// The machine's own NATS server, used unless the configuration names others [default: nats://127.0.0.1:4222]
    #[arg(long, value_name = "URL")]
    pub nats: Option<String>,
    /// Its folder, whose file system is synced before a call counts as done
    #[arg(long, value_name = "FOLDER", default_value = "/var/lib/nats")]
    pub nats_store: PathBuf,
    /// Address and port of /metrics; empty: none
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:8084")]
    pub metrics_listen: Listen,
    /// The functions' addresses: no answer is sent there but through the gateway
    #[arg(long, default_value = "10.62.0.0/16")]
    pub subnet: Subnet,
    /// Longest call of a function [default: the configuration's, or 60s]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub upstream_timeout: Option<Duration>,
}

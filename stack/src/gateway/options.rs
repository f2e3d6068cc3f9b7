//! The gateway's command line. Every path and name can be set, so that a second stack can run beside another.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use provisioning::{Idler, Provider};

use super::metrics::Listen;
use crate::duration;
use crate::network::Subnet;

/// Serve the gateway's API and keep the functions running.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// Address and port to listen on, unless a socket is handed over (LISTEN_FDS, LISTEN_FDNAMES=http)
    #[arg(long, default_value = "0.0.0.0:8080")]
    pub listen: SocketAddr,
    /// Address and port for the queue-worker, whose calls come this way
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8083")]
    pub worker_listen: SocketAddr,
    /// The machine's own NATS server, used unless the configuration names others [default: nats://127.0.0.1:4222]
    #[arg(long, value_name = "URL")]
    pub nats: Option<String>,
    /// Its folder, whose file system is synced before an asynchronous call counts as accepted
    #[arg(long, value_name = "FOLDER", default_value = "/var/lib/nats")]
    pub nats_store: PathBuf,
    /// Address and port of /metrics; empty: none
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:8082")]
    pub metrics_listen: Listen,
    /// The program that reads the journal, for GET /system/logs
    #[arg(long, value_name = "PROGRAM", default_value = "/usr/bin/journalctl")]
    pub journalctl: PathBuf,
    /// Folder of a journal to read instead of the machine's own
    #[arg(long, value_name = "FOLDER")]
    pub journal_dir: Option<PathBuf>,
    /// Configuration whose functions are applied when their entries change
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Folder of basic-auth-user and basic-auth-password
    #[arg(long, value_name = "FOLDER", default_value = "/run/bothy/secrets")]
    pub credentials: PathBuf,
    /// The supervisor's control socket, for POST /system/machine
    #[arg(long, value_name = "SOCKET", default_value = "/run/bothy/control")]
    pub control: PathBuf,
    /// Folder of desired state: functions/, namespaces/ and secrets/
    #[arg(long, value_name = "FOLDER", default_value = "/var/lib/bothy")]
    pub state: PathBuf,
    /// Folder, in memory, of the functions' own copies of their secrets
    #[arg(long, value_name = "FOLDER", default_value = "/run/bothy/secrets/functions")]
    pub secrets_dir: PathBuf,
    /// What /system/info calls this provider, bothy or faasd [default: the configuration's]
    #[arg(long, value_name = "NAME")]
    pub provider_name: Option<Provider>,
    /// Folder of baked OCI layouts
    #[arg(long, value_name = "FOLDER", default_value = "/usr/share/bothy/images")]
    pub images: PathBuf,
    /// Users and passwords of registries, as docker writes them [default: the configuration's, or docker/config.json in the
    /// state's folder]
    #[arg(long, value_name = "FILE")]
    pub docker_config: Option<PathBuf>,
    /// Longest silence of a registry
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = parse_duration)]
    pub registry_patience: Duration,
    /// containerd's socket
    #[arg(long, value_name = "SOCKET", default_value = "/run/containerd/containerd.sock")]
    pub containerd: PathBuf,
    /// containerd's folder of what runs (`state` of its configuration)
    #[arg(long, value_name = "FOLDER", default_value = "/run/containerd")]
    pub containerd_state: PathBuf,
    /// containerd's snapshotter
    #[arg(long, value_name = "NAME", default_value = "overlayfs")]
    pub snapshotter: String,
    /// Folder of the FIFOs for the functions' output
    #[arg(long, value_name = "FOLDER", default_value = "/run/bothy/fifo")]
    pub fifo_dir: PathBuf,
    /// Folder of the files that functions share, such as their /etc/hosts
    #[arg(long, value_name = "FOLDER", default_value = "/run/bothy/functions")]
    pub run_dir: PathBuf,
    /// Folder of the functions' network namespaces
    #[arg(long, value_name = "FOLDER", default_value = "/run/netns")]
    pub netns: PathBuf,
    /// The resolv.conf that functions get a copy of
    #[arg(long, value_name = "FILE", default_value = "/etc/resolv.conf")]
    pub resolv_conf: PathBuf,
    /// OCI runtime, by name or path
    #[arg(long, value_name = "PROGRAM", default_value = "crun")]
    pub runtime_binary: String,
    /// cgroup of containerd's shims; empty: they stay where containerd is
    #[arg(long, value_name = "CGROUP", default_value = "/workload/shims")]
    pub shim_cgroup: String,
    /// cgroup above the functions'; empty: no cgroups, and no limits
    #[arg(long, value_name = "CGROUP", default_value = "/workload")]
    pub cgroup_root: String,
    /// Give functions cgroups without limits: for a cgroup2 without controllers, as hosts have beside those of version 1
    #[arg(long)]
    pub without_limits: bool,
    /// The functions' addresses
    #[arg(long, default_value = "10.62.0.0/16")]
    pub subnet: Subnet,
    /// The functions' bridge
    #[arg(long, value_name = "NAME", default_value = "of0")]
    pub bridge: String,
    /// The nft program; empty: no rules are made
    #[arg(long, value_name = "PROGRAM", default_value = "nft")]
    pub nft: String,
    /// Name of the nftables table
    #[arg(long, value_name = "NAME", default_value = "bothy")]
    pub table: String,
    /// File (PEM) of the TLS port's certificate, and of those above it [default: the configuration's]
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_certificate: Option<PathBuf>,
    /// File (PEM) of its private key [default: the configuration's]
    #[arg(long, value_name = "FILE", requires = "tls_certificate")]
    pub tls_key: Option<PathBuf>,
    /// Address and port of TLS; a socket that is handed over (LISTEN_FDNAMES=https) is taken if it is of this one [default:
    /// the configuration's, or 0.0.0.0:443]
    #[arg(long, value_name = "ADDRESS")]
    pub tls_listen: Option<SocketAddr>,
    /// Serve plain HTTP to this machine and its functions alone [default: as the configuration says]
    #[arg(long)]
    pub tls_only: bool,
    /// Longest call of a function, here and in its watchdog [default: the configuration's, or 60s]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub upstream_timeout: Option<Duration>,
    /// Longest time until a new instance answers
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = parse_duration)]
    pub ready_timeout: Duration,
    /// Longest time until a function has ended after SIGTERM
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = parse_duration)]
    pub grace: Duration,
    /// Functions at most that have an instance prepared for the next call while they are scaled to none
    #[arg(long, value_name = "NUMBER", default_value_t = 16)]
    pub prepared: usize,
    /// After how long without a call a function rests that is scaled to zero and does not say itself [default: the
    /// configuration's, or 15m]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub inactivity_duration: Option<Duration>,
    /// Pause between two looks for functions that are to be scaled to zero [default: the configuration's, or 30s]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub reconcile_interval: Option<Duration>,
    /// Pause between two looks at how full the disk is, for images that no function is of
    #[arg(long, value_name = "DURATION", default_value = "1m", value_parser = parse_duration)]
    pub disk_look: Duration,
    /// Longest time for calls to end when the gateway is stopped
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = parse_duration)]
    pub drain: Duration,
}

impl Options {
    /// When functions are scaled to zero that ask for it: as the configuration says, unless we are told otherwise.
    pub fn idling(&self, configured: Idler) -> Idler {
        Idler {
            inactivity: self.inactivity_duration.unwrap_or(configured.inactivity),
            interval: self.reconcile_interval.unwrap_or(configured.interval),
        }
    }
}

/// A duration of the command line; the error is what its user reads.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    duration::parse(text).ok_or_else(|| "expected seconds or a duration such as 1m30s".to_owned())
}

#[cfg(test)]
pub(super) mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    /// The options of a command line; an error is what its user reads.
    pub fn options(words: &[&str]) -> Result<Options, String> {
        let line = Line::try_parse_from([&["gateway"], words].concat());
        line.map(|line| line.options).map_err(|error| error.to_string())
    }

    #[test]
    fn the_idlers_settings() {
        let idling = |words: &[&str]| {
            let idling = options(words).unwrap().idling(Idler::default());
            (idling.inactivity.as_secs(), idling.interval.as_secs())
        };
        assert_eq!(idling(&[]), (900, 30));
        assert_eq!(idling(&["--inactivity-duration", "3m", "--reconcile-interval", "2m"]), (180, 120));
    }

    #[test]
    fn the_providers_name() {
        let name = |words: &[&str]| options(words).map(|options| options.provider_name).ok();
        assert_eq!(name(&[]), Some(None));
        assert_eq!(name(&["--provider-name", "faasd"]), Some(Some(Provider::Faasd)));
        let refused = options(&["--provider-name", "faasd-ce"]).unwrap_err();
        assert!(refused.contains("expected \"bothy\" or \"faasd\""), "{refused}");
    }
}

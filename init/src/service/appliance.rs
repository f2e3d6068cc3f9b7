//! The services of this appliance.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use super::capability::Capability as Cap;
use super::declaration::{Declaration, Health, Kill, Probe, Ready, Resource, Restart, Rights, Sandbox};
use super::limits::{Limits, Share};
use super::socket::{At, Socket};
use crate::board::GATEWAY_PORT;

/// Name of the journal service.
pub(crate) const JOURNALD: &str = "journald";
const CONTAINERD: &str = "containerd";
const GATEWAY: &str = "gateway";
pub(crate) const QUEUE_WORKER: &str = "queue-worker";

/// For what no call of a function needs. The gateway is ready when it has tried to start every function: what they wait
/// for gets the processor first. If that takes long, the others do not.
const AFTER_FUNCTIONS: (&[&str], Duration) = (&[GATEWAY], Duration::from_secs(15));

/// Passwords and keys, on the data partition, in memory and on the FAT.
const SECRETS: &[&str] = &[
    "/var/lib/bothy/secrets",
    "/var/lib/bothy/config",
    "/var/lib/bothy/docker",
    "/run/bothy/secrets",
    "/boot",
];

/// NATS's user, and its group.
const NATS_USER: u32 = 900;

/// Where the gateway is called.
const HTTP: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, GATEWAY_PORT));

const RESTART: Restart = Restart {
    first: Duration::from_millis(200),
    // Nobody is there to start it by hand: it is never away for longer, until it has used its limit.
    longest: Duration::from_secs(10),
    stable: Duration::from_secs(60),
    limit: 24,
    interval: Duration::from_secs(600),
    slow: Duration::from_secs(300),
};

const BASE: Declaration = Declaration {
    name: "",
    command: &[],
    environment: &[],
    user: 0,
    group: 0,
    needs: &[],
    wants: (&[], Duration::ZERO),
    ready: Ready::Notify,
    health: None,
    restart: RESTART,
    start_limit: Duration::from_secs(90),
    stop_limit: Duration::from_secs(5),
    kill: Kill::Group,
    oom_score: -500,
    // Some programs walk all numbers up to the soft limit of files: keep that one small, they may raise it. A core
    // would fill the disk, and holds what was in memory.
    rlimits: &[(Resource::Files, 1024, 524_288), (Resource::Core, 0, 0)],
    limits: Limits::NONE,
    rights: Rights::Any,
    sandbox: Sandbox::None,
    sockets: &[],
};

/// What an image's import took is given back (mallopt(3)): a threshold that is set does not grow with what was freed.
/// The gateway keeps 1.3 MiB then instead of 8.3.
const MALLOC: &[(&str, &str)] = &[("MALLOC_ARENA_MAX", "2"), ("MALLOC_TRIM_THRESHOLD_", "131072")];

/// Many connections at once.
const MANY_FILES: &[(Resource, u64, u64)] = &[(Resource::Files, 65_536, 524_288), (Resource::Core, 0, 0)];

/// The services, in the order of starting. None needs another one to be there first: sockets are bound before their
/// services start, and everyone else's client tries again.
pub(crate) const SERVICES: [Declaration; 6] = [
    Declaration {
        name: JOURNALD,
        command: &["/usr/lib/systemd/systemd-journald"],
        // Lines wait in its sockets.
        wants: AFTER_FUNCTIONS,
        oom_score: -250,
        stop_limit: Duration::from_secs(3),
        limits: Limits {
            low: Some(Share::fixed(8)),
            // Its files are mapped and given back under pressure: `high` asks it to, and stops nobody.
            high: Some(Share::of(8, 32, 64)),
            max: Some(Share::of(12, 48, 128)),
            cpu_weight: 50,
            pids: 32,
            ..Limits::NONE
        },
        // Who wrote a line is read from /proc, of processes of other users too; the kernel's lines from /dev/kmsg.
        rights: Rights::Only(&[
            Cap::Chown,
            Cap::DacOverride,
            Cap::DacReadSearch,
            Cap::Fowner,
            Cap::SysPtrace,
            Cap::Syslog,
        ]),
        sandbox: Sandbox::Folders {
            writable: &["/var/log/journal", "/run/log", "/run/systemd"],
            hidden: SECRETS,
            private_tmp: true,
        },
        // It tells them apart by kind and path.
        sockets: &[
            Socket { name: "native", at: At::Datagram("/run/systemd/journal/socket") },
            Socket { name: "stdout", at: At::Stream("/run/systemd/journal/stdout") },
            Socket { name: "dev-log", at: At::Datagram("/run/systemd/journal/dev-log") },
        ],
        ..BASE
    },
    Declaration {
        name: CONTAINERD,
        command: &["/usr/bin/containerd", "--config", "/etc/containerd/config.toml"],
        health: Some(Health {
            probe: Probe::Unix("/run/containerd/containerd.sock"),
            period: Duration::from_secs(30),
            limit: Duration::from_secs(10),
            failures: 3,
            said_after: Duration::from_secs(30),
            hung_after: Duration::from_secs(120),
        }),
        kill: Kill::Main,
        oom_score: -999,
        // Containers inherit what their own document does not say, so there is no limit of cores.
        rlimits: &[(Resource::Files, 524_288, 524_288)],
        limits: Limits {
            // Its own and the pages of its program: without them it answers nobody for seconds.
            min: Some(Share::fixed(40)),
            low: Some(Share::of(15, 40, 64)),
            // What it unpacks is page cache of this group, and given back.
            max: Some(Share::of(50, 96, 1024)),
            cpu_weight: 200,
            // A shim is in this group for its first moments.
            pids: 4096,
            ..Limits::NONE
        },
        ..BASE
    },
    Declaration {
        name: "nats",
        command: &["/usr/sbin/nats-server", "-c", "/etc/nats-server.conf"],
        user: NATS_USER,
        group: NATS_USER,
        rights: Rights::Only(&[]),
        // No call of a function needs it; what is to be queued waits.
        wants: AFTER_FUNCTIONS,
        ready: Ready::Probe(Probe::Tcp(4222)),
        rlimits: MANY_FILES,
        limits: Limits {
            low: Some(Share::of(6, 12, 32)),
            high: Some(Share::of(25, 48, 448)),
            max: Some(Share::of(30, 64, 512)),
            cpu_weight: 100,
            pids: 256,
            ..Limits::NONE
        },
        sandbox: Sandbox::Folders {
            writable: &["/var/lib/nats"],
            hidden: &[
                "/boot",
                "/run/bothy",
                "/run/containerd",
                "/var/lib/bothy",
                "/var/lib/containerd",
                "/var/log",
            ],
            private_tmp: true,
        },
        ..BASE
    },
    Declaration {
        name: "log",
        command: &["/usr/bin/stack", "log"],
        limits: Limits {
            min: Some(Share::fixed(2)),
            low: Some(Share::fixed(6)),
            max: Some(Share::of(10, 32, 128)),
            cpu_weight: 50,
            pids: 128,
            ..Limits::NONE
        },
        rights: Rights::Only(&[]),
        sandbox: Sandbox::Folders { writable: &["/run/bothy"], hidden: SECRETS, private_tmp: true },
        ..BASE
    },
    Declaration {
        name: GATEWAY,
        command: &[
            "/usr/bin/stack",
            "gateway",
            "--config",
            "/run/bothy/bothy.toml",
            "--credentials",
            "/run/bothy/secrets",
            // Shorter than the limit of the stop: what is left then still gets an answer.
            "--drain",
            "3s",
        ],
        environment: MALLOC,
        health: Some(Health {
            probe: Probe::Http(GATEWAY_PORT, "/healthz"),
            period: Duration::from_secs(5),
            limit: Duration::from_secs(5),
            // One slow answer on a busy card is no failure; not answering for a moment is how it starts.
            failures: 3,
            said_after: Duration::from_secs(10),
            hung_after: Duration::from_secs(30),
        }),
        sockets: &[Socket { name: "http", at: At::Tcp(HTTP) }],
        rlimits: MANY_FILES,
        limits: Limits {
            min: Some(Share::fixed(12)),
            low: Some(Share::of(8, 12, 64)),
            // Some tens of KiB for each connection that is open.
            max: Some(Share::of(50, 96, 2048)),
            cpu_weight: 200,
            // The threads that wait for disks, and nft.
            pids: 1024,
            ..Limits::NONE
        },
        // Namespaces, links and firewall of the functions, their files and their processes; HTTPS's port. Not: the kernel's modules,
        // memory, log and clock, other security modules, restarts.
        rights: Rights::Only(&[
            Cap::Chown,
            Cap::DacOverride,
            Cap::DacReadSearch,
            Cap::Fowner,
            Cap::Kill,
            Cap::NetAdmin,
            Cap::NetBindService,
            Cap::NetRaw,
            Cap::SysAdmin,
            Cap::SysPtrace,
            // On a full disk it is who can remove a function.
            Cap::SysResource,
        ]),
        ..BASE
    },
    Declaration {
        name: QUEUE_WORKER,
        command: &["/usr/bin/stack", "queue-worker", "--config", "/run/bothy/bothy.toml"],
        environment: MALLOC,
        // It syncs the file system of NATS's folder, which that group may open: the right to read anybody's files would
        // open what is hidden from it, too (open_by_handle_at(2)).
        group: NATS_USER,
        // What it would make at the start are calls that wait; those that somebody waits for go first.
        wants: AFTER_FUNCTIONS,
        // A call that it has not ended by then is made again at the next start.
        stop_limit: Duration::from_secs(3),
        rlimits: MANY_FILES,
        limits: Limits {
            low: Some(Share::of(4, 6, 12)),
            // Bodies of the calls that it makes.
            max: Some(Share::of(20, 48, 512)),
            cpu_weight: 100,
            pids: 64,
            ..Limits::NONE
        },
        rights: Rights::Only(&[]),
        sandbox: Sandbox::Folders {
            writable: &[],
            // Not /boot, where the files are that bothy.toml names for NATS.
            hidden: &[
                "/var/lib/bothy/secrets",
                "/var/lib/bothy/config",
                "/var/lib/bothy/docker",
                "/var/lib/containerd",
                "/run/bothy/secrets",
                "/run/containerd",
            ],
            private_tmp: true,
        },
        ..BASE
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hard_dependencies_are_earlier_services_and_soft_ones_exist() {
        let all: Vec<_> = SERVICES.iter().map(|service| service.name).collect();
        assert_eq!(all, ["journald", "containerd", "nats", "log", "gateway", "queue-worker"]);
        for (at, service) in SERVICES.iter().enumerate() {
            assert!(service.needs.iter().all(|name| all[..at].contains(name)), "{}", service.name);
            assert!(service.wants.0.iter().all(|name| all.contains(name)), "{}", service.name);
            assert_eq!(service.wants.0.is_empty(), service.wants.1.is_zero(), "{}", service.name);
            assert!(service.command[0].starts_with("/usr/"));
            assert!(service.start_limit > service.stop_limit);
        }
    }

    #[test]
    fn only_what_starts_containers_is_unbound() {
        let unbound: Vec<_> = SERVICES.iter().filter(|s| s.rights == Rights::Any).map(|s| s.name).collect();
        assert_eq!(unbound, [CONTAINERD]);
        let killed: Vec<_> = SERVICES.iter().filter(|s| s.kill == Kill::Main).map(|s| s.name).collect();
        assert_eq!(killed, [CONTAINERD]);
        let sees_all: Vec<_> =
            SERVICES.iter().filter(|s| s.sandbox == Sandbox::None).map(|s| s.name).collect();
        assert_eq!(sees_all, [CONTAINERD, GATEWAY]);
    }

    #[test]
    fn the_queue_worker_sees_no_secret_but_those_of_the_configuration() {
        let worker = SERVICES.iter().find(|service| service.name == QUEUE_WORKER).unwrap();
        let Sandbox::Folders { writable, hidden, .. } = worker.sandbox else { panic!("it sees all") };
        assert!(writable.is_empty() && !hidden.contains(&"/boot"));
        assert!(SECRETS.iter().filter(|folder| **folder != "/boot").all(|folder| hidden.contains(folder)));
        assert_eq!((worker.user, worker.group), (0, NATS_USER));
    }

    #[test]
    fn limits_fit_the_smallest_machine_and_the_largest() {
        for total in [160_u64 << 20, 1 << 30, 32 << 30] {
            let (mut low, mut min) = (0, 0);
            for service in &SERVICES {
                let limits = service.limits.bytes(total);
                let max = limits.max.unwrap_or_else(|| panic!("{} has no limit", service.name));
                assert!(max < total, "{}: {max} of {total}", service.name);
                assert!(limits.min.unwrap_or(0) <= limits.low.unwrap_or(0), "{}", service.name);
                assert!(limits.low.unwrap_or(0) < max && limits.high.unwrap_or(0) < max, "{}", service.name);
                low += limits.low.unwrap_or(0);
                min += limits.min.unwrap_or(0);
            }
            assert!(min <= crate::cgroup::SYSTEM_MIN_BYTES, "{min}");
            assert!(low <= crate::cgroup::reserve(total), "{low} of {total}");
        }
    }
}

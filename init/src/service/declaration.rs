//! What a service is, as data; and the services of this appliance.

use std::time::Duration;

/// How one knows that a service does its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ready {
    /// It says `READY=1` on its `$NOTIFY_SOCKET` (sd_notify(3)).
    Notify,
    /// This port of 127.0.0.1 accepts.
    Tcp(u16),
}

/// What is killed when a service ends or must end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kill {
    /// Everything in its group.
    Group,
    /// Its main process alone. A shim starts in containerd's group before it moves to its own: killing the group at
    /// the wrong moment would end a function.
    Main,
}

/// What a service's processes may become, by executing others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rights {
    /// Anything: what starts containers must not limit them.
    Any,
    /// No more than it is (`PR_SET_NO_NEW_PRIVS`): set-id programs and file capabilities give nothing.
    NoMore,
    /// That, and no capability can ever be had.
    None,
}

/// A service.
#[derive(Debug, Clone)]
pub(crate) struct Declaration {
    /// Name: of its group below `system/`, its log lines, its status.
    pub name: &'static str,
    /// Program and arguments.
    pub command: &'static [&'static str],
    /// Additional environment.
    pub environment: &'static [(&'static str, &'static str)],
    /// User and group id; 0 is root.
    pub user: u32,
    /// Services that must be ready before this one starts.
    pub after: &'static [&'static str],
    /// How long it waits for them at most, if it can do without.
    pub after_limit: Option<Duration>,
    /// How it says that it is ready.
    pub ready: Ready,
    /// How long it may take to be ready. Generous: the slowest board with a worn card is still starting, not broken.
    pub start_limit: Duration,
    /// How long it may take to end after SIGTERM.
    pub stop_limit: Duration,
    /// What a kill means.
    pub kill: Kill,
    /// `oom_score_adj`: the kernel takes a function before any of these.
    pub oom_score: i32,
    /// Soft and hard limit of open files.
    pub files: (u64, u64),
    /// What it may become.
    pub rights: Rights,
    /// Whether it gets journald's sockets handed (sd_listen_fds(3)).
    pub journal_sockets: bool,
}

const BASE: Declaration = Declaration {
    name: "",
    command: &[],
    environment: &[],
    user: 0,
    after: &[],
    after_limit: None,
    ready: Ready::Notify,
    start_limit: Duration::from_secs(90),
    stop_limit: Duration::from_secs(5),
    kill: Kill::Group,
    oom_score: -500,
    // Some programs walk all numbers up to the soft limit: keep that one small, they may raise it.
    files: (1024, 524_288),
    rights: Rights::Any,
    journal_sockets: false,
};

/// Name of the journal service.
pub(crate) const JOURNALD: &str = "journald";
/// Name of the one that answers for the appliance's health.
pub(crate) const GATEWAY: &str = "gateway";

/// The services, in the order of starting. None needs another one to be there first: journald's sockets are bound
/// before it is, and everyone else's client tries again.
pub(crate) const SERVICES: [Declaration; 5] = [
    Declaration {
        name: JOURNALD,
        command: &["/usr/lib/systemd/systemd-journald"],
        // Lines wait in its sockets; containerd is what a function waits for, and gets the processor first.
        after: &["containerd"],
        after_limit: Some(Duration::from_secs(5)),
        oom_score: -250,
        stop_limit: Duration::from_secs(3),
        journal_sockets: true,
        ..BASE
    },
    Declaration {
        name: "containerd",
        command: &["/usr/bin/containerd", "--config", "/etc/containerd/config.toml"],
        kill: Kill::Main,
        oom_score: -999,
        files: (524_288, 524_288),
        ..BASE
    },
    Declaration {
        name: "nats",
        command: &["/usr/sbin/nats-server", "-a", "127.0.0.1", "-p", "4222", "-js", "-sd", "/var/lib/nats"],
        user: 900,
        rights: Rights::None,
        ready: Ready::Tcp(4222),
        files: (65_536, 524_288),
        ..BASE
    },
    Declaration { name: "log", command: &["/usr/bin/stack", "log"], rights: Rights::NoMore, ..BASE },
    Declaration {
        name: GATEWAY,
        command: &[
            "/usr/bin/stack",
            "gateway",
            "--listen",
            "0.0.0.0:8080",
            "--config",
            "/run/bothy/bothy.toml",
            "--credentials",
            "/run/bothy/secrets",
            // Shorter than the limit of the stop: what is left then still gets an answer.
            "--drain",
            "3s",
        ],
        files: (65_536, 524_288),
        // nft, which it runs, is root's already.
        rights: Rights::NoMore,
        ..BASE
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hard_dependencies_are_earlier_services() {
        let mut earlier = Vec::new();
        for service in SERVICES {
            let known = |name| earlier.contains(name) || service.after_limit.is_some();
            assert!(service.after.iter().all(known), "{}", service.name);
            assert!(service.command[0].starts_with("/usr/"));
            earlier.push(service.name);
        }
        assert_eq!(earlier, ["journald", "containerd", "nats", "log", "gateway"]);
    }

    #[test]
    fn containerd_is_never_killed_as_a_group() {
        let killed: Vec<_> = SERVICES.iter().filter(|s| s.kill == Kill::Main).map(|s| s.name).collect();
        assert_eq!(killed, ["containerd"]);
    }
}

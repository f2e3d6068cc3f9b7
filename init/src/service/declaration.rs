//! What a service is, as data: the types. The appliance's own services are in [`super::appliance`].

use std::time::Duration;

use super::capability::Capability;
use super::limits::Limits;
use super::socket::Socket;

/// A question that a service answers when it works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Probe {
    /// This port of 127.0.0.1 accepts.
    Tcp(u16),
    /// This socket of the file system accepts a stream.
    Unix(&'static str),
    /// `GET` of this path on this port of 127.0.0.1 is answered with 200.
    Http(u16, &'static str),
    /// This command, with the service's user and limits, ends with 0.
    #[cfg_attr(not(test), expect(dead_code, reason = "no service of this appliance has such a command"))]
    Exec(&'static [&'static str]),
}

/// How one knows that a service has begun to do its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ready {
    /// It says `READY=1` on its `$NOTIFY_SOCKET` (sd_notify(3)).
    Notify,
    /// It answers.
    Probe(Probe),
}

/// How one knows that it still does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Health {
    /// What it is asked.
    pub probe: Probe,
    /// Pause between two questions while it answers.
    pub period: Duration,
    /// How long an answer may take.
    pub limit: Duration,
    /// Failures in a row from which on it counts as not healthy.
    pub failures: u32,
    /// Failing in a row for so long is a problem that is said.
    pub said_after: Duration,
    /// Failing in a row for so long, it is taken for hung and starts again.
    pub hung_after: Duration,
}

/// When a service that ended starts again: at once, then after pauses that double; too often, then rarely.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Restart {
    /// The pause before the second start in a row.
    pub first: Duration,
    /// The longest of the pauses that double.
    pub longest: Duration,
    /// One that was ready for so long has recovered.
    pub stable: Duration,
    /// More ends than this within `interval`, and it counts as failed.
    pub limit: usize,
    /// See `limit`.
    pub interval: Duration,
    /// The pause of one that failed.
    pub slow: Duration,
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

/// What root's rights of a service are cut down to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rights {
    /// Anything: what starts containers must not limit them.
    Any,
    /// These capabilities, whoever it is (bounding and ambient set), and never more than it is
    /// (`PR_SET_NO_NEW_PRIVS`): set-id programs and file capabilities give nothing.
    Only(&'static [Capability]),
}

/// What a service sees of the file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sandbox {
    /// What the machine sees.
    None,
    /// A mount namespace of its own, in which all is read-only. (`PR_SET_DUMPABLE` would be undone by the exec; cores
    /// are off by `RLIMIT_CORE`.)
    Folders {
        /// Folders that can be written nevertheless; made if they are missing.
        writable: &'static [&'static str],
        /// Folders that are empty and closed instead.
        hidden: &'static [&'static str],
        /// Whether it has a `/tmp` of its own.
        private_tmp: bool,
    },
}

/// A resource of setrlimit(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Resource {
    /// Open files.
    Files,
    /// Size of a core file.
    Core,
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
    /// User id; 0 is root.
    pub user: u32,
    /// Group id. It is in no other group.
    pub group: u32,
    /// Services that must be ready before this one starts. While one of them has failed, this one does not start.
    pub needs: &'static [&'static str],
    /// Services that it would like to be ready before, and how long it waits for them.
    pub wants: (&'static [&'static str], Duration),
    /// How it says that it is ready.
    pub ready: Ready,
    /// How one knows that it works on.
    pub health: Option<Health>,
    /// When it starts again.
    pub restart: Restart,
    /// How long it may take to be ready. Generous: the slowest board with a worn card is still starting, not broken.
    pub start_limit: Duration,
    /// How long it may take to end after SIGTERM.
    pub stop_limit: Duration,
    /// What a kill means.
    pub kill: Kill,
    /// `oom_score_adj`: the kernel takes a function before any of these.
    pub oom_score: i32,
    /// Resources with soft and hard limit.
    pub rlimits: &'static [(Resource, u64, u64)],
    /// Limits of its group.
    pub limits: Limits,
    /// What it may do as root, or beyond its user.
    pub rights: Rights,
    /// What it sees.
    pub sandbox: Sandbox,
    /// Sockets that are bound for it and kept while it is away (sd_listen_fds(3)).
    pub sockets: &'static [Socket],
}

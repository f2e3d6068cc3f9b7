//! What can fail in this crate: a variant is the act, its fields are where and why.

use std::io;
use std::path::PathBuf;

/// This crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An act of the stack that failed. Display is one line.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder could not be read.
    #[error("read {}: {source}", path.display())]
    Read {
        /// What was read.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A file or folder could not be written.
    #[error("write {}: {source}", path.display())]
    Write {
        /// What was written.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A document is not what it should be.
    #[error("parse {what}: {source}")]
    Parse {
        /// The document.
        what: String,
        /// Where it went wrong.
        source: serde_json::Error,
    },
    /// A call to containerd failed.
    #[error("containerd: {act}: {} ({:?})", source.message(), source.code())]
    Containerd {
        /// The call and its object.
        act: String,
        /// containerd's answer.
        source: Box<tonic::Status>,
    },
    /// A call to containerd got no answer.
    #[error("containerd: {act}: no answer in {seconds} s")]
    ContainerdSilent {
        /// The call and its object.
        act: String,
        /// How long was waited.
        seconds: u64,
    },
    /// The image is neither in containerd nor among the baked ones.
    #[error("image {reference} is not on this machine")]
    ImageMissing {
        /// The normalised reference.
        reference: String,
    },
    /// The image does not fit on the disk.
    #[error(
        "image {reference} needs {needs} MiB or more, {free} MiB are free: remove functions that nobody needs, or copy \
         the disk to a larger one"
    )]
    NoRoom {
        /// The normalised reference.
        reference: String,
        /// The least that it takes, MiB.
        needs: u64,
        /// What is free for it, MiB.
        free: u64,
    },
    /// The image was made for another machine.
    #[error("image {reference} is made for {found}, this machine is {wanted}")]
    ImagePlatform {
        /// The normalised reference.
        reference: String,
        /// The image's platforms.
        found: String,
        /// Ours.
        wanted: String,
    },
    /// The image cannot be run.
    #[error("image {reference}: {reason}")]
    ImageUnusable {
        /// The normalised reference.
        reference: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A registry did not give what it was asked for.
    #[error("registry {registry}: {act}: {reason}")]
    Registry {
        /// The registry or mirror.
        registry: String,
        /// What it was asked for.
        act: String,
        /// What kind of failure that was.
        trouble: Trouble,
        /// What came of it, and what to do about it.
        reason: String,
    },
    /// Neither a registry nor its mirrors gave what they were asked for.
    #[error("{}", causes.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Registries {
        /// What each of them did, in the order of asking.
        causes: Vec<Error>,
    },
    /// An image could not be fetched.
    #[error("cannot pull {reference}: {reason}")]
    Pull {
        /// The normalised reference.
        reference: String,
        /// Why, and what to do about it.
        reason: String,
        /// Whether asking again soon is of no use.
        lasting: bool,
    },
    /// A request to the kernel's network configuration failed.
    #[error("netlink: {act}: {source}")]
    Netlink {
        /// The request and its object.
        act: String,
        /// The kernel's answer.
        source: rtnetlink::Error,
    },
    /// A network namespace could not be made or entered.
    #[error("network namespace {}: {act}: {source}", path.display())]
    Netns {
        /// The step.
        act: &'static str,
        /// Where it is mounted.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// nft refused our rules.
    #[error("{program} -f -: {reason}")]
    Nft {
        /// The program.
        program: String,
        /// What it said, or why it could not run.
        reason: String,
    },
    /// Every address of the subnet is taken.
    #[error("no free address in {subnet}")]
    AddressesExhausted {
        /// The subnet.
        subnet: String,
    },
    /// The function's process ended before it was ready.
    #[error(
        "the function's process ended{} before it was ready{}",
        status.map(|status| format!(" with status {status}")).unwrap_or_default(),
        killed.map(|cause| format!(": {cause}")).unwrap_or_default()
    )]
    Exited {
        /// Exit status, where containerd told; 129 and above is a signal.
        status: Option<u32>,
        /// What the kernel killed it for.
        killed: Option<&'static str>,
    },
    /// The function did not become ready in time.
    #[error("the function was not ready after {seconds} s: {last}")]
    NotReady {
        /// How long was waited.
        seconds: u64,
        /// The last probe's outcome.
        last: String,
    },
    /// The socket could not be listened on.
    #[error("listen on {address}: {source}")]
    Listen {
        /// Address and port.
        address: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// There are no more threads, or not what they need.
    #[error("start the threads for connections: {0}")]
    Threads(#[source] io::Error),
    /// The kernel does not tell us of signals.
    #[error("listen for signals: {source}")]
    Signals {
        /// The kernel's answer.
        source: io::Error,
    },
    /// A value from outside is wrong.
    #[error("{what} {reason}")]
    Invalid {
        /// What was given.
        what: String,
        /// What was expected.
        reason: String,
    },
}

/// Kinds of a registry's failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// It does not answer, or not to the end: the same question may be answered later.
    Away,
    /// It does not answer in time: asking again would take as long.
    Silent,
    /// It says no.
    Refused,
    /// What it gave is not what it should be.
    Wrong,
}

impl Error {
    /// A registry that was asked was not there, or not to the end.
    pub fn is_away(&self) -> bool {
        match self {
            Self::Registry { trouble, .. } => matches!(trouble, Trouble::Away | Trouble::Silent),
            Self::Registries { causes } => causes.iter().any(Self::is_away),
            _ => false,
        }
    }

    /// Asking the same registry again in a moment may be of use.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Registry { trouble: Trouble::Away, .. })
    }

    /// An image cannot be had, and it will be the same in a moment: somebody has to do something about it.
    pub fn is_lasting(&self) -> bool {
        match self {
            Self::Pull { lasting, .. } => *lasting,
            Self::Registry { .. } => !self.is_away(),
            Self::Registries { causes } => !self.is_away() && causes.iter().any(Self::is_lasting),
            Self::NoRoom { .. } | Self::ImagePlatform { .. } | Self::ImageUnusable { .. } => true,
            _ => false,
        }
    }

    /// containerd was not there, or went away: it comes back.
    pub fn is_containerd_away(&self) -> bool {
        match self {
            Self::Containerd { source, .. } => {
                let code = source.code();
                code == tonic::Code::Unavailable
                    || code == tonic::Code::Unknown && source.message() == "transport error"
            }
            Self::ContainerdSilent { .. } => true,
            _ => false,
        }
    }

    /// containerd says that bytes are not those of the digest or the length that was named.
    pub fn is_mismatch(&self) -> bool {
        matches!(self, Self::Containerd { source, .. } if source.code() == tonic::Code::FailedPrecondition)
    }

    /// containerd says that the object does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Containerd { source, .. } if source.code() == tonic::Code::NotFound)
    }

    /// containerd says that the object is there already.
    pub fn is_already_there(&self) -> bool {
        matches!(self, Self::Containerd { source, .. } if source.code() == tonic::Code::AlreadyExists)
    }
}

/// Turns "it was not there" into success: for removals, which only care about the end.
pub fn absent_is_fine(result: Result<()>) -> Result<()> {
    match result {
        Err(error) if error.is_not_found() => Ok(()),
        other => other,
    }
}

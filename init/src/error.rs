//! What can fail here. A variant is the act, its fields say on what; Display is one line.

use std::io;
use std::path::{Path, PathBuf};

/// Result of this crate.
pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

/// An act that failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Reading a file or folder.
    #[error("read {}: {source}", path.display())]
    Read {
        /// What was read.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Writing or making a file, folder or link.
    #[error("write {}: {source}", path.display())]
    Write {
        /// What was written.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Mounting, moving or unmounting.
    #[error("mount {what} on {target}: {source}")]
    Mount {
        /// Device or file system.
        what: String,
        /// Mount point.
        target: String,
        /// The system's answer.
        source: io::Error,
    },
    /// A control call on a device.
    #[error("{act} on {device}: {source}")]
    Control {
        /// What was asked of the device.
        act: &'static str,
        /// The device.
        device: String,
        /// The system's answer.
        source: io::Error,
    },
    /// Making, binding or using a socket.
    #[error("{act} {name}: {source}")]
    Socket {
        /// What was done.
        act: &'static str,
        /// Path or family.
        name: String,
        /// The system's answer.
        source: io::Error,
    },
    /// Loading a kernel module.
    #[error("load module {name}: {source}")]
    Module {
        /// The module, as it was asked for.
        name: String,
        /// The system's answer.
        source: io::Error,
    },
    /// Starting a program.
    #[error("start {program}: {source}")]
    Start {
        /// Path of the program.
        program: String,
        /// The system's answer.
        source: io::Error,
    },
    /// A helper program that ended badly.
    #[error("{program} ended with {status}: {output}")]
    Helper {
        /// Path of the program.
        program: String,
        /// Exit status or signal.
        status: String,
        /// The last of what it printed.
        output: String,
    },
    /// A helper program that did not end.
    #[error("{program} had not ended after {seconds} s")]
    HelperSlow {
        /// Path of the program.
        program: String,
        /// How long it was waited for.
        seconds: u64,
    },
    /// Finding the root partition.
    #[error("no partition carries the root hash {hash}; looked at: {seen}")]
    NoRoot {
        /// Root hash of the kernel's command line.
        hash: String,
        /// Each partition and what was found there.
        seen: String,
    },
    /// The kernel's command line lacks or garbles something.
    #[error("kernel command line: {0}")]
    CommandLine(String),
    /// Reading or extending the partition table.
    #[error("partition table of {disk}: {reason}")]
    Partitions {
        /// The disk.
        disk: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A network act.
    #[error("{act} on {link}: {reason}")]
    Network {
        /// What was done.
        act: &'static str,
        /// Link name, or `-`.
        link: String,
        /// The answer.
        reason: String,
    },
    /// Reaching another machine.
    #[error("{url}: {reason}")]
    Host {
        /// Its gateway.
        url: String,
        /// What went wrong.
        reason: String,
    },
    /// What a machine answered instead.
    #[error("{0}")]
    Answer(String),
    /// A command line that means nothing.
    #[error("{0}")]
    Usage(String),
    /// The supervisor's control socket gave no answer.
    #[error("ask the supervisor at {}: {source}", path.display())]
    Ask {
        /// Its socket.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

impl Error {
    /// [`Error::Read`] of `path`.
    pub(crate) fn read(path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Self {
        let path = path.as_ref().to_owned();
        move |source| Self::Read { path, source }
    }

    /// [`Error::Write`] of `path`.
    pub(crate) fn write(path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Self {
        let path = path.as_ref().to_owned();
        move |source| Self::Write { path, source }
    }

    /// [`Error::Control`] from the C library's last error.
    pub(crate) fn control(act: &'static str, device: impl Into<String>) -> Self {
        Self::Control { act, device: device.into(), source: io::Error::last_os_error() }
    }
}

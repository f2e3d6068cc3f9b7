//! What can go wrong with a virtual machine: a variant is the act that failed.

use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use super::Fault;

/// An act on a virtual machine that failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A program is not installed.
    #[error("{program} is not installed (Debian package {package})")]
    Missing {
        /// The program or file.
        program: String,
        /// The Debian package that has it.
        package: &'static str,
    },
    /// A program could not be started.
    #[error("start {program}: {source}")]
    Start {
        /// The program.
        program: String,
        /// Why it failed.
        source: io::Error,
    },
    /// A file, folder or socket could not be used.
    #[error("{act} {}: {source}", path.display())]
    File {
        /// What was tried, such as `copy` or `create`.
        act: &'static str,
        /// With what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// A disk image is not what it should be.
    #[error("disk {}: {reason}", path.display())]
    Disk {
        /// The disk image.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// QEMU ended while something was still expected of the machine.
    #[error("the machine ended ({status}){}{}", if stderr.is_empty() { "" } else { ": " }, stderr)]
    Ended {
        /// How QEMU ended.
        status: ExitStatus,
        /// What it said on standard error.
        stderr: String,
    },
    /// Something did not happen in time.
    #[error("waited {:.1} s for {what}; the console ends with:\n{tail}", waited.as_secs_f64())]
    Late {
        /// What was waited for.
        what: String,
        /// How long.
        waited: Duration,
        /// The last lines of the console.
        tail: String,
    },
    /// The emulator did what a real processor does not do. Run again, and count.
    #[error("the emulator failed, not the machine: {0}")]
    Emulator(Fault),
    /// The guest's kernel gave up.
    #[error("the kernel gave up: {line}\n{tail}")]
    Panic {
        /// The line that said so.
        line: String,
        /// The last lines of the console.
        tail: String,
    },
    /// QEMU's monitor refused or did not answer.
    #[error("monitor command {command}: {reason}")]
    Monitor {
        /// The command.
        command: String,
        /// What went wrong.
        reason: String,
    },
    /// An HTTP request got no answer.
    #[error("{method} {url}: {reason}")]
    Http {
        /// The method.
        method: String,
        /// The address.
        url: String,
        /// Why there was no answer.
        reason: String,
    },
    /// A request got another answer than it should.
    #[error("{what}: the gateway answered {status} {body}")]
    Refused {
        /// What was asked.
        what: String,
        /// The status code.
        status: u16,
        /// The body.
        body: String,
    },
    /// The shell at the console is not to be had.
    #[error("the machine's shell: {what}; the console ends with:\n{tail}")]
    Shell {
        /// What went wrong.
        what: String,
        /// The last lines of the console.
        tail: String,
    },
    /// The user does not want to wait any longer.
    #[error("interrupted")]
    Interrupted,
    /// The machine is in use by another process.
    #[error("{} is in use by another bothy", path.display())]
    InUse {
        /// The machine's folder.
        path: PathBuf,
    },
    /// Building or reading an image failed.
    #[error(transparent)]
    Image(#[from] crate::Error),
    /// A pattern to wait for is no regular expression.
    #[error("pattern {pattern}: {reason}")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl Error {
    /// For `map_err`: an error about a file.
    pub(crate) fn file(act: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { act, path, source }
    }

    /// A program could not be started; the usual reason is that it is not there.
    pub(crate) fn start(program: &str, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::NotFound => {
                Self::Missing { program: program.to_owned(), package: "qemu-system-x86" }
            }
            _ => Self::Start { program: program.to_owned(), source },
        }
    }

    /// Whether the emulator is to blame.
    pub fn fault(&self) -> Option<Fault> {
        match self {
            Self::Emulator(fault) => Some(*fault),
            _ => None,
        }
    }
}

//! What can go wrong, and the status that containerd is told.

use std::io;
use std::path::PathBuf;

use containerd_shim_protos::ttrpc;
use ttrpc::{Code, Error, get_status};

/// A request that failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// There is no such task.
    #[error("there is no task {0}")]
    Absent(String),
    /// There is one already.
    #[error("task {0} is there already")]
    Present(String),
    /// Its process has ended.
    #[error("the process of task {0} has ended")]
    Ended(String),
    /// Not in the state that the request needs.
    #[error("task {id} is {state}: {needs}")]
    State {
        /// The task.
        id: String,
        /// Its state.
        state: &'static str,
        /// What would help.
        needs: &'static str,
    },
    /// A request that this shim does not serve.
    #[error("{0}")]
    Refused(String),
    /// A file or a call of the kernel.
    #[error("{act} {}: {source}", path.display())]
    Io {
        /// What was tried, `open`.
        act: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The OCI runtime refused.
    #[error("{runtime} {command}: {reason}")]
    Runtime {
        /// The program.
        runtime: String,
        /// Its command.
        command: String,
        /// What it wrote.
        reason: String,
    },
}

impl Failure {
    /// For `map_err`: what was tried on which path.
    pub fn io(act: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { act, path, source }
    }

    /// The same for an error of nix.
    pub fn errno(act: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(nix::Error) -> Self {
        let path = path.into();
        move |errno| Self::Io { act, path, source: errno.into() }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        let code = match &failure {
            Failure::Absent(_) | Failure::Ended(_) => Code::NOT_FOUND,
            Failure::Present(_) => Code::ALREADY_EXISTS,
            Failure::State { .. } => Code::FAILED_PRECONDITION,
            Failure::Refused(_) => Code::UNIMPLEMENTED,
            Failure::Io { .. } | Failure::Runtime { .. } => Code::UNKNOWN,
        };
        Error::RpcStatus(get_status(code, failure.to_string()))
    }
}

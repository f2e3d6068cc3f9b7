//! What can go wrong while an image is built: a variant is the act that failed.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

/// The result of everything in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An act of the builder that failed, with what it was done to and why.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder could not be read.
    #[error("read {}: {source}", path.display())]
    Read {
        /// What was read.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// A file or folder could not be written.
    #[error("write {}: {source}", path.display())]
    Write {
        /// What was written.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// A program could not be started.
    #[error("start {program}: {source}")]
    Start {
        /// The program's name.
        program: String,
        /// Why it failed.
        source: io::Error,
    },
    /// A program ended with a failure.
    #[error("{program} failed ({status}): {}", stderr.trim())]
    Program {
        /// The program with its first arguments.
        program: String,
        /// How it ended.
        status: ExitStatus,
        /// The end of what it printed on standard error.
        stderr: String,
    },
    /// A recipe is not valid.
    #[error("recipe {}: {reason}", path.display())]
    Recipe {
        /// The recipe's file.
        path: PathBuf,
        /// What is wrong, with line and column where there is one.
        reason: String,
    },
    /// The package archive cannot be used as the recipe wants it.
    #[error("package archive: {0}")]
    Archive(String),
    /// A package file is damaged or of a kind that we do not read.
    #[error("unpack {}: {reason}", path.display())]
    Unpack {
        /// The package file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A file that the recipe asks for is in no package.
    #[error("package {package}: {reason}")]
    Package {
        /// The package's name.
        package: String,
        /// What is wrong.
        reason: String,
    },
    /// The file tree of the image does not hold together.
    #[error("root file system: {0}")]
    Tree(String),
    /// A format cannot hold what it was given, or what was read is not of that format.
    #[error("{format}: {reason}")]
    Format {
        /// The format's name.
        format: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// The machine that builds lacks a program.
    #[error("this machine lacks {missing}; {advice}")]
    HostTools {
        /// Packages that are missing.
        missing: String,
        /// What to do.
        advice: String,
    },
    /// A virtual machine could not be used.
    #[error("virtual machine: {0}")]
    Machine(String),
}

impl Error {
    /// For `map_err` on a read of `path`.
    pub fn read(path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Error {
        let path = path.as_ref().to_owned();
        move |source| Error::Read { path, source }
    }

    /// For `map_err` on a write of `path`.
    pub fn write(path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Error {
        let path = path.as_ref().to_owned();
        move |source| Error::Write { path, source }
    }

    /// A format error.
    pub fn format(format: &'static str, reason: impl Into<String>) -> Error {
        Error::Format { format, reason: reason.into() }
    }
}

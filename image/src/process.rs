//! Runs other programs: with a fixed environment, and with errors that say what they printed.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use crate::error::{Error, Result};

/// How much of a failed program's standard error an error message carries, in bytes.
const STDERR_TAIL: usize = 2000;

/// A short name for messages: the program and its first words.
fn label(command: &Command) -> String {
    let program = command.get_program().to_string_lossy();
    let program = program.rsplit('/').next().unwrap_or_default().to_owned();
    let words =
        command.get_args().map(|a| a.to_string_lossy().into_owned()).filter(|a| !a.starts_with('-')).take(2);
    std::iter::once(program).chain(words).collect::<Vec<_>>().join(" ")
}

fn checked(command: &Command, output: Output) -> Result<Vec<u8>> {
    if output.status.success() {
        return Ok(output.stdout);
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    let from = stderr.char_indices().rev().nth(STDERR_TAIL).map_or(0, |(i, _)| i);
    Err(Error::Program { program: label(command), status: output.status, stderr: stderr[from..].to_owned() })
}

/// Runs a program to its end and returns its standard output.
///
/// # Errors
/// It cannot be started, or ends with a failure.
pub fn output(command: &mut Command) -> Result<Vec<u8>> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|source| Error::Start { program: label(command), source })?;
    checked(command, output)
}

/// Runs a program that reads `input` on its standard input.
///
/// # Errors
/// It cannot be started, or ends with a failure.
pub fn feed(
    command: &mut Command,
    input: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
) -> Result<Vec<u8>> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|source| Error::Start { program: label(command), source })?;
    let fed = match child.stdin.take() {
        Some(mut stdin) => input(&mut stdin),
        None => Ok(()),
    };
    let output =
        child.wait_with_output().map_err(|source| Error::Start { program: label(command), source })?;
    let stdout = checked(command, output)?;
    fed.map_err(|source| Error::Start { program: format!("{} (its input)", label(command)), source })?;
    Ok(stdout)
}

//! The question before what cannot be taken back.

use std::io::IsTerminal;

use super::terminal::{self, Typed};
use crate::error::{Error, Result};

/// Whether somebody can be asked; `command` is what would ask.
pub(super) fn needs_terminal(command: &str) -> Result<()> {
    if std::io::stdin().is_terminal() {
        return Ok(());
    }
    Err(Error::Usage(format!("{command} asks at a terminal, or wants --yes")))
}

/// Asks. Everything but a yes is a no, and is said to be one.
pub(super) fn given(question: &str) -> bool {
    let typed = terminal::ask(&format!("{question} [y/N] "), None);
    let yes =
        matches!(typed, Typed::Line(line) if ["y", "yes"].contains(&line.trim().to_lowercase().as_str()));
    if !yes {
        eprintln!("bothyctl: nothing was done");
    }
    yes
}

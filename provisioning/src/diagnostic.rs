//! What is wrong with a file, where, and what was expected: for a person at a console.

use std::fmt;
use std::ops::Range;

/// One problem of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// The file, as the caller of [`parse`](crate::parse) named it.
    pub origin: String,
    /// Line, counted from 1.
    pub line: usize,
    /// Column in characters, counted from 1.
    pub column: usize,
    /// What is wrong and what was expected, in one line.
    pub message: String,
    /// What the writer probably wants to do about it.
    pub hint: Option<String>,
    /// The source line as it may be shown: passwords masked, control characters replaced, long ones cut.
    pub source: String,
    /// Where in `source` the problem lies, in characters.
    pub marked: Range<usize>,
}

impl Diagnostic {
    /// `file:line:col: message` without the source line: for logs and status lines.
    pub fn summary(&self) -> String {
        format!("{}:{}:{}: {}", self.origin, self.line, self.column, self.message)
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.line.to_string();
        let margin = " ".repeat(number.len());
        let blank = " ".repeat(self.marked.start);
        let carets = "^".repeat(self.marked.len().max(1));
        writeln!(f, "{}", self.summary())?;
        writeln!(f, "{margin} |\n{number} | {}\n{margin} | {blank}{carets}", self.source)?;
        match &self.hint {
            Some(hint) => writeln!(f, "{margin} = {hint}"),
            None => Ok(()),
        }
    }
}

/// All problems of a file, in the order of their places; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostics {
    pub(crate) found: Vec<Diagnostic>,
    pub(crate) omitted: usize,
}

impl Diagnostics {
    /// One problem of the file as a whole.
    pub(crate) fn whole(origin: &str, message: String) -> Self {
        let origin = origin.to_owned();
        let source = String::new();
        let one = Diagnostic { origin, line: 1, column: 1, message, hint: None, source, marked: 0..1 };
        Self { found: vec![one], omitted: 0 }
    }

    /// The problems, by line.
    pub fn iter(&self) -> std::slice::Iter<'_, Diagnostic> {
        self.found.iter()
    }

    /// How many problems the file has, those included that are not listed.
    pub fn count(&self) -> usize {
        self.found.len() + self.omitted
    }

    /// The first problem in one line, and how many more there are: for a status line.
    pub fn summary(&self) -> String {
        let first = self.found.first().map(Diagnostic::summary).unwrap_or_default();
        match self.count() {
            0 | 1 => first,
            2 => format!("{first} (and 1 more problem)"),
            count => format!("{first} (and {} more problems)", count - 1),
        }
    }
}

impl<'d> IntoIterator for &'d Diagnostics {
    type Item = &'d Diagnostic;
    type IntoIter = std::slice::Iter<'d, Diagnostic>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for diagnostic in &self.found {
            write!(f, "{diagnostic}")?;
        }
        match self.omitted {
            0 => Ok(()),
            1 => writeln!(f, "and 1 more problem"),
            more => writeln!(f, "and {more} more problems"),
        }
    }
}

impl std::error::Error for Diagnostics {}

//! Collects the problems of a text while it is read, and makes of each what a person may see.

use std::collections::BTreeSet;
use std::ops::Range;

use crate::{Diagnostic, Diagnostics};

/// How many problems of one file are listed; the rest is counted. A file of noise must not fill a console.
const MOST: usize = 20;

/// Longest piece of a source line that is shown, in characters.
const WIDEST: usize = 96;

/// A problem before it is rendered.
struct Problem {
    /// Bytes of the text.
    place: Range<usize>,
    message: String,
    hint: Option<String>,
    /// Whether it says that something is absent: not to be believed of a text whose syntax is broken.
    absence: bool,
}

/// Collects problems while a text is read.
pub(crate) struct Report<'t> {
    text: &'t str,
    origin: &'t str,
    /// Where each line but the first starts, in bytes.
    starts: Vec<usize>,
    problems: Vec<Problem>,
    secrets: Vec<Range<usize>>,
}

impl<'t> Report<'t> {
    pub(crate) fn new(text: &'t str, origin: &'t str) -> Self {
        let starts = text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(at, _)| at + 1).collect();
        Self { text, origin, starts, problems: Vec::new(), secrets: Vec::new() }
    }

    /// Records a problem at a place of the text (in bytes).
    pub(crate) fn problem(&mut self, place: Range<usize>, message: impl Into<String>, hint: Option<String>) {
        self.problems.push(Problem { place, message: message.into(), hint, absence: false });
    }

    /// Records that something is absent, at the place where it should be.
    pub(crate) fn absence(&mut self, place: Range<usize>, message: impl Into<String>, hint: Option<String>) {
        self.problems.push(Problem { place, message: message.into(), hint, absence: true });
    }

    /// Marks a place that no message may show.
    pub(crate) fn hide(&mut self, place: Range<usize>) {
        self.secrets.push(place);
    }

    /// Whether there are already so many problems that another hint will not be read.
    pub(crate) fn is_flooded(&self) -> bool {
        self.problems.len() > 10 * MOST
    }

    /// Drops what may only follow from the first `errors` problems, which are those of the syntax: after one of them
    /// the reader guesses on, so what is then absent, or wrong on the same line, is perhaps only its guess.
    pub(crate) fn drop_consequences(&mut self, errors: usize) {
        let broken: BTreeSet<usize> =
            self.problems.iter().take(errors).map(|p| self.line(p.place.start)).collect();
        let late = self.problems.split_off(errors.min(self.problems.len()));
        // A `[table]` line that cannot be read gives its keys to the table before it.
        let is_header = |line: usize| self.raw(line).trim_start().starts_with('[');
        let lost = broken.iter().copied().find(|line| is_header(*line)).unwrap_or(usize::MAX);
        let own = |problem: &Problem| {
            let line = self.line(problem.place.start);
            !problem.absence && !broken.contains(&line) && line < lost
        };
        let own: Vec<Problem> = late.into_iter().filter(own).collect();
        self.problems.extend(own);
    }

    /// Nothing, or every problem with its place, in the order of the places.
    pub(crate) fn finish(mut self) -> Result<(), Diagnostics> {
        if self.problems.is_empty() {
            return Ok(());
        }
        self.problems.sort_by_key(|problem| problem.place.start);
        let omitted = self.problems.len().saturating_sub(MOST);
        let found = self.problems.iter().take(MOST).map(|problem| self.diagnostic(problem)).collect();
        Err(Diagnostics { found, omitted })
    }

    /// The line (from 1) of a byte of the text.
    fn line(&self, at: usize) -> usize {
        self.starts.partition_point(|start| *start <= at) + 1
    }

    /// Where a line (from 1) starts, in bytes.
    fn start(&self, line: usize) -> usize {
        line.checked_sub(2).and_then(|line| self.starts.get(line)).copied().unwrap_or(0)
    }

    /// A line (from 1) without its end.
    fn raw(&self, line: usize) -> &'t str {
        let rest = self.text.get(self.start(line)..).unwrap_or_default();
        let raw = rest.split('\n').next().unwrap_or_default();
        raw.strip_suffix('\r').unwrap_or(raw)
    }

    /// The text before a byte; before the character that the byte is in the middle of.
    fn before(&self, at: usize) -> &str {
        let at = (0..=at.min(self.text.len())).rev().find(|at| self.text.is_char_boundary(*at)).unwrap_or(0);
        self.text.get(..at).unwrap_or_default()
    }

    fn diagnostic(&self, problem: &Problem) -> Diagnostic {
        let place = &problem.place;
        let line = self.line(place.start);
        let (start, raw) = (self.start(line), self.raw(line));
        let shown = self.shown(start, raw);
        let width = |end: usize| self.before(end).get(start..).unwrap_or_default().chars().count();
        let skipped = width(place.start);
        let length = width(place.end.min(start + raw.len())).saturating_sub(skipped).max(1);
        let (source, cut) = window(&shown, skipped);
        let from = skipped - cut;
        let until = (from + length).min(source.chars().count()).max(from + 1);
        Diagnostic {
            origin: self.origin.to_owned(),
            line,
            column: skipped + 1,
            message: problem.message.chars().map(printable).collect(),
            hint: problem.hint.clone(),
            source,
            marked: from..until,
        }
    }

    /// A line as it may be shown: one character for one character, so that the caret stays right.
    fn shown(&self, start: usize, raw: &str) -> Vec<char> {
        // A password that could not even be read as a value has no place of its own: hide by the key's name.
        let lower = raw.to_ascii_lowercase();
        let named = lower.find("password").and_then(|at| raw.get(at..)?.find('=').map(|equals| at + equals));
        // A user and a password before an address's host (RFC 3986, 3.2.1).
        let userinfo = raw.find("://").and_then(|start| Some(start + 3..raw.rfind('@')?));
        let hidden = |at: usize| {
            userinfo.as_ref().is_some_and(|userinfo| userinfo.contains(&at))
                || named.is_some_and(|equals| at > equals)
                || self.secrets.iter().any(|secret| secret.contains(&(start + at)))
        };
        raw.char_indices()
            .map(|(at, c)| match c {
                ' ' | '"' | '\'' | '\t' => printable(c),
                _ if hidden(at) => '*',
                _ => printable(c),
            })
            .collect()
    }
}

/// A tab becomes a space, what a terminal would obey or hide becomes `?`.
fn printable(c: char) -> char {
    let invisible =
        matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    match c {
        '\t' => ' ',
        _ if c.is_control() || invisible => '?',
        _ => c,
    }
}

/// The part of a line around a column, and how many characters were cut off before it.
fn window(line: &[char], column: usize) -> (String, usize) {
    let cut =
        if line.len() <= WIDEST { 0 } else { column.saturating_sub(WIDEST / 2).min(line.len() - WIDEST) };
    (line.iter().skip(cut).take(WIDEST).collect(), cut)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(text: &str, place: Range<usize>) -> String {
        let mut report = Report::new(text, "f");
        report.problem(place, "wrong", None);
        report.finish().unwrap_err().to_string()
    }

    #[test]
    fn caret_stands_under_the_place() {
        assert_eq!(rendered("a\nbcd ef\n", 6..8), "f:2:5: wrong\n  |\n2 | bcd ef\n  |     ^^\n");
        assert_eq!(
            rendered("ä = \"ö\" x\r\n", 10..11),
            "f:1:9: wrong\n  |\n1 | ä = \"ö\" x\n  |         ^\n"
        );
    }

    #[test]
    fn end_of_the_text_has_a_place() {
        assert_eq!(rendered("a\n", 2..2), "f:2:1: wrong\n  |\n2 | \n  | ^\n");
        assert_eq!(rendered("", 0..0), "f:1:1: wrong\n  |\n1 | \n  | ^\n");
        assert_eq!(rendered("a", 77..99), "f:1:2: wrong\n  |\n1 | a\n  |  ^\n");
    }

    #[test]
    fn long_lines_are_cut_around_the_place() {
        let text = format!("{}X{}", "a".repeat(500), "b".repeat(500));
        let shown = rendered(&text, 500..501);
        assert!(shown.starts_with("f:1:501: wrong\n"));
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines[2].chars().position(|c| c == 'X'), lines[3].chars().position(|c| c == '^'));
        assert!(lines[2].chars().count() <= WIDEST + 4);
    }

    #[test]
    fn nothing_dangerous_reaches_a_terminal() {
        let shown = rendered("a\u{1b}[2Jb\u{202e}", 0..1);
        assert!(!shown.contains('\u{1b}') && !shown.contains('\u{202e}'));
    }

    #[test]
    fn passwords_are_masked() {
        let shown = rendered("gateway.password = \"swordfish", 19..20);
        assert!(!shown.contains("swordfish"), "{shown}");
        assert!(shown.contains("gateway.password = \"*********"), "{shown}");
    }

    #[test]
    fn a_user_in_an_address_is_masked() {
        let shown = rendered("urll = \"nats://me:swordfish@a,nats://me:sword@fish@b\"", 0..4);
        assert!(shown.contains("nats://***********************************@b\""), "{shown}");
        assert!(rendered("me@example.org, http://a\"", 0..1).contains("me@example.org, http://a"));
    }

    #[test]
    fn noise_is_counted_not_listed() {
        let mut report = Report::new("x", "f");
        (0..50).for_each(|_| report.problem(0..1, "wrong", None));
        let all = report.finish().unwrap_err();
        assert_eq!((all.iter().count(), all.count()), (MOST, 50));
        assert!(all.to_string().ends_with("and 30 more problems\n"));
        assert_eq!(all.summary(), "f:1:1: wrong (and 49 more problems)");
    }
}

//! A root shell on a machine's serial console: the debug flavour's, behind the login.
//!
//! Kernel and supervisor write to the same console, at any moment. So a command's output is kept in a file on the
//! machine and comes as base64 in marked lines with a digest, and once more where the digest does not fit.

use std::time::Duration;

use regex_lite::Regex;

use super::console::Line;
use super::{Error, Mark, Result, Running};
use crate::digest;

/// How long a command may take, unless said otherwise.
pub const SHELL_LIMIT: Duration = Duration::from_secs(60);
/// How long each step of a login may take, emulated and on a busy host.
const LOGIN_LIMIT: Duration = Duration::from_secs(60);
/// A terminal takes lines of 4095 bytes; a quote in a command becomes four.
const CHUNK_BYTES: usize = 512;
/// How often an output is asked for that came damaged.
const TRIES: usize = 4;

/// What a command did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shell {
    /// Its exit status; 128 and more: a signal's number above that.
    pub status: i32,
    /// Standard output and error, in the order of writing. What is no UTF-8 is replaced.
    pub output: String,
}

/// A session on the console.
#[derive(Debug)]
pub(super) struct Session {
    user: String,
    password: String,
    /// Where it began, while somebody is in.
    since: Option<Mark>,
    /// Number of the last command.
    last: u32,
}

impl Session {
    pub(super) fn new(user: &str, password: &str) -> Self {
        Self { user: user.to_owned(), password: password.to_owned(), since: None, last: 0 }
    }
}

impl Running {
    /// Says who logs in at the console.
    pub fn log_in_as(&mut self, user: &str, password: &str) {
        self.session = Session::new(user, password);
    }

    /// Runs a command line as root in the machine's shell, after a login where one is needed. Only in the debug flavour.
    /// Every command has a shell of its own, without input; what it leaves in the background goes on.
    ///
    /// # Errors
    /// Nobody can log in, or the command did not end within [`SHELL_LIMIT`].
    pub fn shell(&mut self, command: &str) -> Result<Shell> {
        self.shell_within(command, SHELL_LIMIT)
    }

    /// The same with another limit.
    ///
    /// # Errors
    /// As [`Running::shell`].
    pub fn shell_within(&mut self, command: &str, limit: Duration) -> Result<Shell> {
        // Once more where the session had gone: what was typed then was taken for a user's name.
        for _ in 0..2 {
            if self.session.since.is_none_or(|since| has_restarted(&self.console().lines(since))) {
                self.log_in()?;
            }
            self.session.last += 1;
            let number = self.session.last;
            let mark = self.console().mark();
            for line in assignment(command) {
                self.console().send(line.as_bytes())?;
            }
            let run = format!(
                "(eval \"$c\") >/run/shell.out 2>&1 </dev/null; s=$?; {}",
                report(number, "/run/shell.out")
            );
            self.console().send(run.as_bytes())?;
            let end = format!("@{number}=[0-9]+ [0-9a-f]{{64}}|login refused");
            let line = self.wait_since(&end, mark, limit)?;
            if !line.text.contains("login refused") {
                return self.collect(number, mark, &line);
            }
            self.session.since = None;
            self.wait_since("type a user name", mark, LOGIN_LIMIT)?;
        }
        Err(lost("the session at the console ended twice", self))
    }

    /// Puts a report together, or asks for it again.
    fn collect(&mut self, number: u32, mut mark: Mark, end: &Line) -> Result<Shell> {
        let (mut number, mut end) = (number, end.clone());
        for _ in 0..TRIES {
            if let Some(shell) = decode(&self.console().lines(mark), number, &end.text) {
                return Ok(shell);
            }
            self.session.last += 1;
            number = self.session.last;
            mark = self.console().mark();
            self.console().send(report(number, "/run/shell.out").as_bytes())?;
            end = self.wait_since(&format!("@{number}=[0-9]+ [0-9a-f]{{64}}"), mark, LOGIN_LIMIT)?;
        }
        Err(lost("a command's output came damaged again and again", self))
    }

    fn log_in(&mut self) -> Result<()> {
        self.session.since = None;
        let mark = self.console().mark();
        self.console().send(format!("{}\n", self.session.user).as_bytes())?;
        self.wait_since("password: ", mark, LOGIN_LIMIT)?;
        let mark = self.console().mark();
        self.console().send(format!("{}\n", self.session.password).as_bytes())?;
        let line = self.wait_since("bothyctl> |login refused|nobody can log in", mark, LOGIN_LIMIT)?;
        if !line.text.contains("bothyctl> ") {
            return Err(lost(&line.text, self));
        }
        let mark = self.console().mark();
        self.console().send(b"shell\n")?;
        let line = self.wait_since(":~# |no shell in this image", mark, LOGIN_LIMIT)?;
        if !line.text.contains(":~# ") {
            return Err(lost(&line.text, self));
        }
        let mark = self.console().mark();
        // One that reads lines as a script: no echo, no prompt, no editing. Echoed, the word is in two parts.
        self.console().send(b"stty -echo; echo '@'ready; exec sh /dev/tty\n")?;
        self.wait_since("@ready", mark, LOGIN_LIMIT)?;
        self.session.since = Some(mark);
        Ok(())
    }

    fn wait_since(&mut self, pattern: &str, mark: Mark, limit: Duration) -> Result<Line> {
        let waited = self.console().wait(pattern, mark, limit);
        self.explain(waited)
    }
}

fn lost(what: &str, running: &Running) -> Error {
    Error::Shell { what: what.to_owned(), tail: running.console().tail(20) }
}

/// Lines that put a command into the variable `c`.
fn assignment(command: &str) -> Vec<String> {
    let mut lines = vec!["c=\n".to_owned()];
    let mut chunk = String::new();
    for letter in command.chars() {
        match letter {
            '\'' => chunk.push_str("'\\''"),
            letter => chunk.push(letter),
        }
        if chunk.len() >= CHUNK_BYTES {
            lines.push(format!("c=\"$c\"'{}'\n", std::mem::take(&mut chunk)));
        }
    }
    lines.push(format!("c=\"$c\"'{chunk}'\n"));
    lines
}

/// The line that shows a file's content and the variable `s`; its last part twice, in case something gets in between.
fn report(number: u32, path: &str) -> String {
    format!(
        "base64 -w 76 {path} | sed 's/^/@{number}:/'; h=$(sha256sum <{path} | cut -c1-64); \
         echo \"@{number}=$s $h\"; echo \"@{number}=$s $h\"\n"
    )
}

/// What a report says; `None`: it came damaged.
fn decode(lines: &[Line], number: u32, end: &str) -> Option<Shell> {
    let (_, end) = end.split_once(&format!("@{number}="))?;
    let (status, hash) = end.split_once(' ')?;
    let prefix = format!("@{number}:");
    let coded: String = lines.iter().filter_map(|line| line.text.strip_prefix(&prefix)).collect();
    let bytes = base64(coded.as_bytes())?;
    let fits = digest::hex(&bytes) == hash.get(..64)?;
    fits.then_some(Shell {
        status: status.parse().ok()?,
        output: String::from_utf8_lossy(&bytes).into_owned(),
    })
}

/// Whether the machine began anew meanwhile: its supervisor's lines carry the kernel's clock.
fn has_restarted(lines: &[Line]) -> bool {
    let Ok(clock) = Regex::new(r"^bothy: \[ *([0-9]+\.[0-9]+)\]") else { return false };
    let times =
        lines.iter().filter_map(|line| clock.captures(&line.text)?.get(1)?.as_str().parse::<f64>().ok());
    let times: Vec<f64> = times.collect();
    times.windows(2).any(|pair| matches!(pair, [before, after] if after < before))
}

/// RFC 4648 section 4, backwards.
fn base64(text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    for group in text.chunks(4) {
        let padding = group.iter().rev().take_while(|letter| **letter == b'=').count();
        let mut word = 0_u32;
        for letter in group {
            let value = match letter {
                b'A'..=b'Z' => letter - b'A',
                b'a'..=b'z' => letter - b'a' + 26,
                b'0'..=b'9' => letter - b'0' + 52,
                b'+' => 62,
                b'/' => 63,
                b'=' => 0,
                _ => return None,
            };
            word = word << 6 | u32::from(value);
        }
        if group.len() != 4 || padding > 2 {
            return None;
        }
        bytes.extend(word.to_be_bytes().get(1..4 - padding)?);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(texts: &[&str]) -> Vec<Line> {
        texts.iter().map(|text| Line { text: (*text).to_owned(), at: Duration::ZERO }).collect()
    }

    #[test]
    fn a_report_is_taken_only_whole() {
        // sha256 of "a\n".
        let end = "x@3=7 87428fc522803d31065e7bce3cf03fe475096631e5e07bbd7a0fde60c4cf25c7";
        let shell = Shell { status: 7, output: "a\n".to_owned() };
        assert_eq!(decode(&lines(&["noise", "@3:YQo=", "@2:YQo=", end]), 3, end), Some(shell));
        assert_eq!(decode(&lines(&["@3:YQ[ 1.0] kernel", "o=", end]), 3, end), None);
        assert_eq!(decode(&lines(&[end]), 3, end), None);
    }

    #[test]
    fn base64_of_rfc_4648() {
        for (plain, coded) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(base64(coded.as_bytes()).as_deref(), Some(plain.as_bytes()));
        }
        assert_eq!(base64(b"Zm9"), None);
        assert_eq!(base64(b"Zm9 "), None);
    }

    /// The lines mean what they should to a real shell.
    #[test]
    fn long_commands_with_quotes_arrive() {
        let command = format!("printf %s \"it's\" '{}'; echo; exit 3", "ab\n'\\''".repeat(300));
        let script: String = assignment(&command).concat() + "(eval \"$c\")\nexit $?\n";
        assert!(script.lines().all(|line| line.len() < 4095));
        let ours = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
        let plain = std::process::Command::new("sh").args(["-c", &command]).output().unwrap();
        assert_eq!(ours.status.code(), Some(3));
        assert_eq!(ours.stdout, plain.stdout);
        assert!(ours.stdout.len() > 1000);
    }

    #[test]
    fn a_clock_that_goes_back_is_a_restart() {
        assert!(!has_restarted(&lines(&["bothy: [  9.10] a", "[ 1.0] kernel", "bothy: [ 10.00] b"])));
        assert!(has_restarted(&lines(&["bothy: [ 99.10] a", "bothy: [  1.20] clock up"])));
    }
}

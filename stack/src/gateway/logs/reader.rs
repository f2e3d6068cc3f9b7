//! A journalctl that runs, and its output by lines.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::process::{ExitStatus, Stdio};

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};

/// Longest line that is kept, in bytes: a part of a function's line (48 KiB), each byte of it as a number, has less than
/// half of that.
const LONGEST: usize = 512 << 10;

/// Bytes read at once.
const PIECE: usize = 32 << 10;

/// One of journalctl's lines.
#[derive(Debug, PartialEq, Eq)]
pub enum Line {
    /// Without its newline.
    Whole(Vec<u8>),
    /// Longer than anything of ours; it was passed over.
    TooLong,
    /// There are no more.
    End,
}

/// Dropped, it ends its process.
pub struct Reader {
    child: Child,
    output: Lines<BufReader<ChildStdout>>,
}

impl Reader {
    /// Starts it. What it complains of goes where our own complaints go.
    pub fn start(program: &Path, arguments: Vec<OsString>) -> io::Result<Self> {
        let mut command = Command::new(program);
        command.args(arguments).env_clear().env("PATH", "/usr/bin:/bin").env("LC_ALL", "C.UTF-8");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn()?;
        if let Some(pid) = child.id() {
            // Where memory is short its client may ask again; we are worth more. Without it, it is as dear as we are.
            let _ = std::fs::write(format!("/proc/{pid}/oom_score_adj"), "0");
        }
        let output = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        Ok(Self { child, output: Lines::new(BufReader::with_capacity(PIECE, output)) })
    }

    /// The next line. Nothing is lost where the wait for it is given up.
    pub async fn next(&mut self) -> io::Result<Line> {
        self.output.next().await
    }

    /// Waits for its end.
    pub async fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }
}

/// Bytes by lines, each of a bounded length.
struct Lines<R> {
    input: R,
    line: Vec<u8>,
    /// The line is too long: the rest of it is passed over.
    skipping: bool,
}

impl<R: tokio::io::AsyncBufRead + Unpin> Lines<R> {
    fn new(input: R) -> Self {
        Self { input, line: Vec::new(), skipping: false }
    }

    async fn next(&mut self) -> io::Result<Line> {
        loop {
            let bytes = self.input.fill_buf().await?;
            if bytes.is_empty() {
                // One without a newline was cut off.
                return Ok(if self.line.is_empty() && !self.skipping { Line::End } else { self.take() });
            }
            let end = bytes.iter().position(|byte| *byte == b'\n');
            let part = bytes.get(..end.unwrap_or(bytes.len())).unwrap_or_default();
            if self.skipping || self.line.len() + part.len() > LONGEST {
                self.skipping = true;
                self.line = Vec::new();
            } else {
                self.line.extend_from_slice(part);
            }
            let used = part.len() + usize::from(end.is_some());
            self.input.consume(used);
            if end.is_some() {
                return Ok(self.take());
            }
        }
    }

    fn take(&mut self) -> Line {
        let line = std::mem::take(&mut self.line);
        if std::mem::take(&mut self.skipping) { Line::TooLong } else { Line::Whole(line) }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    async fn all(input: &[u8], piece: usize) -> Vec<Line> {
        let mut lines = Lines::new(BufReader::with_capacity(piece, input));
        let mut found = Vec::new();
        loop {
            match lines.next().await.unwrap() {
                Line::End => return found,
                line => found.push(line),
            }
        }
    }

    #[tokio::test]
    async fn a_line_that_is_too_long_is_passed_over() {
        let whole = |text: &[u8]| Line::Whole(text.to_vec());
        assert_eq!(all(b"a\n\nb", 2).await, [whole(b"a"), whole(b""), whole(b"b")]);
        let exact = vec![b'x'; LONGEST];
        let input = [&exact[..], b"\n", &exact[..], b"y\nz\n"].concat();
        assert_eq!(all(&input, PIECE).await, [Line::Whole(exact), Line::TooLong, whole(b"z")]);
        assert_eq!(all(&vec![b'x'; LONGEST + 1], PIECE).await, [Line::TooLong]);
    }

    #[tokio::test]
    async fn its_process_ends_with_it() {
        let words = ["-c", "echo; exec sleep 1000"].map(OsString::from).into();
        let mut reader = Reader::start(Path::new("/bin/sh"), words).unwrap();
        assert_eq!(reader.next().await.unwrap(), Line::Whole(Vec::new()));
        let process = format!("/proc/{}/stat", reader.child.id().unwrap());
        drop(reader);
        let end = std::time::Instant::now() + Duration::from_secs(30);
        // Reaped too.
        while Path::new(&process).exists() {
            assert!(std::time::Instant::now() < end, "{process} is still there");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    proptest! {
        #[test]
        fn nothing_is_lost(input in "[ab\n]{0,60}", piece in 1usize..9) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let found = runtime.block_on(all(input.as_bytes(), piece));
            let wanted: Vec<_> = input.lines().map(|line| Line::Whole(line.as_bytes().to_vec())).collect();
            prop_assert_eq!(found, wanted);
        }
    }
}

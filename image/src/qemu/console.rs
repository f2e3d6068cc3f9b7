//! A machine's serial console: kept whole in a file, read by lines, waited for, typed at.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use regex_lite::Regex;

use super::fault::{Trouble, Watch};
use super::plain::Plain;
use super::{Error, Result};

/// How long an unfinished line must not grow to count as a prompt.
const SETTLED: Duration = Duration::from_millis(200);

/// A line of the console, without escape sequences.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Its text.
    pub text: String,
    /// When its end arrived, counted from the start of QEMU.
    pub at: Duration,
}

/// A place in the console's output: "from here on".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Mark(usize);

/// The console of one machine.
pub struct Console {
    shared: Arc<Shared>,
    input: Mutex<UnixStream>,
    log: PathBuf,
    reader: Option<JoinHandle<()>>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    plain: Plain,
    lines: Vec<Line>,
    /// When something last arrived, counted from the start of QEMU.
    last: Duration,
    /// The same by our clock.
    touched: Instant,
    watch: Watch,
    trouble: Option<Trouble>,
    /// Whether the kernel's end is what is wanted.
    excused: bool,
    closed: bool,
    follower: Option<Box<dyn Write + Send>>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // A panic in a thread that only reads leaves nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Console {
    /// Reads `stream` from now on, into the file `log` and into memory. `began` is when QEMU was started.
    pub(crate) fn attach(stream: UnixStream, log: &Path, began: Instant, emulated: bool) -> Result<Self> {
        let mut file = File::create(log).map_err(Error::file("create", log))?;
        let mut output = stream.try_clone().map_err(Error::file("read", "the console's socket"))?;
        let state = State {
            plain: Plain::default(),
            lines: Vec::new(),
            last: Duration::ZERO,
            touched: began,
            watch: Watch::default(),
            trouble: None,
            excused: false,
            closed: false,
            follower: None,
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        let theirs = Arc::clone(&shared);
        let reader = std::thread::spawn(move || {
            let mut piece = [0; 4096];
            // Whatever ends the reading, an end of file or an error, means that the machine's side is gone.
            while let Ok(n @ 1..) = output.read(&mut piece) {
                let bytes = piece.get(..n).unwrap_or_default();
                // A full disk loses the log, not the machine.
                let _ = file.write_all(bytes);
                theirs.state().take(bytes, began.elapsed(), emulated);
                theirs.changed.notify_all();
            }
            theirs.state().closed = true;
            theirs.changed.notify_all();
        });
        Ok(Self { shared, input: Mutex::new(stream), log: log.to_owned(), reader: Some(reader) })
    }

    /// The file that has all of it, byte for byte.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Here: what is printed from now on lies behind it.
    pub fn mark(&self) -> Mark {
        Mark(self.shared.state().lines.len())
    }

    /// All lines since a mark.
    pub fn lines(&self, since: Mark) -> Vec<Line> {
        self.shared.state().lines.iter().skip(since.0).cloned().collect()
    }

    /// The last lines, for messages.
    pub fn tail(&self, count: usize) -> String {
        let state = self.shared.state();
        let from = state.lines.len().saturating_sub(count);
        let mut tail: Vec<String> =
            state.lines.iter().skip(from).map(|line| format!("  {}", line.text)).collect();
        if !state.plain.rest().is_empty() {
            tail.push(format!("  {}", state.plain.rest()));
        }
        tail.join("\n")
    }

    /// Whether the machine's side is gone.
    pub fn is_closed(&self) -> bool {
        self.shared.state().closed
    }

    /// Fails when the kernel gave up, by its own fault or the emulator's.
    ///
    /// # Errors
    /// [`Error::Emulator`], [`Error::Panic`].
    pub fn check(&self) -> Result<()> {
        let trouble = self.shared.state().trouble.clone();
        match trouble {
            None => Ok(()),
            Some(Trouble::Emulator(fault)) => Err(Error::Emulator(fault)),
            Some(Trouble::Panic(line)) => Err(Error::Panic { line, tail: self.tail(20) }),
        }
    }

    /// From now on the kernel may give up: a test makes it, and waits for its return. Or no longer.
    pub fn excuse_panics(&self, excused: bool) {
        self.shared.state().excused = excused;
    }

    /// The first line since a mark that a regular expression matches; an unfinished line counts, prompts are such.
    ///
    /// # Errors
    /// The pattern is none.
    pub fn find(&self, pattern: &str, since: Mark) -> Result<Option<Line>> {
        let regex = regex(pattern)?;
        Ok(self.shared.state().find(&regex, since).map(|(line, _)| line))
    }

    /// Waits until a line since a mark matches a regular expression.
    ///
    /// # Errors
    /// It did not happen in time, the kernel gave up, or the machine's side is gone.
    pub fn wait(&self, pattern: &str, since: Mark, limit: Duration) -> Result<Line> {
        let regex = regex(pattern)?;
        let began = Instant::now();
        let mut state = self.shared.state();
        loop {
            let waited = began.elapsed();
            let mut next = limit.saturating_sub(waited);
            if let Some((line, whole)) = state.find(&regex, since) {
                // A match in an unfinished line may be a prompt, or half of a line whose rest is on its way.
                let quiet = state.touched.elapsed();
                if whole || state.closed || quiet >= SETTLED {
                    return Ok(line);
                }
                next = SETTLED - quiet;
            }
            if state.trouble.is_some() || state.closed || next.is_zero() {
                drop(state);
                self.check()?;
                let what = format!("`{pattern}` on the console");
                return Err(Error::Late { what, waited, tail: self.tail(20) });
            }
            state = match self.shared.changed.wait_timeout(state, next) {
                Ok((state, _)) => state,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
    }

    /// Types at the console.
    ///
    /// # Errors
    /// The machine's side is gone.
    pub fn send(&self, bytes: &[u8]) -> Result<()> {
        let mut input = self.input.lock().unwrap_or_else(PoisonError::into_inner);
        input.write_all(bytes).map_err(Error::file("write", "the console's socket"))
    }

    /// Copies everything that is printed from now on to `sink`, byte for byte.
    pub fn follow(&self, sink: impl Write + Send + 'static) {
        self.shared.state().follower = Some(Box::new(sink));
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        let input = self.input.get_mut().unwrap_or_else(PoisonError::into_inner);
        let _ = input.shutdown(std::net::Shutdown::Both);
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

impl State {
    fn take(&mut self, bytes: &[u8], at: Duration, emulated: bool) {
        if let Some(follower) = &mut self.follower {
            let written = follower.write_all(bytes).and_then(|()| follower.flush());
            if written.is_err() {
                self.follower = None;
            }
        }
        self.last = at;
        self.touched = Instant::now();
        for text in self.plain.feed(bytes) {
            if self.trouble.is_none() {
                let trouble = self.watch.line(&text, emulated);
                self.trouble = trouble.filter(|it| !(self.excused && matches!(it, Trouble::Panic(_))));
            }
            self.lines.push(Line { text, at });
        }
    }

    /// The first line that matches, and whether it is whole.
    fn find(&self, regex: &Regex, since: Mark) -> Option<(Line, bool)> {
        let whole = self.lines.iter().skip(since.0).find(|line| regex.is_match(&line.text));
        whole.map(|line| (line.clone(), true)).or_else(|| {
            let rest = self.plain.rest();
            (!rest.is_empty() && regex.is_match(&rest)).then_some((Line { text: rest, at: self.last }, false))
        })
    }
}

fn regex(pattern: &str) -> Result<Regex> {
    Regex::new(pattern)
        .map_err(|error| Error::Pattern { pattern: pattern.to_owned(), reason: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::qemu::Fault;

    const LONG: Duration = Duration::from_secs(10);
    const SHORT: Duration = Duration::from_millis(50);

    fn console() -> (Console, UnixStream, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        let console = Console::attach(ours, &folder.path().join("log"), Instant::now(), true).unwrap();
        (console, theirs, folder)
    }

    #[test]
    fn waits_for_lines_and_prompts_and_types() {
        let (console, mut guest, folder) = console();
        guest.write_all(b"one\r\n\x1b[1mtwo\x1b[0m 22\r\nlogin: ").unwrap();
        assert_eq!(console.wait("^two [0-9]+$", Mark::default(), LONG).unwrap().text, "two 22");
        assert_eq!(console.wait("^login: $", Mark::default(), LONG).unwrap().text, "login: ");
        let mark = console.mark();
        console.send(b"root\n").unwrap();
        let mut typed = [0; 5];
        guest.read_exact(&mut typed).unwrap();
        assert_eq!(&typed, b"root\n");
        assert!(console.find("one", mark).unwrap().is_none());
        guest.write_all(b"\nthree\n").unwrap();
        assert_eq!(console.wait("three", mark, LONG).unwrap().text, "three");
        drop(console);
        let log = std::fs::read(folder.path().join("log")).unwrap();
        assert!(log.starts_with(b"one\r\n\x1b[1mtwo"));
    }

    #[test]
    fn says_what_it_waited_for_and_what_the_console_shows() {
        let (console, mut guest, _folder) = console();
        guest.write_all(b"booting\n").unwrap();
        let late = console.wait("ready", Mark::default(), SHORT).unwrap_err().to_string();
        assert!(late.contains("`ready` on the console") && late.contains("  booting"), "{late}");
        drop(guest);
        assert!(console.wait("ready", Mark::default(), LONG).is_err());
        assert!(console.is_closed());
    }

    #[test]
    fn trouble_ends_the_waiting() {
        let (console, mut guest, _folder) = console();
        guest.write_all(b"[ 1.4] Oops: int3: 0000 [#1] PREEMPT SMP\n").unwrap();
        let error = console.wait("ready", Mark::default(), LONG).unwrap_err();
        assert_eq!(error.fault(), Some(Fault::CodePatching));
        let (console, mut guest, _folder) = self::console();
        guest.write_all(b"[ 2.0] Kernel panic - not syncing: Attempted to kill init!\n").unwrap();
        assert!(matches!(console.wait("ready", Mark::default(), LONG), Err(Error::Panic { .. })));
        let (console, mut guest, _folder) = self::console();
        console.excuse_panics(true);
        guest.write_all(b"[ 2.0] Kernel panic - not syncing: sysrq triggered crash\nready\n").unwrap();
        console.wait("ready", Mark::default(), LONG).unwrap();
    }
}

//! Where our own lines go: the journal, or stderr where there is none yet.
//!
//! Whoever writes a line never waits for its reader: a thread carries the lines, behind a queue of bounded length, and
//! what does not fit is counted and told about. (tracing-journald's socket waits in the middle of whatever is done.)

use std::io::{self, Write};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use tracing::{Level, Metadata};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Libraries that write several lines for each message they carry.
const TALKATIVE: [&str; 7] =
    ["h2", "hyper", "hyper_util", "tower", "tonic", "netlink_proto", "netlink_packet_route"];

/// journald's native socket.
const JOURNAL: &str = "/run/systemd/journal/socket";

/// Most lines that wait.
const ROOM: usize = 1024;

/// Pause between two tries to reach a journald that is away.
const PAUSE: Duration = Duration::from_millis(100);

/// How long the end waits for lines that were not written yet.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Starts logging under an identifier. `filter` is a list such as `info,stack=debug`; a wrong one is reported and the
/// default used. The value that is given waits for the last lines when it is dropped.
pub fn start(identifier: &str, filter: Option<&str>) -> LastWords {
    let quiet = || {
        let all = Targets::new().with_default(Level::INFO);
        TALKATIVE.iter().fold(all, |targets, name| targets.with_target(*name, Level::WARN))
    };
    let (targets, problem) = match filter.map(str::parse::<Targets>) {
        Some(Ok(targets)) => (targets, None),
        Some(Err(error)) => (quiet(), Some(error)),
        None => (quiet(), None),
    };
    // The socket answers only while journald runs; a file left behind by a dead one must not swallow our lines.
    let way = match UnixDatagram::unbound().and_then(|socket| socket.connect(JOURNAL)) {
        Ok(()) => Way::Journal(JOURNAL.into()),
        Err(_) => Way::Stderr,
    };
    let lines = Lines::start(identifier, way);
    let words = LastWords(lines.state.clone());
    let layer = tracing_subscriber::fmt::layer().with_writer(lines).with_ansi(false).with_target(false);
    // A second start in one process (tests) keeps the first subscriber.
    let _ =
        tracing_subscriber::registry().with(targets).with(layer.with_level(false).without_time()).try_init();
    if let Some(error) = problem {
        tracing::warn!("the log filter is not used: {error}");
    }
    words
}

/// Where lines go.
enum Way {
    Journal(PathBuf),
    Stderr,
}

/// One line and its urgency, a number of syslog(3).
type Line = (u8, Vec<u8>);

#[derive(Default)]
struct State {
    waiting: AtomicUsize,
    dropped: AtomicU64,
}

/// The queue's end for those who write.
struct Lines {
    queue: SyncSender<Line>,
    state: Arc<State>,
}

/// Waits for the last lines when it is dropped, for a bounded time.
pub struct LastWords(Arc<State>);

impl Drop for LastWords {
    fn drop(&mut self) {
        let start = Instant::now();
        while self.0.waiting.load(Ordering::Acquire) > 0 && start.elapsed() < LAST_WORDS {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Lines {
    fn start(identifier: &str, way: Way) -> Self {
        let (queue, lines) = sync_channel(ROOM);
        let state = Arc::new(State::default());
        let (shared, identifier) = (state.clone(), identifier.to_owned());
        // Without a thread the lines are counted as dropped, and the service works on.
        let _ = std::thread::Builder::new()
            .name("log".into())
            .spawn(move || carry(&lines, &shared, &identifier, &way));
        Self { queue, state }
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Writer<'a>;

    fn make_writer(&'a self) -> Writer<'a> {
        Writer { lines: self, priority: 6 }
    }

    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> Writer<'a> {
        let priority = match *meta.level() {
            Level::ERROR => 3,
            Level::WARN => 4,
            Level::INFO => 6,
            _ => 7,
        };
        Writer { lines: self, priority }
    }
}

/// Takes one event, which comes as one piece.
struct Writer<'a> {
    lines: &'a Lines,
    priority: u8,
}

impl Write for Writer<'_> {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        let state = &self.lines.state;
        state.waiting.fetch_add(1, Ordering::AcqRel);
        if self.lines.queue.try_send((self.priority, text.trim_ascii_end().to_vec())).is_err() {
            state.waiting.fetch_sub(1, Ordering::AcqRel);
            state.dropped.fetch_add(1, Ordering::AcqRel);
        }
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn carry(lines: &Receiver<Line>, state: &State, identifier: &str, way: &Way) {
    while let Ok((priority, text)) = lines.recv() {
        deliver(way, identifier, priority, &text);
        // Told once there is room: else the news would take the place of what is to be said.
        if state.waiting.load(Ordering::Acquire) < ROOM / 2 {
            let dropped = state.dropped.swap(0, Ordering::AcqRel);
            if dropped > 0 {
                let text = format!("{dropped} lines of this log were dropped: nobody took them in time");
                deliver(way, identifier, 4, text.as_bytes());
            }
        }
        state.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Delivers a line, however long that takes.
fn deliver(way: &Way, identifier: &str, priority: u8, text: &[u8]) {
    match way {
        Way::Stderr => {
            // Nobody has our stderr any more: there is no other place to say so.
            let _ = io::stderr().write_all(&[text, b"\n"].concat());
        }
        Way::Journal(socket) => {
            let entry = entry(identifier, priority, text);
            while let Err(error) = send(socket, &entry) {
                // It would never fit: go on with the next one.
                if error.raw_os_error() == Some(nix::libc::EMSGSIZE) {
                    return;
                }
                std::thread::sleep(PAUSE);
            }
        }
    }
}

/// A socket for each line: the one before may lead to a journald that is dead.
fn send(journal: &Path, entry: &[u8]) -> io::Result<()> {
    UnixDatagram::unbound()?.send_to(entry, journal).map(drop)
}

/// An entry in journald's native protocol. The message has the binary form, so that no byte in it means anything.
fn entry(identifier: &str, priority: u8, text: &[u8]) -> Vec<u8> {
    let head = format!("PRIORITY={priority}\nSYSLOG_IDENTIFIER={identifier}\nMESSAGE\n");
    [head.as_bytes(), &(text.len() as u64).to_le_bytes(), text, b"\n"].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_waits_for_a_journal_that_does_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let lines = Lines::start("test", Way::Journal(path.clone()));
        // More than the queue and any socket hold.
        let start = Instant::now();
        for number in 0..ROOM + 100 {
            lines.make_writer().write_all(format!("line {number}\n").as_bytes()).unwrap();
        }
        assert!(start.elapsed() < Duration::from_secs(5));
        let journal = UnixDatagram::bind(&path).unwrap();
        journal.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut buffer = [0; 4096];
        let mut next = || {
            let n = journal.recv(&mut buffer).unwrap();
            String::from_utf8_lossy(&buffer[..n]).into_owned()
        };
        let first = next();
        assert!(first.starts_with("PRIORITY=6\nSYSLOG_IDENTIFIER=test\nMESSAGE\n"), "{first}");
        assert!(first.ends_with("\0line 0\n"), "{first}");
        let told =
            std::iter::repeat_with(next).find(|text| text.contains("of this log were dropped")).unwrap();
        assert!(told.contains("PRIORITY=4"), "{told}");
    }
}

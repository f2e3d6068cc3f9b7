//! Where our own lines go: the journal, or stderr where there is none yet.
//!
//! Whoever writes a line never waits for its reader: a thread carries the lines, behind a queue of bounded length, and
//! what does not fit is counted and told about. tracing-journald, whose socket waits, does its work in that thread.

use std::io::{self, Write};
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use tracing::{Dispatch, Level, Metadata};
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
    let way = match reach_journal().and_then(|()| tracing_journald::layer()) {
        Ok(layer) => to_journal(layer.with_syslog_identifier(identifier.to_owned())),
        Err(_) => Box::new(to_stderr),
    };
    let lines = Lines::start(way);
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

/// What takes a line and its urgency; an error means that it has to be tried again.
type Way = Box<dyn Fn(u8, &[u8]) -> io::Result<()> + Send>;

/// Whether journald is there: tracing-journald does not tell whether a line arrived.
fn reach_journal() -> io::Result<()> {
    UnixDatagram::unbound()?.connect(JOURNAL)
}

fn to_journal(layer: tracing_journald::Layer) -> Way {
    let journal = Dispatch::new(tracing_subscriber::registry().with(layer));
    Box::new(move |priority, text| {
        reach_journal()?;
        let text = String::from_utf8_lossy(text);
        tracing::dispatcher::with_default(&journal, || match priority {
            3 => tracing::error!("{text}"),
            4 => tracing::warn!("{text}"),
            6 => tracing::info!("{text}"),
            _ => tracing::debug!("{text}"),
        });
        Ok(())
    })
}

fn to_stderr(_: u8, text: &[u8]) -> io::Result<()> {
    // Nobody has our stderr any more: there is no other place to say so.
    let _ = io::stderr().write_all(&[text, b"\n"].concat());
    Ok(())
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
    fn start(way: Way) -> Self {
        let (queue, lines) = sync_channel(ROOM);
        let state = Arc::new(State::default());
        let shared = state.clone();
        // Without a thread the lines are counted as dropped, and the service works on.
        let _ = std::thread::Builder::new().name("log".into()).spawn(move || carry(&lines, &shared, &way));
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

fn carry(lines: &Receiver<Line>, state: &State, way: &Way) {
    while let Ok((priority, text)) = lines.recv() {
        deliver(way, priority, &text);
        // Told once there is room: else the news would take the place of what is to be said.
        if state.waiting.load(Ordering::Acquire) < ROOM / 2 {
            let dropped = state.dropped.swap(0, Ordering::AcqRel);
            if dropped > 0 {
                let text = format!("{dropped} lines of this log were dropped: nobody took them in time");
                deliver(way, 4, text.as_bytes());
            }
        }
        state.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Delivers a line, however long that takes.
fn deliver(way: &Way, priority: u8, text: &[u8]) {
    while way(priority, text).is_err() {
        std::thread::sleep(PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;

    #[test]
    fn nobody_waits_for_a_journal_that_does_not_read() {
        let (journal, taken) = sync_channel(0);
        let refused = AtomicBool::new(false);
        let way = move |priority: u8, text: &[u8]| {
            // The first try fails, as while journald is away; then it waits until the test reads.
            if !refused.swap(true, Ordering::AcqRel) {
                return Err(io::Error::other("away"));
            }
            journal.send((priority, String::from_utf8_lossy(text).into_owned())).map_err(io::Error::other)
        };
        let lines = Lines::start(Box::new(way));
        // More than the queue and any socket hold.
        let start = Instant::now();
        for number in 0..ROOM + 100 {
            lines.make_writer().write_all(format!("line {number}\n").as_bytes()).unwrap();
        }
        assert!(start.elapsed() < Duration::from_secs(5));
        let next = || taken.recv_timeout(Duration::from_secs(10)).unwrap();
        assert_eq!(next(), (6, "line 0".to_owned()));
        let told = std::iter::repeat_with(next).find(|(_, text)| text.contains("of this log were dropped"));
        assert_eq!(told.unwrap().0, 4);
    }
}

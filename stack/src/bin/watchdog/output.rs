//! Lines on their way to the container's output: the watchdog's own, and its program's.
//!
//! Whoever reads the output may be slow, or away. The one thread that answers calls must not wait for that: each output
//! has a thread of its own, behind a queue that drops what does not fit, and tells how much that was.

use std::io::Write;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, mpsc};
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};

use crate::config::Lines;

/// Longest piece of a line that is held, in bytes; a longer line goes on in the next piece. So much goes into a pipe at
/// once, whoever else writes to it (PIPE_BUF).
const PIECE: usize = 4 << 10;

/// Most bytes that wait for one output: part of the function's memory.
const ROOM: usize = 256 << 10;

/// One output.
pub struct Output {
    queue: mpsc::Sender<Vec<u8>>,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    /// Bytes that wait.
    waiting: AtomicUsize,
    /// Pieces that were dropped and not told about.
    dropped: AtomicU64,
}

/// Standard output.
pub static OUT: LazyLock<Output> = LazyLock::new(|| Output::start(std::io::stdout()));

/// Standard error.
pub static ERR: LazyLock<Output> = LazyLock::new(|| Output::start(std::io::stderr()));

impl Output {
    fn start(to: impl Write + Send + 'static) -> Self {
        let (queue, pieces) = mpsc::channel();
        let state = Arc::new(State::default());
        let shared = state.clone();
        // Without a thread everything is dropped once the queue is full: calls matter more.
        let _ = std::thread::Builder::new().name("output".into()).spawn(move || drain(&pieces, &shared, to));
        Self { queue, state }
    }

    /// Adds bytes of any length.
    pub fn write(&self, bytes: &[u8]) {
        for piece in bytes.chunks(PIECE) {
            self.push(piece.to_vec());
        }
    }

    /// Adds a piece, or counts it as dropped.
    fn push(&self, piece: Vec<u8>) {
        let length = piece.len();
        if self.state.waiting.fetch_add(length, Ordering::AcqRel) + length > ROOM {
            self.state.waiting.fetch_sub(length, Ordering::AcqRel);
            self.state.dropped.fetch_add(1, Ordering::AcqRel);
        } else {
            // The thread ends with the process only.
            let _ = self.queue.send(piece);
        }
    }

    /// Waits until everything is written, at most so long.
    fn flush(&self, patience: Duration) {
        let start = Instant::now();
        while self.state.waiting.load(Ordering::Acquire) > 0 && start.elapsed() < patience {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

fn drain(pieces: &mpsc::Receiver<Vec<u8>>, state: &State, mut to: impl Write) {
    while let Ok(piece) = pieces.recv() {
        // Nobody reads our output any more: the function goes on without.
        let _ = to.write_all(&piece).and_then(|()| to.flush());
        // Told when half of the room is free again: else the news would take the place of what is to be said.
        let dropped = match state.waiting.load(Ordering::Acquire) {
            waiting if waiting < ROOM / 2 => state.dropped.swap(0, Ordering::AcqRel),
            _ => 0,
        };
        if dropped > 0 {
            let _ = writeln!(to, "watchdog: {dropped} lines were dropped: nobody read the output in time");
        }
        state.waiting.fetch_sub(piece.len(), Ordering::AcqRel);
    }
}

/// The watchdog's own line.
pub fn say(line: impl std::fmt::Display) {
    ERR.push(format!("watchdog: {line}\n").into_bytes());
}

/// Before the end: what was said is written, unless nobody reads it.
pub fn flush() {
    for output in [&OUT, &ERR] {
        if let Some(output) = LazyLock::get(output) {
            output.flush(Duration::from_millis(500));
        }
    }
}

/// Copies lines until the program closes its end. A line that is too long goes on in the next one.
pub async fn copy(from: impl AsyncRead + Unpin, name: &str, lines: Lines, to: &Output) {
    let prefix = if lines.prefix { format!("{name}: ") } else { String::new() };
    let longest = lines.longest.unwrap_or(usize::MAX);
    let mut reader = BufReader::with_capacity(PIECE, from);
    // Bytes of the line that are out already.
    let mut out = 0;
    loop {
        let buffer = match reader.fill_buf().await {
            Ok([]) | Err(_) => return,
            Ok(buffer) => buffer,
        };
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let content = end.unwrap_or(buffer.len());
        let room = longest - out;
        let mut piece = if out == 0 { prefix.clone().into_bytes() } else { Vec::new() };
        let taken = if content > room {
            piece.extend_from_slice(&buffer[..room]);
            piece.push(b'\n');
            out = 0;
            room
        } else if end.is_some() {
            piece.extend_from_slice(&buffer[..=content]);
            out = 0;
            content + 1
        } else {
            piece.extend_from_slice(buffer);
            out += content;
            content
        };
        reader.consume(taken);
        to.push(piece);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    /// What was written, by a writer that may be held up.
    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    async fn copied(from: &[u8], lines: Lines) -> Vec<u8> {
        let sink = Sink::default();
        let output = Output::start(sink.clone());
        copy(from, "p", lines, &output).await;
        output.flush(Duration::from_secs(10));
        sink.0.lock().unwrap().clone()
    }

    #[tokio::test]
    async fn prefixes_lines_and_not_their_parts() {
        let long = [vec![b'x'; PIECE * 3 + 10], b"\nb\xff".to_vec()].concat();
        let wanted = [b"p: ", &long[..PIECE * 3 + 11], b"p: b\xff"].concat();
        assert_eq!(copied(&long, Lines { prefix: true, longest: None }).await, wanted);
        assert_eq!(copied(&long, Lines { prefix: false, longest: Some(PIECE * 4) }).await, long);
    }

    #[tokio::test]
    async fn breaks_what_is_too_long() {
        let lines = Lines { prefix: true, longest: Some(4) };
        assert_eq!(
            copied(b"1234\n12345\n\n123456789", lines).await,
            b"p: 1234\np: 1234\np: 5\np: \np: 1234\np: 5678\np: 9"
        );
        let long = vec![b'x'; PIECE * 2];
        let text = copied(&long, Lines { prefix: false, longest: Some(PIECE - 1) }).await;
        assert_eq!(
            text.split(|byte| *byte == b'\n').map(<[u8]>::len).collect::<Vec<_>>(),
            [PIECE - 1, PIECE - 1, 2]
        );
    }

    #[test]
    fn what_nobody_reads_is_dropped_and_counted() {
        let sink = Sink::default();
        let output = Output::start(sink.clone());
        let held = sink.0.lock().unwrap();
        let line = [vec![b'x'; 1023], b"\n".to_vec()].concat();
        for _ in 0..ROOM / 1024 + 7 {
            output.push(line.clone());
        }
        drop(held);
        output.flush(Duration::from_secs(10));
        let text = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.matches('x').count(), ROOM / 1024 * 1023);
        assert!(text.contains("watchdog: 7 lines were dropped"), "{}", text.len());
    }
}

//! The supervisor's own log lines: to journald's native socket, to the kernel's log while nobody listens there.
//!
//! Not through tracing-journald: its socket waits when journald does not read, and the one who has to restart a stuck
//! journald must never wait for it. This one drops to the kernel's log instead.

use std::io::{self, Write};
use std::os::unix::net::UnixDatagram;
use std::sync::OnceLock;

use tracing::Metadata;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::console::{Level, kmsg};

const SOCKET: &str = "/run/systemd/journal/socket";

/// Starts logging. A second call changes nothing.
pub(super) fn start() {
    let filter = Targets::new()
        .with_default(LevelFilter::INFO)
        .with_target("netlink_proto", LevelFilter::WARN)
        .with_target("netlink_packet_route", LevelFilter::ERROR);
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(Journal)
        .without_time()
        .with_level(false)
        .with_target(false);
    let _ = tracing_subscriber::registry().with(lines.with_ansi(false)).with(filter).try_init();
}

struct Journal;

impl<'a> MakeWriter<'a> for Journal {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line(Level::Info)
    }

    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> Line {
        Line(match *meta.level() {
            tracing::Level::ERROR => Level::Error,
            tracing::Level::WARN => Level::Warning,
            _ => Level::Info,
        })
    }
}

/// One event; the formatter writes it with one call.
struct Line(Level);

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        let text = text.trim_end();
        if send(&entry(self.0, text)).is_err() {
            kmsg(self.0, text);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn send(entry: &[u8]) -> io::Result<()> {
    static SENDER: OnceLock<Option<UnixDatagram>> = OnceLock::new();
    let sender = SENDER.get_or_init(|| {
        let socket = UnixDatagram::unbound().ok()?;
        socket.set_nonblocking(true).ok()?;
        Some(socket)
    });
    let sender = sender.as_ref().ok_or(io::ErrorKind::NotConnected)?;
    sender.send_to(entry, SOCKET)?;
    Ok(())
}

/// The native protocol: a text with line ends is written with its length (systemd.io/JOURNAL_NATIVE_PROTOCOL).
fn entry(level: Level, text: &str) -> Vec<u8> {
    let mut bytes = format!("PRIORITY={}\nSYSLOG_IDENTIFIER=init\nMESSAGE\n", level as u8).into_bytes();
    bytes.extend((text.len() as u64).to_le_bytes());
    bytes.extend(text.as_bytes());
    bytes.push(b'\n');
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_in_the_native_form() {
        let bytes = entry(Level::Error, "a\nb");
        assert_eq!(bytes, b"PRIORITY=3\nSYSLOG_IDENTIFIER=init\nMESSAGE\n\x03\0\0\0\0\0\0\0a\nb\n");
    }
}

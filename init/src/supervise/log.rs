//! The supervisor's own log lines: to journald's native socket, to the kernel's log while nobody listens there. An
//! event's fields are the entry's, in capitals: `service`, `state` and the like can be asked for.
//!
//! Not through tracing-journald: its socket waits when journald does not read, and the one who has to restart a stuck
//! journald must never wait for it. This one drops to the kernel's log instead.

use std::fmt::Debug;
use std::io;
use std::os::unix::net::UnixDatagram;
use std::sync::OnceLock;

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use crate::console::{Level, kmsg};

const SOCKET: &str = "/run/systemd/journal/socket";

/// Starts logging. A second call changes nothing.
pub(super) fn start() {
    let filter = Targets::new()
        .with_default(LevelFilter::INFO)
        .with_target("netlink_proto", LevelFilter::WARN)
        .with_target("netlink_packet_route", LevelFilter::ERROR);
    let _ = tracing_subscriber::registry().with(Journal).with(filter).try_init();
}

struct Journal;

impl<S: Subscriber> Layer<S> for Journal {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let level = match *event.metadata().level() {
            tracing::Level::ERROR => Level::Error,
            tracing::Level::WARN => Level::Warning,
            _ => Level::Info,
        };
        let mut fields = Fields::default();
        event.record(&mut fields);
        if send(&entry(level, &fields)).is_err() {
            kmsg(level, &fields.message);
        }
    }
}

/// What an event says.
#[derive(Debug, Default)]
struct Fields {
    message: String,
    others: Vec<(&'static str, String)>,
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => self.message = value.to_owned(),
            name => self.others.push((name, value.to_owned())),
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.record_str(field, &format!("{value:?}"));
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

/// The native protocol: values may have line ends and are written with their length
/// (systemd.io/JOURNAL_NATIVE_PROTOCOL). Names: capitals, digits and underscores.
fn entry(level: Level, fields: &Fields) -> Vec<u8> {
    let mut bytes = format!("PRIORITY={}\nSYSLOG_IDENTIFIER=init\n", level as u8).into_bytes();
    let message = [("message", fields.message.trim_end())];
    let others = fields.others.iter().map(|(name, value)| (*name, value.as_str()));
    for (name, value) in message.into_iter().chain(others.filter(|(_, value)| !value.is_empty())) {
        bytes.extend(
            name.bytes().map(|b| if b.is_ascii_alphanumeric() { b.to_ascii_uppercase() } else { b'_' }),
        );
        bytes.push(b'\n');
        bytes.extend((value.len() as u64).to_le_bytes());
        bytes.extend(value.as_bytes());
        bytes.push(b'\n');
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_in_the_native_form_with_its_fields() {
        let others = vec![("service", "nats".to_owned()), ("reason", String::new())];
        let bytes = entry(Level::Error, &Fields { message: "a\nb\n".to_owned(), others });
        let message = b"PRIORITY=3\nSYSLOG_IDENTIFIER=init\nMESSAGE\n\x03\0\0\0\0\0\0\0a\nb\n";
        assert_eq!(bytes, [&message[..], b"SERVICE\n\x04\0\0\0\0\0\0\0nats\n"].concat());
    }

    #[test]
    fn events_become_fields() {
        static SEEN: std::sync::Mutex<Vec<String>> = std::sync::Mutex::new(Vec::new());
        struct Seen;
        impl<S: Subscriber> Layer<S> for Seen {
            fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
                let mut fields = Fields::default();
                event.record(&mut fields);
                SEEN.lock().unwrap().push(format!("{fields:?}"));
            }
        }
        tracing::subscriber::with_default(tracing_subscriber::registry().with(Seen), || {
            tracing::info!(service = "nats", state_before = %"ready", pid = 7, "{} ended", "nats");
        });
        let others = r#"[("service", "nats"), ("state_before", "ready"), ("pid", "7")]"#;
        assert_eq!(
            *SEEN.lock().unwrap(),
            [format!(r#"Fields {{ message: "nats ended", others: {others} }}"#)]
        );
    }
}

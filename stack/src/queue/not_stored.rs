//! Why a message was not taken, and what to do about it.

use super::bodies::LARGEST_INLINE_BYTES;

/// A message that was not taken.
#[derive(Debug)]
pub struct NotStored {
    /// Why, and what to do about it.
    pub reason: String,
    /// Whether there was no room for it.
    pub full: bool,
}

impl NotStored {
    /// Why a message of that subject was not taken, in JetStream's words.
    pub(super) fn new(subject: &str, reason: String) -> Self {
        // Its number (10077) is that of other failures, too.
        match reason.contains("maximum bytes exceeded") {
            true => Self { reason: full(subject), full: true },
            false => Self { reason, full: false },
        }
    }
}

impl From<NotStored> for String {
    fn from(error: NotStored) -> Self {
        error.reason
    }
}

/// What is said where there is no room for a message of that subject.
fn full(subject: &str) -> String {
    let mut parts = subject.split('.');
    match (parts.next(), parts.next()) {
        (Some("calls"), Some(queue)) => format!(
            "queue {queue} is full: its calls have to be made first, and max_bytes in [stack.queue] of bothy.toml gives it more"
        ),
        (Some("dead"), _) => {
            "the dead letters are full: look at them with `bothyctl queue list`, and replay or purge some"
                .to_owned()
        }
        (Some("bodies"), _) => {
            format!(
                "the store of bodies larger than {LARGEST_INLINE_BYTES} bytes is full: their calls have to be made first"
            )
        }
        _ => "the ledger is full".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_full_is_named_with_what_to_do() {
        for (subject, wanted) in [
            ("calls.slow.dev.f", "queue slow is full: its calls"),
            ("dead.slow.dev.f", "the dead letters are full: look"),
            ("bodies.x", "the store of bodies larger than 131072 bytes is full"),
        ] {
            assert!(full(subject).starts_with(wanted), "{subject}");
        }
    }
}

//! What became of calls: lines of JSON, many in one message of the stream.

use std::fmt;

use provisioning::QueueName;
use serde::{Deserialize, Serialize};

/// Largest message of lines, in bytes.
const LARGEST_PIECE_BYTES: usize = 256 << 10;

/// Longest reason that a line tells, in bytes.
const LONGEST_REASON_BYTES: usize = 512;

/// Where a call lies: that identifies it, as its own identifier need not.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Place {
    /// The queue.
    pub queue: QueueName,
    /// Sequence in the queue's stream.
    pub sequence: u64,
}

/// How far a call is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// It is in its queue.
    Queued,
    /// An attempt failed, and another is to come.
    Retrying,
    /// It was made, and its answer delivered, unless the reason says why not.
    Done,
    /// It was given up.
    Dead,
    /// Somebody did not want it any more.
    Cancelled,
}

impl Stage {
    /// Whether nothing follows.
    pub fn is_end(self) -> bool {
        matches!(self, Self::Done | Self::Dead | Self::Cancelled)
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Queued => "queued",
            Self::Retrying => "retrying",
            Self::Done => "done",
            Self::Dead => "dead",
            Self::Cancelled => "cancelled",
        })
    }
}

/// One line: what is known of a call since then. Short names: there are many.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// `X-Call-Id`.
    #[serde(rename = "i")]
    pub id: String,
    /// The call's own number.
    #[serde(rename = "k")]
    pub nonce: u64,
    /// The queue's name.
    #[serde(rename = "q")]
    pub queue: String,
    /// Sequence in the queue's stream.
    #[serde(rename = "n")]
    pub sequence: u64,
    /// The function, with its namespace.
    #[serde(rename = "f")]
    pub function: String,
    /// Since when, milliseconds since 1970.
    #[serde(rename = "t")]
    pub at: u64,
    /// How far it is.
    #[serde(rename = "s")]
    pub stage: Stage,
    /// Attempts that were made.
    #[serde(rename = "a", default, skip_serializing_if = "is_zero")]
    pub attempts: u32,
    /// Status of the last one, where there was an answer.
    #[serde(rename = "c", default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// When the next one is, milliseconds since 1970.
    #[serde(rename = "x", default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
    /// Its number among the dead letters.
    #[serde(rename = "d", default, skip_serializing_if = "Option::is_none")]
    pub letter: Option<u64>,
    /// Why it was given up, or its answer not delivered.
    #[serde(rename = "r", default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl Line {
    /// A call is so far from now on, and no more is known of it.
    pub fn new((id, nonce): (&str, u64), place: &Place, function: &str, stage: Stage) -> Self {
        Self {
            id: id.to_owned(),
            nonce,
            queue: place.queue.to_string(),
            sequence: place.sequence,
            function: function.to_owned(),
            at: super::now(),
            stage,
            attempts: 0,
            status: None,
            next: None,
            letter: None,
            reason: None,
        }
    }

    /// With a reason, which is cut where it is long.
    pub fn because(mut self, reason: &str) -> Self {
        let end = reason.floor_char_boundary(LONGEST_REASON_BYTES);
        self.reason = reason.get(..end).map(str::to_owned);
        self
    }

    /// Where the call lies.
    pub fn place(&self) -> Option<Place> {
        Some(Place { queue: self.queue.parse().ok()?, sequence: self.sequence })
    }
}

/// Messages of these lines, in their order, and how many each has.
pub fn pieces<'a>(lines: impl Iterator<Item = &'a Line>) -> Vec<(Vec<u8>, usize)> {
    let mut pieces: Vec<(Vec<u8>, usize)> = Vec::new();
    for line in lines {
        // Strings and numbers always serialise.
        let text = serde_json::to_vec(line).unwrap_or_default();
        match pieces.last_mut() {
            Some((piece, lines)) if piece.len() + text.len() < LARGEST_PIECE_BYTES => {
                piece.push(b'\n');
                piece.extend(text);
                *lines += 1;
            }
            _ => pieces.push((text, 1)),
        }
    }
    pieces
}

/// The lines of a message; what is none is left out.
pub fn lines(piece: &[u8]) -> impl Iterator<Item = Line> {
    piece.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub fn line(id: &str, sequence: u64, stage: Stage) -> Line {
        Line::new((id, 7), &Place { queue: QueueName::default(), sequence }, "f.dev", stage)
    }

    #[test]
    fn there_and_back() {
        let mut written: Vec<_> = (0..5000).map(|n| line(&"x".repeat(200), n, Stage::Done)).collect();
        written[7] =
            Line { status: Some(503), next: Some(9), attempts: 2, ..line("a\n\"b", 7, Stage::Retrying) };
        written[8] = line("c", 8, Stage::Dead).because(&"ä".repeat(600));
        let pieces = pieces(written.iter());
        assert!(pieces.len() > 1 && pieces.iter().all(|(piece, _)| piece.len() <= LARGEST_PIECE_BYTES));
        let read: Vec<_> = pieces.iter().flat_map(|(piece, _)| lines(piece)).collect();
        assert_eq!(read, written);
        assert_eq!(pieces.iter().map(|(_, lines)| lines).sum::<usize>(), 5000);
        assert_eq!(read[8].reason.as_ref().unwrap().len(), LONGEST_REASON_BYTES);
        assert_eq!(lines(b"{}\n\nno line\n[1]").count(), 0);
    }
}

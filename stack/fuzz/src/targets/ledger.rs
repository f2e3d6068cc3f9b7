//! The ledger of calls. An input is one of its messages.

use crate::queue::ledger::{Line, lines, pieces};

/// What a message has at most, unless a line alone has more.
const LARGEST_PIECE: usize = 256 << 10;
const LONGEST_REASON: usize = 512;

pub fn check(data: &[u8]) {
    let found: Vec<Line> = lines(data).collect();
    let whole = data.split(|byte| *byte == b'\n').filter(|line| serde_json::from_slice::<Line>(line).is_ok());
    assert_eq!(whole.count(), found.len());
    written(&found);
    for line in &found {
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
        let named = (1..=63).contains(&line.queue.len()) && line.queue.chars().all(fits);
        let place = line.place().map(|place| (place.queue.to_string(), place.sequence));
        assert_eq!(place, named.then(|| (line.queue.clone(), line.sequence)));
        because(line);
    }
}

/// What is written is what is read, in messages that are not too large.
fn written(all: &[Line]) {
    let pieces = pieces(all.iter());
    let mut rest = all;
    for (piece, number) in &pieces {
        let read: Vec<Line> = lines(piece).collect();
        assert_eq!(read.len(), *number);
        assert!(*number == 1 || piece.len() <= LARGEST_PIECE, "{number} lines, {} bytes", piece.len());
        let (here, behind) = rest.split_at(*number);
        assert_eq!(read, here);
        rest = behind;
    }
    assert!(rest.is_empty());
}

/// A long reason is cut between two characters.
fn because(line: &Line) {
    let long = line.id.repeat(1 + LONGEST_REASON / line.id.len().max(1));
    let cut = line.clone().because(&long).reason.unwrap();
    assert!(long.starts_with(&cut) && cut.len() <= LONGEST_REASON);
    assert!(cut.len() == long.len() || cut.len() > LONGEST_REASON - 4);
}

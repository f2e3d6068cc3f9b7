//! Bytes into lines. A line of any length is passed on in parts that the journal takes; nothing is changed or lost.

/// Longest part of a line, in bytes. journald takes more, but its readers and our memory should not have to.
pub const LONGEST: usize = 48 << 10;

/// What has come of a line that has not ended.
#[derive(Debug, Default)]
pub struct Lines {
    rest: Vec<u8>,
}

impl Lines {
    /// Takes bytes in; gives each line without its newline, and whether more of it follows.
    pub fn push(&mut self, mut bytes: &[u8], mut give: impl FnMut(&[u8], bool)) {
        while !bytes.is_empty() {
            let room = LONGEST - self.rest.len();
            let window = bytes.get(..room + 1).unwrap_or(bytes);
            match window.iter().position(|b| *b == b'\n') {
                Some(end) => {
                    let (line, tail) = bytes.split_at(end);
                    if self.rest.is_empty() {
                        give(line, false);
                    } else {
                        self.rest.extend_from_slice(line);
                        give(&self.rest, false);
                        self.rest.clear();
                    }
                    bytes = tail.get(1..).unwrap_or_default();
                }
                None if window.len() > room => {
                    let (part, tail) = bytes.split_at(room);
                    self.rest.extend_from_slice(part);
                    give(&self.rest, true);
                    self.rest.clear();
                    bytes = tail;
                }
                None => {
                    self.rest.extend_from_slice(bytes);
                    bytes = &[];
                }
            }
        }
    }

    /// The line that never ended, if there is one.
    pub fn finish(&mut self, mut give: impl FnMut(&[u8], bool)) {
        if !self.rest.is_empty() {
            give(&self.rest, false);
            self.rest.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn split(chunks: &[&[u8]]) -> Vec<(Vec<u8>, bool)> {
        let (mut lines, mut out) = (Lines::default(), Vec::new());
        for chunk in chunks {
            lines.push(chunk, |line, more| out.push((line.to_vec(), more)));
        }
        lines.finish(|line, more| out.push((line.to_vec(), more)));
        out
    }

    #[test]
    fn lines() {
        assert_eq!(
            split(&[b"a\n", b"b", b"c\n\nd"]),
            [(b"a".to_vec(), false), (b"bc".to_vec(), false), (b"".to_vec(), false), (b"d".to_vec(), false)]
        );
        assert_eq!(split(&[]), []);
    }

    #[test]
    fn a_long_line_is_continued_and_an_exact_one_is_not() {
        let exact = [vec![b'x'; LONGEST], vec![b'\n']].concat();
        assert_eq!(split(&[&exact]), [(vec![b'x'; LONGEST], false)]);
        let long = [vec![b'x'; LONGEST + 1], vec![b'\n']].concat();
        assert_eq!(split(&[&long]), [(vec![b'x'; LONGEST], true), (b"x".to_vec(), false)]);
    }

    proptest! {
        #[test]
        fn nothing_is_lost(chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..400), 0..20), times in 1usize..200) {
            let big: Vec<Vec<u8>> = chunks.iter().map(|chunk| chunk.repeat(times)).collect();
            let all: Vec<u8> = big.concat();
            let parts = split(&big.iter().map(Vec::as_slice).collect::<Vec<_>>());
            let mut joined = Vec::new();
            for (line, more) in &parts {
                prop_assert!(line.len() <= LONGEST);
                joined.extend_from_slice(line);
                if !more {
                    joined.push(b'\n');
                }
            }
            if !all.is_empty() && !all.ends_with(b"\n") {
                joined.pop();
            }
            prop_assert_eq!(joined, all);
        }
    }
}

//! Turns what a console sends into plain lines: no colours, no cursor movements, no carriage returns.

/// Where in an escape sequence (ECMA-48) the stream is.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
enum State {
    #[default]
    Text,
    /// After ESC.
    Escape,
    /// After `ESC [`, until a final byte.
    Control,
    /// After `ESC ]`, until BEL or ESC.
    Command,
}

/// The stream so far.
#[derive(Debug, Default)]
pub(crate) struct Plain {
    state: State,
    line: Vec<u8>,
}

/// Longest line that is kept; the rest of it becomes the next one.
const LONGEST: usize = 16 * 1024;

impl Plain {
    /// Takes more bytes, gives the lines that they complete.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        for byte in bytes {
            self.state = match (self.state, byte) {
                (_, 0x1b) => State::Escape,
                (State::Escape, b'[') => State::Control,
                (State::Escape, b']') => State::Command,
                (State::Escape, _) => State::Text,
                (State::Control, 0x40..=0x7e) => State::Text,
                (State::Control, _) => State::Control,
                (State::Command, 0x07) => State::Text,
                (State::Command, _) => State::Command,
                (State::Text, b'\n') => {
                    lines.push(self.take());
                    State::Text
                }
                (State::Text, b'\t' | 0x20..) => {
                    self.line.push(*byte);
                    if self.line.len() >= LONGEST {
                        lines.push(self.take());
                    }
                    State::Text
                }
                (State::Text, _) => State::Text,
            };
        }
        lines
    }

    /// The line that has no end yet.
    pub(crate) fn rest(&self) -> String {
        String::from_utf8_lossy(&self.line).into_owned()
    }

    fn take(&mut self) -> String {
        let line = self.rest();
        self.line.clear();
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_disappear_even_in_pieces() {
        let mut plain = Plain::default();
        let mut lines = Vec::new();
        for byte in
            b"\x1bc\x1b[?7l\x1b[2J\x1b[1;32mSeaBIOS\x1b[0m\r\n\x1b]0;title\x07[ 1.0] \xc3\xa4\r\nlogin: "
        {
            lines.extend(plain.feed(&[*byte]));
        }
        assert_eq!(lines, ["SeaBIOS", "[ 1.0] ä"]);
        assert_eq!(plain.rest(), "login: ");
    }

    #[test]
    fn a_line_without_end_is_cut() {
        let mut plain = Plain::default();
        assert_eq!(plain.feed(&vec![b'x'; 3 * LONGEST + 5]).len(), 3);
        assert_eq!(plain.rest(), "xxxxx");
    }
}

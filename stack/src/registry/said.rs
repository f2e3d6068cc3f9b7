//! What a stranger wrote, for an error or a log.

/// Longest text that is repeated, in characters.
const LONGEST: usize = 200;

/// One short line of a text: without characters that move a terminal's cursor or turn the line around.
pub fn said(text: &str) -> String {
    let unseen = |c: char| {
        c.is_control()
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().map(|c| if unseen(c) { ' ' } else { c }).take(LONGEST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_short_line() {
        assert_eq!(said("a\nb\u{1b}[2J\u{202e}ä"), "a b [2J ä");
        assert_eq!(said(&"x".repeat(9999)).len(), LONGEST);
    }
}

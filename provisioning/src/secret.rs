//! Text that must not be seen by accident.

use std::fmt;
use std::str::FromStr;

use crate::Invalid;

/// A password. Its `Debug` shows nothing of it, and it has no `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The text itself. Whoever calls this answers for where it goes.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl FromStr for Secret {
    type Err = Invalid;

    /// Takes what survives a line of a file and an HTTP header: one to 256 characters, no control characters.
    fn from_str(text: &str) -> Result<Self, Invalid> {
        match text.chars().count() {
            0 => Err(Invalid("is empty, expected at least one character".to_owned())),
            1..=256 if text.chars().any(char::is_control) => Err(Invalid(
                "has a line break or another control character, expected one line of text".to_owned(),
            )),
            1..=256 => Ok(Self(text.to_owned())),
            _ => Err(Invalid("is too long, expected at most 256 characters".to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_nothing() {
        let secret: Secret = "correct horse".parse().unwrap();
        assert_eq!(format!("{secret:?}"), "Secret(…)");
        assert_eq!(secret.expose(), "correct horse");
        assert!("".parse::<Secret>().is_err());
        assert!("a\nb".parse::<Secret>().is_err());
    }
}

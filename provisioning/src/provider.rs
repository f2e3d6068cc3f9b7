//! What the gateway calls its function provider.

use std::fmt;
use std::str::FromStr;

use crate::Invalid;

/// The provider's name in `/system/info`. Some clients of OpenFaaS look at it, and know how to treat `faasd`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Provider {
    /// Our own.
    #[default]
    Bothy,
    /// The one that ours takes the place of. A secret that is there may then be made again, as there.
    Faasd,
}

impl Provider {
    /// The name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bothy => "bothy",
            Self::Faasd => "faasd",
        }
    }
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Provider {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let found = [Self::Bothy, Self::Faasd].into_iter().find(|provider| provider.as_str() == text);
        found.ok_or_else(|| Invalid("is not a provider's name, expected \"bothy\" or \"faasd\"".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for provider in [Provider::Bothy, Provider::Faasd] {
            assert_eq!(provider.to_string().parse(), Ok(provider));
        }
        for bad in ["", "Faasd", "faasd ", "faasd-ce", "kubernetes"] {
            assert!(bad.parse::<Provider>().is_err(), "{bad}");
        }
    }
}

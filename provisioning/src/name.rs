//! Names that cannot be wrong: a machine's, a function's, a namespace's.

use std::fmt;
use std::str::FromStr;

/// Why a single value was refused, in one line that says what was expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid(pub(crate) String);

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Invalid {}

/// Longest name of each kind: a DNS label's limit (RFC 1035, 2.3.4). Linux itself would take 64 for a host's.
const LONGEST: usize = 63;

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $check:path) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(String);

        impl $type {
            /// The name as it was written.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = Invalid;

            fn from_str(text: &str) -> Result<Self, Invalid> {
                $check(text)?;
                Ok(Self(text.to_owned()))
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl AsRef<str> for $type {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    };
}

name!(
    /// A machine's name: one or more labels of RFC 1123 joined by dots, at most 63 characters in all.
    Hostname,
    host
);
name!(
    /// A function's name: small letters, digits and single hyphens between them, at most 63 characters.
    ///
    /// It becomes a DNS label, a part of a URL, a file's name and a containerd identifier; the last one is why two
    /// hyphens in a row are refused. A dot would be taken for the start of the namespace (`NAME.NAMESPACE`).
    FunctionName,
    label
);
name!(
    /// A namespace's name; the rules are those of [`FunctionName`], and those of others are none of ours.
    Namespace,
    namespace
);

/// Namespaces that are not for functions: those of containerd's other users (the appliance's own services, `ctr`, Docker,
/// BuildKit), and names that mean something else where a namespace's folder would lie: the control group of the shims, and
/// the file of the machine's password.
const RESERVED: [&str; 6] = ["openfaas", "default", "moby", "buildkit", "shims", "basic-auth-password"];

impl Default for Namespace {
    fn default() -> Self {
        Self("openfaas-fn".to_owned())
    }
}

fn host(text: &str) -> Result<(), Invalid> {
    let fits = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    if text.len() > LONGEST {
        return Err(Invalid(format!("is {} characters long, expected at most {LONGEST}", text.len())));
    }
    if !text.split('.').all(fits) {
        return Err(Invalid(
            "is not a host name, expected letters, digits and hyphens (no hyphen at the start or the end of a part)"
                .to_owned(),
        ));
    }
    // RFC 1123 2.1: what looks like an IPv4 address is one.
    if text.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return Err(Invalid("is only digits, expected a host name with at least one letter".to_owned()));
    }
    Ok(())
}

fn label(text: &str) -> Result<(), Invalid> {
    if text.len() > LONGEST {
        return Err(Invalid(format!("is {} characters long, expected at most {LONGEST}", text.len())));
    }
    let charset = text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if text.is_empty() || !charset || text.split('-').any(str::is_empty) {
        return Err(Invalid("is not a name that works everywhere, expected small letters, digits and single hyphens between them".to_owned()));
    }
    Ok(())
}

fn namespace(text: &str) -> Result<(), Invalid> {
    label(text)?;
    if RESERVED.contains(&text) {
        return Err(Invalid("is reserved for what is no function, expected another name".to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostnames() {
        for good in ["a", "barn", "Barn-7", "barn.example.org", "7up", &"x".repeat(63)] {
            assert!(good.parse::<Hostname>().is_ok(), "{good}");
        }
        for bad in
            ["", "-a", "a-", "a..b", ".a", "a.", "a_b", "a b", "häuschen", "10.0.0.1", "42", &"x".repeat(64)]
        {
            assert!(bad.parse::<Hostname>().is_err(), "{bad}");
        }
    }

    #[test]
    fn function_names() {
        for good in ["figlet", "f", "7", "a-b-c", &"x".repeat(63)] {
            assert!(good.parse::<FunctionName>().is_ok(), "{good}");
        }
        for bad in ["", "-", "a-", "-a", "a--b", "a.b", "A", "a_b", "a/b", "..", "a\0", &"x".repeat(64)] {
            assert!(bad.parse::<FunctionName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn namespaces() {
        assert_eq!(Namespace::default().as_str().parse(), Ok(Namespace::default()));
        for bad in
            ["openfaas", "default", "moby", "buildkit", "shims", "basic-auth-password", "k8s.io", "A", ""]
        {
            assert!(bad.parse::<Namespace>().is_err(), "{bad}");
        }
        // They are reserved as namespaces only.
        assert!("shims".parse::<FunctionName>().is_ok());
    }
}

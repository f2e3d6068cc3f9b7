//! A function's full name.

use std::fmt;

use provisioning::{FunctionName, Namespace};

/// Name and namespace: what identifies a function.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Its namespace, which is containerd's too.
    pub namespace: Namespace,
    /// Its name.
    pub name: FunctionName,
}

impl Key {
    /// Reads both parts; an empty namespace is the default one.
    pub fn new(name: &str, namespace: &str) -> Option<Self> {
        let namespace = if namespace.is_empty() { Namespace::default() } else { namespace.parse().ok()? };
        Some(Self { namespace, name: name.parse().ok()? })
    }

    /// Reads the name part of a path: `NAME` or `NAME.NAMESPACE`, split at the last dot.
    pub fn from_path(text: &str) -> Option<Self> {
        match text.rsplit_once('.') {
            Some((_, "")) => None,
            Some((name, namespace)) => Self::new(name, namespace),
            None => Self::new(text, ""),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.name, self.namespace)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn from_paths() {
        assert_eq!(Key::from_path("figlet").unwrap().to_string(), "figlet.openfaas-fn");
        assert_eq!(Key::from_path("figlet.dev").unwrap().to_string(), "figlet.dev");
        for bad in ["", ".", "..", "figlet.", ".dev", "a.b.c", "UP", "a/b"] {
            assert_eq!(Key::from_path(bad), None, "{bad}");
        }
    }
}

//! Where images come from: the registries that need more than their name, and when they are asked.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::{Hostname, Invalid};

/// Docker's own registry, and what it was called once.
const HUB: &str = "docker.io";
const LEGACY_HUB: &str = "index.docker.io";

/// `[registries]`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Registries {
    /// When a registry is asked for an image.
    pub pull_policy: PullPolicy,
    /// The file of their users and passwords, where it is not the machine's own.
    pub docker_config: Option<PathBuf>,
    /// What is said of single registries.
    pub named: BTreeMap<RegistryName, Registry>,
}

/// When a registry is asked for a function's image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PullPolicy {
    /// At each deployment.
    #[default]
    Always,
    /// Where the machine does not have it.
    IfNotPresent,
    /// Not at all.
    Never,
}

/// `[registries."NAME"]`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Registry {
    /// Who is asked before the registry itself, in this order.
    pub mirrors: Vec<Mirror>,
    /// Whether it is spoken to in plain HTTP.
    pub insecure: bool,
    /// File (PEM) of certificates that may have signed its own, besides the public ones.
    pub ca: Option<PathBuf>,
}

/// A registry as image references name it: `HOST` or `HOST:PORT`, in small letters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RegistryName(String);

/// Another place that has a registry's images: `HOST[:PORT]`, and `/PATH` where they lie below one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    /// The registry that it is. How it is spoken to stands in a table of its own name.
    pub registry: RegistryName,
    /// What comes before an image's own path there; empty, or without a slash at either end.
    pub path: String,
}

impl FromStr for PullPolicy {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        match text {
            "Always" => Ok(Self::Always),
            "IfNotPresent" => Ok(Self::IfNotPresent),
            "Never" => Ok(Self::Never),
            _ => Err(Invalid(
                "is not a pull policy, expected \"Always\", \"IfNotPresent\" or \"Never\"".to_owned(),
            )),
        }
    }
}

impl fmt::Display for PullPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Always => "Always",
            Self::IfNotPresent => "IfNotPresent",
            Self::Never => "Never",
        })
    }
}

impl RegistryName {
    /// As image references have it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for RegistryName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RegistryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for RegistryName {
    type Err = Invalid;

    /// A name without dot and port is taken for a folder of the default registry in a reference, `localhost` excepted:
    /// such a name would never be met.
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let refused = || {
            Invalid(
                "is not a registry, expected a host as image references name it, such as \"registry.example.org\" or \
                 \"10.0.0.7:5000\", without https:// before and without a path behind"
                    .to_owned(),
            )
        };
        let lower = text.to_ascii_lowercase();
        // As image references have it: both are one.
        let lower = if lower == LEGACY_HUB { HUB.to_owned() } else { lower };
        let (host, port) = match lower.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, Some(port)),
            _ => (lower.as_str(), None),
        };
        let is_port = |port: &str| port.parse::<u16>().is_ok_and(|number| number > 0);
        let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let is_host = match address {
            Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
            None => host.parse::<std::net::Ipv4Addr>().is_ok() || host.parse::<Hostname>().is_ok(),
        };
        let known = address.is_some() || host.contains('.') || port.is_some() || host == "localhost";
        if is_host && known && port.is_none_or(is_port) { Ok(Self(lower)) } else { Err(refused()) }
    }
}

impl FromStr for Mirror {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let refused = || {
            Invalid(
                "is not a mirror, expected a registry's host, such as \"mirror.example.org:5000\", and perhaps a path \
                 below it, such as \"mirror.example.org/hub\"; without https:// before (plain HTTP is allowed by \
                 `insecure` in a table of the mirror's own name)"
                    .to_owned(),
            )
        };
        let (host, path) = text.split_once('/').unwrap_or((text, ""));
        let path = path.strip_suffix('/').unwrap_or(path);
        let fits = |part: &str| {
            part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b))
                && part.bytes().any(|b| b != b'.')
        };
        if !path.is_empty() && !path.split('/').all(fits) {
            return Err(refused());
        }
        let registry = host.parse().map_err(|_| refused())?;
        Ok(Self { registry, path: path.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries() {
        for good in
            ["ghcr.io", "localhost", "localhost:5000", "plant:80", "10.0.0.7:5000", "[fd00::1]:5000", "[::1]"]
        {
            assert_eq!(good.parse::<RegistryName>().map(|name| name.to_string()), Ok(good.to_owned()));
        }
        assert_eq!("GHCR.io".parse::<RegistryName>().unwrap().as_str(), "ghcr.io");
        assert_eq!("index.docker.io".parse::<RegistryName>().unwrap().as_str(), "docker.io");
        for bad in [
            "",
            "ghcr",
            "https://ghcr.io",
            "ghcr.io/",
            "ghcr.io/farm",
            "a.b:0",
            "a.b:x",
            "a.b:70000",
            "a b.c",
            ".io",
            ":5000",
            "[fd00]",
        ] {
            assert!(bad.parse::<RegistryName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn mirrors() {
        for (text, registry, path) in [
            ("mirror.example.org", "mirror.example.org", ""),
            ("10.0.0.7:5000", "10.0.0.7:5000", ""),
            ("mirror.example.org/hub/x/", "mirror.example.org", "hub/x"),
        ] {
            let mirror: Mirror = text.parse().unwrap();
            assert_eq!((mirror.registry.as_str(), mirror.path.as_str()), (registry, path));
        }
        for bad in ["", "http://a.b", "a.b//x", "a.b/..", "a.b/X", "a.b/x?y", "hub/x"] {
            assert!(bad.parse::<Mirror>().is_err(), "{bad}");
        }
    }

    #[test]
    fn policies() {
        for policy in [PullPolicy::Always, PullPolicy::IfNotPresent, PullPolicy::Never] {
            assert_eq!(policy.to_string().parse(), Ok(policy));
        }
        assert!("always".parse::<PullPolicy>().is_err());
        assert_eq!(PullPolicy::default(), PullPolicy::Always);
    }
}

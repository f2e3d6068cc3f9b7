//! Placement constraints. One machine has nothing to choose: it meets a constraint or it does not.
//!
//! Two forms are about: Swarm's `node.platform.os == linux` and the `kubernetes.io/arch=amd64` of a node selector. Either
//! operator is taken for either key, and `!=` as well. A key that this machine has no value for meets no `==`.

use std::fs;

use crate::error::{Error, Result};

/// What can be asked of a machine.
#[derive(Debug, Clone)]
struct Machine<'a> {
    /// Architecture as Rust and uname(2) name it.
    arch: &'a str,
    hostname: &'a str,
}

/// Refuses constraints that this machine does not meet; the error names them all.
pub fn check(constraints: &[String]) -> Result<()> {
    if constraints.is_empty() {
        return Ok(());
    }
    let hostname = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let machine = Machine { arch: std::env::consts::ARCH, hostname: hostname.trim() };
    let unmet = unmet(constraints, &machine);
    if unmet.is_empty() {
        return Ok(());
    }
    let Machine { arch, hostname } = machine;
    Err(Error::Invalid {
        what: format!("constraints: {}", unmet.join(", ")),
        reason: format!("not met by this machine (os linux, arch {arch}, hostname {hostname:?})"),
    })
}

/// Those that a machine does not meet, each in quotes.
fn unmet(constraints: &[String], machine: &Machine<'_>) -> Vec<String> {
    constraints.iter().filter(|text| !is_met(text, machine)).map(|text| format!("{text:?}")).collect()
}

fn is_met(text: &str, machine: &Machine<'_>) -> bool {
    let (key, value, equal) = match (text.split_once("!="), text.split_once("=="), text.split_once('=')) {
        (Some((key, value)), ..) => (key, value, false),
        (None, Some((key, value)), _) | (None, None, Some((key, value))) => (key, value, true),
        (None, None, None) => return false,
    };
    let (key, value) = (key.trim(), value.trim());
    let fits = match key {
        "node.platform.os" | "kubernetes.io/os" | "beta.kubernetes.io/os" => {
            value.eq_ignore_ascii_case("linux")
        }
        "node.platform.arch" | "kubernetes.io/arch" | "beta.kubernetes.io/arch" => {
            names(machine.arch).iter().any(|name| value.eq_ignore_ascii_case(name))
                || value.eq_ignore_ascii_case(machine.arch)
        }
        "node.hostname" | "kubernetes.io/hostname" => value == machine.hostname,
        _ => false,
    };
    !key.is_empty() && fits == equal
}

/// What images and orchestrators call an architecture.
fn names(arch: &str) -> &'static [&'static str] {
    match arch {
        "x86_64" => &["amd64"],
        "aarch64" => &["arm64"],
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn found(constraints: &[&str]) -> Vec<String> {
        let constraints: Vec<String> = constraints.iter().map(|text| (*text).to_owned()).collect();
        unmet(&constraints, &Machine { arch: "aarch64", hostname: "barn" })
    }

    #[test]
    fn both_forms_and_all_operators() {
        let met = [
            "node.platform.os == linux",
            "node.platform.os==Linux",
            "node.platform.os=linux",
            "node.platform.os != windows",
            "node.platform.arch == aarch64",
            "node.platform.arch = arm64",
            "node.platform.arch!=x86_64",
            "kubernetes.io/arch=arm64",
            "kubernetes.io/os = linux",
            "beta.kubernetes.io/arch == ARM64",
            "kubernetes.io/hostname=barn",
            "node.hostname != shed",
            // Nothing here has that label, so nothing here has that value of it.
            "node.labels.disk != spinning",
        ];
        assert_eq!(found(&met), Vec::<String>::new());
        for unmet in [
            "node.platform.os == windows",
            "node.platform.os != linux",
            "node.platform.arch == amd64",
            "node.platform.arch != arm64",
            "kubernetes.io/arch=x86_64",
            "node.hostname == Barn",
            "node.labels.disk == ssd",
            "node.role == manager",
            "linux",
            "",
            "==",
            "!= x",
        ] {
            assert_eq!(found(&[unmet]), [format!("{unmet:?}")]);
        }
    }

    #[test]
    fn this_machine() {
        let arch = format!("node.platform.arch == {}", std::env::consts::ARCH);
        check(&["node.platform.os == linux".into(), arch.clone()]).unwrap();
        let wrong = check(&[arch, "a == b".into(), "c=d".into()]).unwrap_err().to_string();
        assert!(
            wrong.starts_with("constraints: \"a == b\", \"c=d\" not met by this machine (os linux"),
            "{wrong}"
        );
    }

    proptest! {
        #[test]
        fn never_panics(text in ".{0,40}") {
            let _ = found(&[&text]);
        }
    }
}

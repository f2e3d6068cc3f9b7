//! `/usr/lib/sysctl.d`: `name = value` lines (sysctl.d(5)).

use std::io::ErrorKind;
use std::path::Path;

use crate::error::{Error, Result};
use crate::file;

/// What did not work.
#[derive(Debug, Default)]
pub(super) struct Left {
    /// Settings that this kernel does not have.
    pub unknown: Vec<String>,
    /// Settings that it has and did not take, files that could not be read.
    pub errors: Vec<Error>,
}

/// Writes all settings of a folder's files. A name with `-` before it may be unknown to a kernel without a word.
pub(super) fn apply(folder: &Path, root: &Path) -> Left {
    let mut left = Left::default();
    for path in file::configurations(folder) {
        let text = match file::read(&path) {
            Ok(text) => text,
            Err(error) => {
                left.errors.push(error);
                continue;
            }
        };
        for (name, value) in parse(&text) {
            let (name, optional) = name.strip_prefix('-').map_or((name, false), |name| (name, true));
            match set(root, name, value) {
                Ok(()) => {}
                Err(Error::Write { source, .. }) if source.kind() == ErrorKind::NotFound => {
                    if !optional {
                        left.unknown.push(name.to_owned());
                    }
                }
                Err(error) => left.errors.push(error),
            }
        }
    }
    left
}

fn parse(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with(['#', ';']));
    lines.filter_map(|line| line.split_once('=').map(|(name, value)| (name.trim(), value.trim())))
}

fn set(root: &Path, name: &str, value: &str) -> Result<()> {
    // With a slash, dots are dots.
    let path = root.join(if name.contains('/') { name.to_owned() } else { name.replace('.', "/") });
    // Some can be written once in a boot: a supervisor that starts again finds them as they should be.
    if file::read(&path).is_ok_and(|now| now.split_whitespace().eq(value.split_whitespace())) {
        return Ok(());
    }
    file::poke(path, value)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;

    use super::*;

    const OURS: &str = include_str!("../../../overlay/usr/lib/sysctl.d/bothy.conf");

    #[test]
    fn sets_what_is_there_and_names_what_is_not() {
        let root = tempfile::tempdir().unwrap();
        let conf = root.path().join("sysctl.d");
        fs::create_dir_all(&conf).unwrap();
        fs::create_dir_all(root.path().join("net/ipv4")).unwrap();
        fs::create_dir_all(root.path().join("kernel/refuses")).unwrap();
        fs::write(root.path().join("net/ipv4/ip_forward"), "0").unwrap();
        fs::write(
            conf.join("a.conf"),
            "# x\nnet.ipv4.ip_forward = 1\n-kernel.absent = 1\nkernel.missing=1\nkernel.refuses=1\n",
        )
        .unwrap();
        let left = apply(&conf, root.path());
        assert_eq!(left.unknown, ["kernel.missing"]);
        assert_eq!(left.errors.len(), 1, "{left:?}");
        assert!(left.errors[0].to_string().contains("kernel/refuses"));
        assert_eq!(fs::read_to_string(root.path().join("net/ipv4/ip_forward")).unwrap(), "1");
    }

    #[test]
    fn one_that_is_set_is_not_written_again() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("once");
        fs::write(&path, "4\t4 1\n").unwrap();
        set(root.path(), "once", "4 4 1").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "4\t4 1\n");
        set(root.path(), "once", "5").unwrap();
        assert!(fs::read_to_string(&path).unwrap().starts_with('5'));
    }

    #[test]
    fn ours_are_said_once_each() {
        let names: Vec<_> = parse(OURS).map(|(name, _)| name.trim_start_matches('-')).collect();
        let different: BTreeSet<_> = names.iter().collect();
        assert_eq!(names.len(), different.len());
        for wanted in ["kernel.panic", "kernel.panic_on_oops", "vm.panic_on_oom", "kernel.kptr_restrict"] {
            assert!(names.contains(&wanted), "{wanted}");
        }
    }
}

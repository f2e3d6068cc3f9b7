//! `/usr/lib/sysctl.d`: `name = value` lines (sysctl.d(5)).

use std::path::Path;

use crate::error::{Error, Result};
use crate::file;

/// Writes all settings of a folder's files. Gives what failed; a name with `-` before it may be unknown to a kernel.
pub(super) fn apply(folder: &Path, root: &Path) -> Vec<Error> {
    let mut errors = Vec::new();
    for path in file::configurations(folder) {
        match file::read(&path) {
            Ok(text) => errors.extend(parse(&text).filter_map(|(name, value)| set(root, name, value).err())),
            Err(error) => errors.push(error),
        }
    }
    errors
}

fn parse(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with(['#', ';']));
    lines.filter_map(|line| line.split_once('=').map(|(name, value)| (name.trim(), value.trim())))
}

fn set(root: &Path, name: &str, value: &str) -> Result<()> {
    let (name, optional) = name.strip_prefix('-').map_or((name, false), |name| (name, true));
    // With a slash, dots are dots.
    let path = if name.contains('/') { name.to_owned() } else { name.replace('.', "/") };
    match file::poke(root.join(path), value) {
        Err(Error::Write { .. }) if optional => Ok(()),
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn sets_what_is_there_and_names_what_is_not() {
        let root = tempfile::tempdir().unwrap();
        let conf = root.path().join("sysctl.d");
        fs::create_dir_all(&conf).unwrap();
        fs::create_dir_all(root.path().join("net/ipv4")).unwrap();
        fs::write(root.path().join("net/ipv4/ip_forward"), "0").unwrap();
        fs::write(
            conf.join("a.conf"),
            "# x\nnet.ipv4.ip_forward = 1\n-kernel.absent = 1\nkernel.missing=1\n",
        )
        .unwrap();
        let errors = apply(&conf, root.path());
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert!(errors[0].to_string().contains("kernel/missing"));
        assert_eq!(fs::read_to_string(root.path().join("net/ipv4/ip_forward")).unwrap(), "1");
    }
}

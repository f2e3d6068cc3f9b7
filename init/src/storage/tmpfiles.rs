//! `/usr/lib/tmpfiles.d`, the part we use: `d PATH MODE UID GID -` makes a folder (tmpfiles.d(5)).

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::file;

/// A folder that must be there.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Folder {
    path: PathBuf,
    mode: u32,
    user: u32,
    group: u32,
}

/// Makes all folders of all files, below `root`. Gives what failed; the rest is made.
pub(crate) fn apply(folder: &Path, root: &Path) -> Vec<Error> {
    let mut errors = Vec::new();
    for path in file::configurations(folder) {
        match file::read(&path) {
            Ok(text) => errors.extend(parse(&text).iter().filter_map(|line| make(line, root).err())),
            Err(error) => errors.push(error),
        }
    }
    errors
}

/// Reads lines; other types than `d`, and lines that are none, are not ours.
fn parse(text: &str) -> Vec<Folder> {
    let line = |line: &str| {
        let mut words = line.split_whitespace();
        if words.next()? != "d" {
            return None;
        }
        let path = PathBuf::from(words.next().filter(|path| path.starts_with('/') && !path.contains(".."))?);
        let mut field = |default: u32, radix: u32| match words.next() {
            None | Some("-") => Some(default),
            Some("root") => Some(0),
            Some(word) => u32::from_str_radix(word, radix).ok(),
        };
        Some(Folder { path, mode: field(0o755, 8)?, user: field(0, 10)?, group: field(0, 10)? })
    };
    text.lines().filter_map(line).collect()
}

fn make(folder: &Folder, root: &Path) -> Result<()> {
    let path = root.join(folder.path.strip_prefix("/").unwrap_or(&folder.path));
    fs::create_dir_all(&path).map_err(Error::write(&path))?;
    let meta = fs::symlink_metadata(&path).map_err(Error::read(&path))?;
    // Written only where it is another: the disk of a second boot stays untouched.
    if (meta.uid(), meta.gid()) != (folder.user, folder.group) {
        chown(&path, Some(folder.user), Some(folder.group)).map_err(Error::write(&path))?;
    }
    if meta.mode() & 0o7777 != folder.mode {
        fs::set_permissions(&path, Permissions::from_mode(folder.mode)).map_err(Error::write(&path))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_part_we_use() {
        let text = "# skeleton\nd /var/lib/nats 0700 900 900 -\nL /x - - - - /y\nd /var/log\nd relative 0755 0 0\nd /var/../etc 0777\nd /var/x 9 0 0\n";
        let nats = Folder { path: "/var/lib/nats".into(), mode: 0o700, user: 900, group: 900 };
        let log = Folder { path: "/var/log".into(), mode: 0o755, user: 0, group: 0 };
        assert_eq!(parse(text), [nats, log]);
    }

    #[test]
    fn makes_folders_and_names_what_failed() {
        let root = tempfile::tempdir().unwrap();
        let conf = root.path().join("tmpfiles.d");
        fs::create_dir(&conf).unwrap();
        fs::write(root.path().join("blocked"), "").unwrap();
        let me = fs::metadata(&conf).unwrap();
        let (user, group) = (me.uid(), me.gid());
        let text = format!("d /a/b 0700 {user} {group} -\nd /blocked/c 0755 {user} {group} -\n");
        fs::write(conf.join("x.conf"), text).unwrap();
        let errors = apply(&conf, root.path());
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert_eq!(fs::metadata(root.path().join("a/b")).unwrap().mode() & 0o7777, 0o700);
    }
}

//! The user of an image's configuration, as numbers. Names are looked up in the image's own files.

use std::fs;
use std::path::Path;

use containerd_client::types::Mount;

/// Largest `/etc/passwd` or `/etc/group` of an image that is read: it comes from outside.
const LARGEST_BYTES: u64 = 1 << 20;

/// Who a process runs as.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    /// User number.
    pub uid: u32,
    /// Group number.
    pub gid: u32,
    /// Further groups.
    pub groups: Vec<u32>,
}

/// Resolves `user`, `uid`, `user:group`, `uid:gid` or an empty text (root), given the image's passwd and group files.
/// A group that is not named is the user's own, or 0. The error is one line.
pub fn resolve(text: &str, passwd: &str, group: &str) -> Result<Identity, String> {
    if text.is_empty() {
        return Ok(Identity::default());
    }
    let (user, group_name) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    let entry = lines(passwd)
        .find(|fields: &Vec<&str>| fields.first() == Some(&user) || fields.get(2) == Some(&user));
    let entry_number =
        |index: usize| entry.as_ref().and_then(|fields: &Vec<&str>| fields.get(index)?.parse::<u32>().ok());
    // A number is itself, even where passwd has a user of that name.
    let uid =
        user.parse().ok().or_else(|| entry_number(2)).ok_or_else(|| format!("it has no user {user:?}"))?;
    let gid = match group_name {
        None => entry_number(3).unwrap_or(0),
        Some(name) => {
            let entry = lines(group).find(|fields| fields.first() == Some(&name));
            let number = || entry?.get(2)?.parse().ok();
            name.parse().ok().or_else(number).ok_or_else(|| format!("it has no group {name:?}"))?
        }
    };
    let name = entry.as_ref().and_then(|fields| fields.first().copied());
    let is_member =
        |fields: &Vec<&str>| fields.get(3).is_some_and(|list| list.split(',').any(|m| Some(m) == name));
    let mut groups: Vec<u32> = match group_name {
        Some(_) => Vec::new(),
        None => lines(group).filter(is_member).filter_map(|fields| fields.get(2)?.parse().ok()).collect(),
    };
    groups.retain(|number| *number != gid);
    Ok(Identity { uid, gid, groups })
}

fn lines(text: &str) -> impl Iterator<Item = Vec<&str>> {
    text.lines().map(|line| line.split(':').collect())
}

/// Reads a file of an image out of its snapshot without mounting it: overlay's folders are searched from the top.
/// Only plain files in plain folders count: a link could lead out of the image.
pub fn read_file(mounts: &[Mount], path: &str) -> String {
    folders(mounts).find_map(|folder| read_plain(Path::new(folder), path)).unwrap_or_default()
}

fn folders(mounts: &[Mount]) -> impl Iterator<Item = &str> {
    mounts.iter().take(1).flat_map(|mount| {
        let bind = (mount.r#type == "bind").then_some(mount.source.as_str());
        let option =
            |name: &'static str| mount.options.iter().filter_map(move |option| option.strip_prefix(name));
        bind.into_iter()
            .chain(option("upperdir="))
            .chain(option("lowerdir=").flat_map(|folders| folders.split(':')))
    })
}

fn read_plain(root: &Path, path: &str) -> Option<String> {
    let mut at = root.to_owned();
    let mut kind = None;
    for part in path.trim_start_matches('/').split('/') {
        at.push(part);
        kind = Some(fs::symlink_metadata(&at).ok()?);
        if kind.as_ref()?.is_symlink() {
            return None;
        }
    }
    kind.filter(|kind| kind.is_file() && kind.len() <= LARGEST_BYTES)?;
    Some(String::from_utf8_lossy(&fs::read(&at).ok()?).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\napp:x:100:101::/home/app:/bin/sh\nbroken\n";
    const GROUP: &str = "root:x:0:\napp:x:101:app\nextra:x:200:other,app\n";

    #[test]
    fn all_forms() {
        let id = |uid, gid, groups: &[u32]| Ok(Identity { uid, gid, groups: groups.to_vec() });
        for (text, wanted) in [
            ("", id(0, 0, &[])),
            ("app", id(100, 101, &[200])),
            ("100", id(100, 101, &[200])),
            ("app:extra", id(100, 200, &[])),
            ("1000:1000", id(1000, 1000, &[])),
            ("1000", id(1000, 0, &[])),
            ("0", id(0, 0, &[])),
        ] {
            assert_eq!(resolve(text, PASSWD, GROUP), wanted, "{text}");
        }
        assert_eq!(resolve("nobody", PASSWD, GROUP), Err("it has no user \"nobody\"".into()));
        assert_eq!(resolve("app:x", PASSWD, GROUP), Err("it has no group \"x\"".into()));
        assert!(resolve("-1", PASSWD, GROUP).is_err());
    }

    #[test]
    fn reads_from_the_topmost_folder_and_follows_no_link() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for name in ["upper", "low1/etc", "low2/etc"] {
            fs::create_dir_all(path(name)).unwrap();
        }
        std::os::unix::fs::symlink("/etc/passwd", path("low1/etc/passwd")).unwrap();
        fs::write(path("low2/etc/passwd"), PASSWD).unwrap();
        let options = vec![
            "index=off".into(),
            format!("upperdir={}", path("upper").display()),
            format!("lowerdir={}:{}", path("low1").display(), path("low2").display()),
        ];
        let mounts = [Mount { r#type: "overlay".into(), options, ..Default::default() }];
        assert_eq!(read_file(&mounts, "/etc/passwd"), PASSWD);
        assert_eq!(read_file(&mounts, "/etc/group"), "");
    }
}

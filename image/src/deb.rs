//! Reads Debian's binary packages (deb(5)): an ar archive that holds `control.tar` and `data.tar`, compressed.

use std::io::Read;

use crate::tree::{Node, Tree};

/// What a package holds.
pub struct Deb {
    /// The uncompressed `data.tar`: the package's files.
    pub data: Vec<u8>,
    /// The uncompressed `control.tar`: description and maintainer scripts.
    pub control: Vec<u8>,
}

impl Deb {
    /// Takes a package apart.
    ///
    /// # Errors
    /// A sentence about what is wrong with it.
    pub fn parse(bytes: &[u8]) -> Result<Deb, String> {
        let (mut data, mut control) = (None, None);
        for member in Members::new(bytes)? {
            let (name, content) = member?;
            let place = match name.split_once('.').map_or(name, |(stem, _)| stem) {
                "data" => &mut data,
                "control" => &mut control,
                _ => continue,
            };
            *place = Some(decompress(name, content).map_err(|e| format!("{name}: {e}"))?);
        }
        Ok(Deb { data: data.ok_or("it has no data.tar")?, control: control.ok_or("it has no control.tar")? })
    }
}

/// Uncompresses a member by the ending of its name.
fn decompress(name: &str, content: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut out = Vec::new();
    match name.rsplit_once('.').map_or("", |(_, ending)| ending) {
        "tar" => out.extend_from_slice(content),
        "xz" => lzma_rust2::XzReader::new(content, true).read_to_end(&mut out).map(drop)?,
        "zst" => zstd::stream::copy_decode(content, &mut out)?,
        other => return Err(std::io::Error::other(format!("compression {other:?} is unknown"))),
    }
    Ok(out)
}

/// The members of an ar archive in the common format: 60 byte headers, contents padded to even offsets.
struct Members<'a> {
    rest: &'a [u8],
}

impl<'a> Members<'a> {
    fn new(bytes: &'a [u8]) -> Result<Self, String> {
        let rest = bytes.strip_prefix(b"!<arch>\n").ok_or("it is no ar archive")?;
        Ok(Members { rest })
    }

    fn member(&mut self) -> Result<(&'a str, &'a [u8]), String> {
        let (header, after) = self.rest.split_at_checked(60).ok_or("a header is cut short")?;
        if &header[58..] != b"`\n" {
            return Err("a header is damaged".into());
        }
        let text = |range: std::ops::Range<usize>| std::str::from_utf8(&header[range]).map(str::trim);
        let name = text(0..16).map_err(|_| "a name is not text")?.trim_end_matches('/');
        let size: usize = text(48..58)
            .ok()
            .and_then(|s| s.parse().ok())
            .ok_or_else(|| format!("the size of {name} is no number"))?;
        let (content, after) = after.split_at_checked(size).ok_or_else(|| format!("{name} is cut short"))?;
        self.rest = after.get(size % 2..).unwrap_or_default();
        Ok((name, content))
    }
}

impl<'a> Iterator for Members<'a> {
    type Item = Result<(&'a str, &'a [u8]), String>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let member = self.member();
        if member.is_err() {
            self.rest = &[];
        }
        Some(member)
    }
}

/// The files of an uncompressed `data.tar` as a tree, with the owners and modes that the package gives them.
///
/// # Errors
/// The archive is damaged or holds a kind of file that no package should have.
pub fn tree(data: &[u8]) -> Result<Tree, String> {
    let mut tree = Tree::default();
    let mut archive = tar::Archive::new(data);
    let mut links = Vec::new();
    for entry in archive.entries().map_err(|e| e.to_string())? {
        let mut entry = entry.map_err(|e| e.to_string())?;
        let path = String::from_utf8(entry.path_bytes().into_owned()).map_err(|_| "a path is not UTF-8")?;
        let path = path.trim_start_matches("./").trim_matches('/').to_owned();
        if path.is_empty() {
            continue;
        }
        let header = entry.header();
        let mode = header.mode().map_err(|e| format!("{path}: {e}"))? & 0o7777;
        let uid = header.uid().map_err(|e| format!("{path}: {e}"))? as u32;
        let gid = header.gid().map_err(|e| format!("{path}: {e}"))? as u32;
        let link = |entry: &tar::Entry<&[u8]>| -> Result<String, String> {
            let target = entry.link_name_bytes().ok_or_else(|| format!("{path}: a link without a target"))?;
            String::from_utf8(target.into_owned()).map_err(|_| format!("{path}: its target is not UTF-8"))
        };
        let node = match header.entry_type() {
            tar::EntryType::Directory => Node::folder(mode),
            tar::EntryType::Regular => {
                let mut bytes = Vec::with_capacity(entry.size() as usize);
                entry.read_to_end(&mut bytes).map_err(|e| format!("{path}: {e}"))?;
                Node::file(mode, bytes)
            }
            tar::EntryType::Symlink => Node::link(link(&entry)?),
            tar::EntryType::Link => {
                let target = link(&entry)?;
                links.push((path, target.trim_start_matches("./").to_owned()));
                continue;
            }
            other => return Err(format!("{path}: unexpected kind of file {other:?}")),
        };
        tree.insert(&path, node.owned_by(uid, gid));
    }
    for (path, target) in links {
        let node = tree
            .get(&target)
            .cloned()
            .ok_or_else(|| format!("{path}: a link to {target}, which is not there"))?;
        tree.insert(&path, node);
    }
    Ok(tree)
}

/// The scripts in an uncompressed `control.tar` that an installation would run: name and text.
///
/// # Errors
/// The archive is damaged.
pub fn scripts(control: &[u8]) -> Result<Vec<(String, Vec<u8>)>, String> {
    let tree = tree(control)?;
    let names = ["preinst", "postinst"];
    Ok(names.iter().filter_map(|n| Some(((*n).to_owned(), tree.file(n)?.to_vec()))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ar(members: &[(&str, &[u8])]) -> Vec<u8> {
        let mut bytes = b"!<arch>\n".to_vec();
        for (name, content) in members {
            bytes.extend(
                format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", 0, 0, 0, 100644, content.len()).bytes(),
            );
            bytes.extend_from_slice(content);
            if content.len() % 2 == 1 {
                bytes.push(b'\n');
            }
        }
        bytes
    }

    #[test]
    fn a_package_of_two_archives() {
        let mut files = Tree::default();
        files.insert("usr/bin/x", Node::file(0o4755, b"odd".to_vec()).owned_by(7, 8));
        let mut data = Vec::new();
        files.write_tar(&mut data, 0).unwrap();
        let data = zstd::encode_all(&data[..], 1).unwrap();
        let deb = ar(&[("debian-binary", b"2.0\n"), ("control.tar", b""), ("data.tar.zst", &data)]);
        let deb = Deb::parse(&deb).unwrap();
        let tree = tree(&deb.data).unwrap();
        let node = tree.get("usr/bin/x").unwrap();
        assert_eq!((node.mode, node.uid, node.gid), (0o4755, 7, 8));
        assert_eq!(tree.file("usr/bin/x"), Some(&b"odd"[..]));
    }

    #[test]
    fn damage_is_an_error() {
        assert!(Deb::parse(b"nothing").is_err());
        let good = ar(&[("control.tar", b""), ("data.tar", b"")]);
        assert!(Deb::parse(&good).is_ok());
        for cut in 1..good.len() - 8 {
            let _ = Deb::parse(&good[..good.len() - cut]);
        }
        assert!(Deb::parse(&good[..good.len() - 1]).is_err());
    }
}

//! A file tree in memory, with owners and modes that nobody needs privileges for, and its archives.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::Arc;

use crate::error::{Error, Result};

/// A file, folder or symbolic link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Permission bits, set-id bits included.
    pub mode: u32,
    /// Numeric owner.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
    /// What it is.
    pub kind: Kind,
}

/// The kinds of node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A folder.
    Folder,
    /// A file with its content.
    File(Arc<[u8]>),
    /// A symbolic link with its target.
    Link(String),
}

impl Node {
    /// A folder of root's.
    pub fn folder(mode: u32) -> Node {
        Node { mode, uid: 0, gid: 0, kind: Kind::Folder }
    }

    /// A file of root's.
    pub fn file(mode: u32, bytes: impl Into<Arc<[u8]>>) -> Node {
        Node { mode, uid: 0, gid: 0, kind: Kind::File(bytes.into()) }
    }

    /// A symbolic link.
    pub fn link(target: impl Into<String>) -> Node {
        Node { mode: 0o777, uid: 0, gid: 0, kind: Kind::Link(target.into()) }
    }

    /// The same with another owner.
    pub fn owned_by(mut self, uid: u32, gid: u32) -> Node {
        (self.uid, self.gid) = (uid, gid);
        self
    }
}

/// Files by path. A path is relative to the root, without a leading or trailing slash; order is that of bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tree {
    nodes: BTreeMap<String, Node>,
}

impl Tree {
    /// Adds or replaces a node, and makes the folders above it (mode 755) where they are missing.
    pub fn insert(&mut self, path: &str, node: Node) {
        let mut end = 0;
        while let Some(next) = path[end..].find('/') {
            end += next;
            self.nodes.entry(path[..end].to_owned()).or_insert_with(|| Node::folder(0o755));
            end += 1;
        }
        self.nodes.insert(path.to_owned(), node);
    }

    /// The node at a path, links not followed.
    pub fn get(&self, path: &str) -> Option<&Node> {
        self.nodes.get(path)
    }

    /// The content of the file at a path, links not followed.
    pub fn file(&self, path: &str) -> Option<&[u8]> {
        match &self.get(path)?.kind {
            Kind::File(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// All nodes in order of their paths.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Node)> {
        self.nodes.iter().map(|(path, node)| (path.as_str(), node))
    }

    /// Lays another tree over this one: its files win; a folder here keeps its mode and owner.
    pub fn overlay(&mut self, other: &Tree) {
        for (path, node) in other.iter() {
            let both_folders =
                node.kind == Kind::Folder && self.get(path).is_some_and(|n| n.kind == Kind::Folder);
            if !both_folders {
                self.insert(path, node.clone());
            }
        }
    }

    /// Follows symbolic links in every part of a path, as the kernel would with this tree as its root.
    /// Returns the final path, whether or not something is there; `None` when links go in circles.
    pub fn resolve(&self, path: &str) -> Option<String> {
        let mut todo: Vec<String> = path.split('/').rev().map(str::to_owned).collect();
        let mut done: Vec<String> = Vec::new();
        let mut links = 0;
        while let Some(part) = todo.pop() {
            match part.as_str() {
                "" | "." => continue,
                ".." => {
                    done.pop();
                    continue;
                }
                _ => done.push(part),
            }
            if let Some(Node { kind: Kind::Link(target), .. }) = self.get(&done.join("/")) {
                links += 1;
                if links > 40 {
                    return None;
                }
                done.pop();
                if target.starts_with('/') {
                    done.clear();
                }
                todo.extend(target.split('/').rev().map(str::to_owned));
            }
        }
        Some(done.join("/"))
    }

    /// The sum of all file contents in bytes.
    pub fn size(&self) -> u64 {
        self.nodes.values().map(|n| if let Kind::File(b) = &n.kind { b.len() as u64 } else { 0 }).sum()
    }

    /// Writes the tree as a tar archive, every time stamp `epoch`.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn write_tar(&self, out: impl Write, epoch: u64) -> io::Result<()> {
        let mut builder = tar::Builder::new(out);
        for (path, node) in self.iter() {
            let mut header = tar::Header::new_gnu();
            header.set_mode(node.mode);
            header.set_uid(node.uid.into());
            header.set_gid(node.gid.into());
            header.set_mtime(epoch);
            match &node.kind {
                Kind::Folder => {
                    header.set_entry_type(tar::EntryType::Directory);
                    header.set_size(0);
                    builder.append_data(&mut header, format!("{path}/"), io::empty())?;
                }
                Kind::File(bytes) => {
                    header.set_entry_type(tar::EntryType::Regular);
                    header.set_size(bytes.len() as u64);
                    builder.append_data(&mut header, path, &bytes[..])?;
                }
                Kind::Link(target) => {
                    header.set_entry_type(tar::EntryType::Symlink);
                    header.set_size(0);
                    builder.append_link(&mut header, path, target)?;
                }
            }
        }
        builder.into_inner()?.flush()
    }

    /// Writes the tree as an archive of the kernel's initramfs format (`newc`, see
    /// Documentation/driver-api/early-userspace/buffer-format.rst), every time stamp `epoch`.
    ///
    /// # Errors
    /// Those of the writer, and a file of 4 GiB or more.
    pub fn write_cpio(&self, mut out: impl Write, epoch: u64) -> io::Result<()> {
        let mut inode = 0u32;
        let mut entry = |path: &str, mode: u32, uid: u32, gid: u32, content: &[u8]| -> io::Result<()> {
            inode += 1;
            let size = u32::try_from(content.len()).map_err(io::Error::other)?;
            let time = u32::try_from(epoch).map_err(io::Error::other)?;
            let name_size = path.len() as u32 + 1;
            let links = 1;
            let fields = [inode, mode, uid, gid, links, time, size, 0, 0, 0, 0, name_size, 0];
            let mut header = String::from("070701");
            fields.iter().for_each(|field| header.push_str(&format!("{field:08x}")));
            header.push_str(path);
            out.write_all(header.as_bytes())?;
            // The name ends with a NUL; header and name, and the content, are padded to multiples of four.
            out.write_all(&[0; 4][..4 - header.len() % 4])?;
            out.write_all(content)?;
            out.write_all(&[0; 4][..(4 - content.len() % 4) % 4])
        };
        for (path, node) in self.iter() {
            let (kind, content): (u32, &[u8]) = match &node.kind {
                Kind::Folder => (0o040000, &[]),
                Kind::File(bytes) => (0o100000, bytes),
                Kind::Link(target) => (0o120000, target.as_bytes()),
            };
            entry(path, kind | node.mode, node.uid, node.gid, content)?;
        }
        entry("TRAILER!!!", 0, 0, 0, &[])
    }

    /// Reads a folder of this machine: contents and whether a file may be executed; owners become root's.
    ///
    /// # Errors
    /// Something cannot be read, or is neither file, folder nor symbolic link.
    pub fn read_folder(folder: &std::path::Path) -> Result<Tree> {
        let mut tree = Tree::default();
        tree.read_into(folder, "")?;
        Ok(tree)
    }

    fn read_into(&mut self, folder: &std::path::Path, prefix: &str) -> Result<()> {
        use std::os::unix::fs::PermissionsExt;
        for entry in std::fs::read_dir(folder).map_err(Error::read(folder))? {
            let entry = entry.map_err(Error::read(folder))?;
            let place = entry.path();
            let name = entry.file_name();
            let name =
                name.to_str().ok_or_else(|| Error::Tree(format!("{} is not UTF-8", place.display())))?;
            let path = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}/{name}") };
            let meta = entry.metadata().map_err(Error::read(&place))?;
            if meta.is_dir() {
                self.insert(&path, Node::folder(0o755));
                self.read_into(&place, &path)?;
            } else if meta.is_symlink() {
                let target = std::fs::read_link(&place).map_err(Error::read(&place))?;
                self.insert(&path, Node::link(target.to_string_lossy()));
            } else if meta.is_file() {
                // Of the mode only this bit counts: the rest depends on the umask of whoever checked the sources out.
                let mode = if meta.permissions().mode() & 0o100 != 0 { 0o755 } else { 0o644 };
                self.insert(&path, Node::file(mode, std::fs::read(&place).map_err(Error::read(&place))?));
            } else {
                return Err(Error::Tree(format!("{} is neither file, folder nor link", place.display())));
            }
        }
        Ok(())
    }

    /// Writes the tree as files of this machine, owned by whoever runs this.
    ///
    /// # Errors
    /// Something cannot be written.
    pub fn write_folder(&self, folder: &std::path::Path) -> Result<()> {
        use std::os::unix::fs::PermissionsExt;
        std::fs::create_dir_all(folder).map_err(Error::write(folder))?;
        for (path, node) in self.iter() {
            let place = folder.join(path);
            match &node.kind {
                Kind::Folder => std::fs::create_dir_all(&place).map_err(Error::write(&place))?,
                Kind::Link(target) => {
                    std::os::unix::fs::symlink(target, &place).map_err(Error::write(&place))?
                }
                Kind::File(bytes) => {
                    std::fs::write(&place, bytes).map_err(Error::write(&place))?;
                    let mode = std::fs::Permissions::from_mode(node.mode & 0o777);
                    std::fs::set_permissions(&place, mode).map_err(Error::write(&place))?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Tree {
        let mut tree = Tree::default();
        tree.insert("usr/bin/tool", Node::file(0o755, b"12345".to_vec()).owned_by(3, 4));
        tree.insert("bin", Node::link("usr/bin"));
        tree.insert("usr/bin/alias", Node::link("/bin/tool"));
        tree.insert("loop", Node::link("loop"));
        tree
    }

    #[test]
    fn links_are_followed_in_the_tree() {
        let tree = sample();
        assert_eq!(tree.resolve("bin/alias").as_deref(), Some("usr/bin/tool"));
        assert_eq!(tree.resolve("usr/../bin/./tool").as_deref(), Some("usr/bin/tool"));
        assert_eq!(tree.resolve("../../bin/none").as_deref(), Some("usr/bin/none"));
        assert_eq!(tree.resolve("loop"), None);
    }

    #[test]
    fn tar_keeps_owners_and_order() {
        let mut bytes = Vec::new();
        sample().write_tar(&mut bytes, 7).unwrap();
        let back = crate::deb::tree(&bytes).unwrap();
        assert_eq!(back, sample());
    }

    #[test]
    fn cpio_begins_as_the_kernel_wants_it() {
        let mut tree = Tree::default();
        tree.insert("a", Node::file(0o644, b"xy".to_vec()));
        let mut bytes = Vec::new();
        tree.write_cpio(&mut bytes, 1).unwrap();
        let first =
            b"07070100000001000081a4000000000000000000000001000000010000000200000000000000000000000000000000\
                      0000000200000000a\0";
        assert_eq!(&bytes[..first.len()], first);
        // 110 bytes of header and "a\0" are a multiple of four; content is padded.
        assert_eq!(&bytes[112..116], b"xy\0\0");
        assert_eq!(bytes.len() % 4, 0);
    }

    #[test]
    fn an_overlay_keeps_the_modes_of_folders() {
        let mut base = Tree::default();
        base.insert("var", Node::folder(0o700));
        let mut over = Tree::default();
        over.insert("var/x", Node::file(0o644, b"1".to_vec()));
        base.overlay(&over);
        assert_eq!(base.get("var").unwrap().mode, 0o700);
        assert_eq!(base.file("var/x"), Some(&b"1"[..]));
    }
}

//! depmod's text files, read: `modules.dep`, `modules.softdep`, `modules.alias`, `modules.builtin`.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use super::glob;

/// One kernel's modules.
#[derive(Debug, Default)]
pub(crate) struct Index {
    folder: PathBuf,
    /// By name: the file below the folder, and the names it needs.
    files: HashMap<String, (String, Vec<String>)>,
    /// By name: what to load before, and after, if it is there.
    soft: HashMap<String, (Vec<String>, Vec<String>)>,
    /// Pattern and name, in the file's order.
    aliases: Vec<(String, String)>,
    builtin: HashSet<String>,
}

/// A file to load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Step {
    /// Its module.
    pub name: String,
    /// Where it lies.
    pub path: PathBuf,
    /// Whether it is wanted, not needed: the module that was asked for may do without.
    pub soft: bool,
}

impl Index {
    /// Reads the files of a folder such as `/usr/lib/modules/6.12.0`. A missing file counts as empty: a machine
    /// without modules boots as far as its kernel goes, and what then is missing is said where it is missed.
    pub(crate) fn read(folder: &Path) -> Self {
        let text = |name: &str| fs::read_to_string(folder.join(name)).unwrap_or_default();
        let mut index = Self { folder: folder.to_owned(), ..Self::default() };
        index.parse_dep(&text("modules.dep"));
        index.parse_soft(&text("modules.softdep"));
        index.parse_alias(&text("modules.alias"));
        index.builtin = text("modules.builtin").lines().map(module_name).collect();
        index
    }

    fn parse_dep(&mut self, text: &str) {
        for line in text.lines() {
            let Some((file, needs)) = line.split_once(':') else { continue };
            let needs = needs.split_whitespace().map(module_name).collect();
            self.files.insert(module_name(file), (file.trim().to_owned(), needs));
        }
    }

    fn parse_soft(&mut self, text: &str) {
        for line in text.lines() {
            let mut words = line.split_whitespace();
            let (Some("softdep"), Some(name)) = (words.next(), words.next()) else { continue };
            let entry = self.soft.entry(normal(name)).or_default();
            let mut after = None;
            for word in words {
                match (word, after) {
                    ("pre:", _) => after = Some(false),
                    ("post:", _) => after = Some(true),
                    (word, Some(false)) => entry.0.push(word.to_owned()),
                    (word, Some(true)) => entry.1.push(word.to_owned()),
                    (_, None) => {}
                }
            }
        }
    }

    fn parse_alias(&mut self, text: &str) {
        for line in text.lines() {
            let mut words = line.split_whitespace();
            if let (Some("alias"), Some(pattern), Some(name)) = (words.next(), words.next(), words.next()) {
                self.aliases.push((pattern.to_owned(), normal(name)));
            }
        }
    }

    /// The modules that `wanted` (a module's name or an alias) means.
    pub(crate) fn resolve(&self, wanted: &str) -> Vec<String> {
        let name = normal(wanted);
        if self.files.contains_key(&name) || self.builtin.contains(&name) {
            return vec![name];
        }
        let mut names = Vec::new();
        for (pattern, name) in &self.aliases {
            // Aliases are written with either of - and _, and the kernel asks with either.
            if (glob::matches(pattern, wanted) || glob::matches(pattern, &wanted.replace('-', "_")))
                && !names.contains(name)
            {
                names.push(name.clone());
            }
        }
        names
    }

    /// Whether the kernel has it inside.
    pub(crate) fn is_builtin(&self, name: &str) -> bool {
        self.builtin.contains(&normal(name))
    }

    /// The files to load for a module, what it needs first. Empty: nothing to load is known by that name.
    pub(crate) fn order(&self, name: &str) -> Vec<Step> {
        let mut order = Vec::new();
        self.visit(&normal(name), false, &mut HashSet::new(), &mut order);
        order
    }

    fn visit(&self, name: &str, soft: bool, seen: &mut HashSet<String>, order: &mut Vec<Step>) {
        let Some((file, needs)) = self.files.get(name) else { return };
        // A circle in the files must not be one here.
        if !seen.insert(name.to_owned()) {
            return;
        }
        let (before, after) =
            self.soft.get(name).map(|(b, a)| (b.as_slice(), a.as_slice())).unwrap_or_default();
        for other in before.iter().flat_map(|other| self.resolve(other)) {
            self.visit(&other, true, seen, order);
        }
        for need in needs {
            self.visit(need, soft, seen, order);
        }
        order.push(Step { name: name.to_owned(), path: self.folder.join(file), soft });
        for other in after.iter().flat_map(|other| self.resolve(other)) {
            self.visit(&other, true, seen, order);
        }
    }
}

/// `kernel/fs/overlayfs/overlay.ko` to `overlay`.
fn module_name(file: &str) -> String {
    let name = file.trim().rsplit('/').next().unwrap_or_default();
    normal(name.split_once(".ko").map_or(name, |(stem, _)| stem))
}

/// The kernel writes names with `_`, files often with `-`.
fn normal(name: &str) -> String {
    name.replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index() -> Index {
        let mut index = Index { folder: "/m".into(), ..Index::default() };
        index.parse_dep(
            "kernel/fs/squashfs/squashfs.ko:\nkernel/md/dm-mod.ko:\nkernel/md/dm-bufio.ko: kernel/md/dm-mod.ko\n\
             kernel/md/dm-verity.ko: kernel/md/dm-bufio.ko\nkernel/lib/crc32c_generic.ko:\n\
             kernel/lib/libcrc32c.ko:\nkernel/net/a.ko: kernel/net/b.ko\nkernel/net/b.ko: kernel/net/a.ko\n",
        );
        index.parse_soft(
            "# note\nsoftdep libcrc32c pre: crc32c\nsoftdep dm_verity pre: crypto-sha256 post: squashfs\n",
        );
        index.parse_alias(
            "alias crc32c crc32c_generic\nalias fs-squashfs squashfs\nalias virtio:d00000002v* b\n",
        );
        index.builtin.insert("ext4".to_owned());
        index
    }

    fn names(index: &Index, name: &str) -> Vec<String> {
        index.order(name).into_iter().map(|step| step.name).collect()
    }

    #[test]
    fn needs_come_first() {
        assert_eq!(names(&index(), "dm-verity"), ["dm_mod", "dm_bufio", "dm_verity", "squashfs"]);
        assert_eq!(index().order("squashfs")[0].path, Path::new("/m/kernel/fs/squashfs/squashfs.ko"));
    }

    #[test]
    fn soft_needs_are_found_by_alias() {
        assert_eq!(names(&index(), "libcrc32c"), ["crc32c_generic", "libcrc32c"]);
        let soft = |name: &str| index().order(name).iter().map(|step| step.soft).collect::<Vec<_>>();
        assert_eq!(soft("libcrc32c"), [true, false]);
        assert_eq!(soft("dm-verity"), [false, false, false, true]);
    }

    #[test]
    fn a_circle_ends() {
        assert_eq!(names(&index(), "a"), ["b", "a"]);
    }

    #[test]
    fn resolves_names_aliases_and_builtin() {
        let index = index();
        assert_eq!(index.resolve("dm-mod"), ["dm_mod"]);
        assert_eq!(index.resolve("fs-squashfs"), ["squashfs"]);
        assert_eq!(index.resolve("virtio:d00000002v00001AF4"), ["b"]);
        assert!(index.is_builtin("ext4") && names(&index, "ext4").is_empty());
        assert!(index.resolve("nothing").is_empty());
    }
}

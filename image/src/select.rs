//! Takes from the unpacked packages what a recipe names, and the shared libraries that these files need.

use std::collections::{BTreeMap, BTreeSet};

use glob::{MatchOptions, Pattern};

use crate::elf;
use crate::error::{Error, Result};
use crate::tree::{Kind, Node, Tree};

const MATCH: MatchOptions = MatchOptions {
    case_sensitive: true,
    require_literal_separator: true,
    require_literal_leading_dot: false,
};

/// Unpacked packages by name.
pub struct Packages {
    trees: BTreeMap<String, Tree>,
    library_folder: String,
    /// The package of each path that may be a shared library.
    libraries: BTreeMap<String, String>,
}

/// A file tree and the packages that something in it comes from.
#[derive(Debug, Default)]
pub struct Selection {
    /// The files.
    pub tree: Tree,
    /// Names of the packages that they come from.
    pub sources: BTreeSet<String>,
}

impl Packages {
    /// Packages by name; `library_folder` is Debian's name of the architecture's folder in `usr/lib`.
    pub fn new(trees: BTreeMap<String, Tree>, library_folder: &str) -> Packages {
        let library_folder = format!("usr/lib/{library_folder}");
        let mut libraries = BTreeMap::new();
        for (package, tree) in &trees {
            for (path, node) in tree.iter() {
                if node.kind != Kind::Folder && path.starts_with("usr/lib/") && path.contains(".so") {
                    libraries.insert(path.to_owned(), package.clone());
                }
            }
        }
        Packages { trees, library_folder, libraries }
    }

    /// The unpacked files of a package.
    ///
    /// # Errors
    /// There is no such package.
    pub fn tree(&self, package: &str) -> Result<&Tree> {
        self.trees.get(package).ok_or_else(|| Error::Package {
            package: package.to_owned(),
            reason: "it is not among the packages that apt resolved".into(),
        })
    }

    /// The one package whose name begins so; for kernels, whose packages carry the version in the name.
    ///
    /// # Errors
    /// None, or several.
    pub fn with_prefix(&self, prefix: &str, wanted_file: &str) -> Result<(&str, &Tree)> {
        let mut found = self.trees.iter().filter(|(name, tree)| {
            name.starts_with(prefix) && tree.iter().any(|(p, _)| p.starts_with(wanted_file))
        });
        match (found.next(), found.next()) {
            (Some((name, tree)), None) => Ok((name, tree)),
            (None, _) => Err(Error::Package {
                package: format!("{prefix}*"),
                reason: format!("no such package holds {wanted_file}*"),
            }),
            (Some((a, _)), Some((b, _))) => Err(Error::Package {
                package: format!("{prefix}*"),
                reason: format!("both {a} and {b} hold {wanted_file}*"),
            }),
        }
    }

    /// Selects files by globs, per package, then the libraries that they need, then theirs.
    ///
    /// # Errors
    /// A glob matches nothing, or a library is in no package.
    pub fn select(&self, wanted: &BTreeMap<String, Vec<String>>) -> Result<Selection> {
        let mut selection = Selection::default();
        for (package, globs) in wanted {
            let tree = self.tree(package)?;
            for glob in globs {
                let bad = |reason: String| Error::Package { package: package.clone(), reason };
                let pattern = Pattern::new(glob).map_err(|e| bad(format!("{glob}: {e}")))?;
                let mut any = false;
                for (path, node) in tree.iter().filter(|(path, _)| pattern.matches_with(path, MATCH)) {
                    selection.tree.insert(path, node.clone());
                    any |= node.kind != Kind::Folder;
                }
                if !any {
                    return Err(bad(format!("it has no file {glob}")));
                }
            }
            selection.sources.insert(package.clone());
        }
        self.close(&mut selection)?;
        Ok(selection)
    }

    /// Adds libraries until nothing is missing.
    fn close(&self, selection: &mut Selection) -> Result<()> {
        let mut done = BTreeSet::new();
        loop {
            let files: Vec<String> = selection
                .tree
                .iter()
                .map(|(path, _)| path.to_owned())
                .filter(|path| done.insert(path.clone()))
                .collect();
            if files.is_empty() {
                return Ok(());
            }
            for user in files {
                let Some(needs) = selection.tree.file(&user).and_then(elf::needs) else { continue };
                if let Some(interpreter) = &needs.interpreter {
                    self.add_interpreter(selection, interpreter)?;
                }
                for library in &needs.libraries {
                    self.add_library(selection, library, &needs.run_path, &user)?;
                }
            }
        }
    }

    /// Adds a library from where the dynamic linker would find it: the user's run path, then the architecture's
    /// folder. What it is a link to comes along.
    fn add_library(
        &self,
        selection: &mut Selection,
        library: &str,
        run_path: &[String],
        user: &str,
    ) -> Result<()> {
        let folders =
            run_path.iter().map(|folder| folder.trim_matches('/')).chain([self.library_folder.as_str()]);
        let mut candidates = folders.map(|folder| format!("{folder}/{library}"));
        let mut path = candidates.find(|path| self.libraries.contains_key(path)).ok_or_else(|| {
            Error::Tree(format!(
                "{user} needs {library}, which is in no package of the recipe; add the package"
            ))
        })?;
        while selection.tree.get(&path).is_none() {
            let package = self.libraries.get(&path).ok_or_else(|| {
                Error::Tree(format!("{library} is a link to {path}, which is in no package of the recipe"))
            })?;
            let Some(node) = self.tree(package)?.get(&path).cloned() else { break };
            selection.sources.insert(package.clone());
            selection.tree.insert(&path, node.clone());
            if let Kind::Link(target) = node.kind {
                let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
                path = if target.starts_with('/') { target } else { format!("{folder}/{target}") };
                path = path.trim_start_matches('/').to_owned();
            }
        }
        Ok(())
    }

    /// Adds the dynamic linker, at the path in the packages that `/lib64` leads to once it is a link to `usr/lib64`.
    fn add_interpreter(&self, selection: &mut Selection, interpreter: &str) -> Result<()> {
        let path = interpreter.trim_start_matches('/');
        let path = if path.starts_with("usr/") { path.to_owned() } else { format!("usr/{path}") };
        for (package, tree) in &self.trees {
            let Some(node) = tree.get(&path) else { continue };
            selection.sources.insert(package.clone());
            selection.tree.insert(&path, node.clone());
            if let Kind::Link(_) = node.kind {
                // In Debian the path of the psABI is a link to the file in the library folder.
                let mut merged = tree.clone();
                merged.insert("lib", Node::link("usr/lib"));
                let target = merged.resolve(&path).unwrap_or_default();
                let node = tree
                    .get(&target)
                    .ok_or_else(|| Error::Tree(format!("{path} leads to {target}, which is missing")))?;
                selection.tree.insert(&target, node.clone());
            }
            return Ok(());
        }
        Err(Error::Tree(format!(
            "the dynamic linker {interpreter} is in no package; {} has none",
            self.library_folder
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packages() -> Packages {
        let program = std::fs::read("/proc/self/exe").unwrap();
        let needs = elf::needs(&program).unwrap();
        let mut tool = Tree::default();
        tool.insert("usr/bin/tool", Node::file(0o755, program));
        tool.insert("usr/share/doc/tool/a.txt", Node::file(0o644, *b"a"));
        let mut libs = Tree::default();
        for library in needs.libraries {
            libs.insert(&format!("usr/lib/here/{library}"), Node::link(format!("{library}.real")));
            libs.insert(&format!("usr/lib/here/{library}.real"), Node::file(0o644, *b"no ELF"));
        }
        let interpreter = needs.interpreter.unwrap();
        libs.insert(&format!("usr{interpreter}"), Node::file(0o755, *b"ld"));
        let trees = [("tool".to_owned(), tool), ("libs".to_owned(), libs)].into();
        Packages::new(trees, "here")
    }

    #[test]
    fn libraries_and_their_links_come_along() {
        let wanted = [("tool".to_owned(), vec!["usr/bin/*".to_owned()])].into();
        let selection = packages().select(&wanted).unwrap();
        assert!(selection.tree.get("usr/lib/here/libc.so.6.real").is_some());
        assert!(selection.tree.get("usr/share/doc/tool/a.txt").is_none());
        assert_eq!(selection.sources.len(), 2);
    }

    #[test]
    fn a_glob_without_a_match_is_refused() {
        let wanted = [("tool".to_owned(), vec!["usr/sbin/*".to_owned()])].into();
        assert!(packages().select(&wanted).unwrap_err().to_string().contains("usr/sbin/*"));
        let wanted = [("none".to_owned(), vec![])].into();
        assert!(packages().select(&wanted).is_err());
    }
}

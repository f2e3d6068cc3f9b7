//! Selects kernel modules with everything they need, and writes the indexes that depmod would.
//!
//! Debian's kernel packages hold modules as `.ko.xz` and no index: what a module needs is read from its own
//! `.modinfo` section (`depends`, `softdep`, `alias`; include/linux/module.h).

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

use crate::error::{Error, Result};
use crate::tree::{Node, Tree};

/// A module as it will lie in an image.
#[derive(Debug, Clone)]
struct Module {
    /// Path below the folder of the kernel's version, ending in `.ko`.
    path: String,
    bytes: Vec<u8>,
    depends: Vec<String>,
    soft: Vec<String>,
    aliases: Vec<String>,
    softdep_lines: Vec<String>,
}

/// The modules of one kernel package.
pub struct Modules<'a> {
    /// The kernel's version, the name of its module folder.
    pub version: String,
    tree: &'a Tree,
    /// Path of each module by its normalised name.
    paths: BTreeMap<String, String>,
    builtin: BTreeSet<String>,
}

/// `-` and `_` are the same in module names.
fn normal(name: &str) -> String {
    name.replace('-', "_")
}

impl<'a> Modules<'a> {
    /// Lists the modules of a kernel package.
    ///
    /// # Errors
    /// The package holds no modules, or those of several kernels.
    pub fn new(package: &str, tree: &'a Tree) -> Result<Modules<'a>> {
        let bad = |reason: &str| Error::Package { package: package.to_owned(), reason: reason.to_owned() };
        let versions: BTreeSet<&str> =
            tree.iter().filter_map(|(p, _)| p.strip_prefix("usr/lib/modules/")?.split('/').next()).collect();
        let version = match versions.iter().collect::<Vec<_>>()[..] {
            [one] => (*one).to_owned(),
            [] => return Err(bad("it holds no kernel modules")),
            _ => return Err(bad("it holds modules of several kernels")),
        };
        let root = format!("usr/lib/modules/{version}/");
        let mut paths = BTreeMap::new();
        for (path, _) in tree.iter() {
            let Some(file) = path.strip_prefix(&root).and_then(|p| p.rsplit('/').next()) else { continue };
            if let Some((stem, _)) = file.split_once(".ko") {
                paths.insert(normal(stem), path.to_owned());
            }
        }
        let listed = tree.file(&format!("{root}modules.builtin")).unwrap_or_default();
        let builtin = String::from_utf8_lossy(listed)
            .lines()
            .filter_map(|l| Some(normal(l.rsplit('/').next()?.split_once(".ko")?.0)))
            .collect();
        Ok(Modules { version, tree, paths, builtin })
    }

    /// A file tree (below `usr/lib/modules`) of the named modules and all that they need, uncompressed, with
    /// `modules.dep`, `modules.softdep`, `modules.alias` and `modules.builtin`.
    ///
    /// # Errors
    /// The kernel has no such module, or one is damaged.
    pub fn select<'n>(&self, names: impl IntoIterator<Item = &'n str>) -> Result<Tree> {
        let mut chosen: BTreeMap<String, Module> = BTreeMap::new();
        let mut todo: Vec<(String, bool)> = names.into_iter().map(|n| (normal(n), true)).collect();
        while let Some((name, required)) = todo.pop() {
            if self.builtin.contains(&name) || chosen.contains_key(&name) {
                continue;
            }
            let Some(path) = self.paths.get(&name) else {
                if required {
                    return Err(Error::Tree(format!("kernel {} has no module {name}", self.version)));
                }
                continue;
            };
            let module = self.read(path)?;
            todo.extend(module.depends.iter().map(|n| (n.clone(), true)));
            // A soft dependency is what another kernel may have built in or not at all.
            todo.extend(module.soft.iter().map(|n| (n.clone(), false)));
            chosen.insert(name, module);
        }
        let root = format!("usr/lib/modules/{}", self.version);
        let mut tree = Tree::default();
        let (mut dep, mut soft, mut alias) = (String::new(), String::new(), String::new());
        for (name, module) in &chosen {
            let needs = module.depends.iter().filter_map(|n| chosen.get(n)).map(|m| format!(" {}", m.path));
            dep.push_str(&format!("{}:{}\n", module.path, needs.collect::<String>()));
            module.softdep_lines.iter().for_each(|l| soft.push_str(&format!("softdep {name} {l}\n")));
            module.aliases.iter().for_each(|a| alias.push_str(&format!("alias {a} {name}\n")));
            tree.insert(&format!("{root}/{}", module.path), Node::file(0o644, module.bytes.clone()));
        }
        let builtin = self.tree.file(&format!("{root}/modules.builtin")).unwrap_or_default();
        let indexes = [
            ("dep", dep.as_bytes()),
            ("softdep", soft.as_bytes()),
            ("alias", alias.as_bytes()),
            ("builtin", builtin),
        ];
        for (index, text) in indexes {
            tree.insert(&format!("{root}/modules.{index}"), Node::file(0o644, text.to_vec()));
        }
        Ok(tree)
    }

    fn read(&self, path: &str) -> Result<Module> {
        let bad = |reason: String| Error::Tree(format!("{path}: {reason}"));
        let packed = self.tree.file(path).ok_or_else(|| bad("is no file".into()))?;
        let mut bytes = Vec::new();
        match path.rsplit_once('.').map(|(_, ending)| ending) {
            Some("xz") => lzma_rust2::XzReader::new(packed, true).read_to_end(&mut bytes).map(drop),
            Some("zst") => zstd::stream::copy_decode(packed, &mut bytes),
            _ => {
                bytes.extend_from_slice(packed);
                Ok(())
            }
        }
        .map_err(|e| bad(e.to_string()))?;
        bytes.truncate(unsigned(&bytes).len());
        let info = section(&bytes, b".modinfo").ok_or_else(|| bad("has no .modinfo section".into()))?;
        let values = |key: &str| -> Vec<String> {
            info.split(|b| *b == 0)
                .filter_map(|entry| std::str::from_utf8(entry).ok()?.strip_prefix(key)?.strip_prefix('='))
                .map(str::to_owned)
                .collect()
        };
        let softdep_lines = values("softdep");
        // "pre: a b post: c": all of them belong into the image, the order matters only to whoever loads.
        let soft =
            softdep_lines.iter().flat_map(|l| l.split_whitespace()).filter(|w| !w.ends_with(':')).map(normal);
        let depends = values("depends")
            .iter()
            .flat_map(|l| l.split(','))
            .filter(|n| !n.is_empty())
            .map(normal)
            .collect();
        let inside = path.split_once(&format!("{}/", self.version)).map_or(path, |(_, p)| p);
        let inside = inside.split_once(".ko").map_or(inside, |(stem, _)| stem);
        Ok(Module {
            path: format!("{inside}.ko"),
            soft: soft.collect(),
            depends,
            aliases: values("alias"),
            softdep_lines,
            bytes,
        })
    }
}

/// A module without the signature at its end (`struct module_signature`, include/linux/module_signature.h).
///
/// The kernel would check it with a public key: 45 million instructions for each of some forty modules, a sixth of a
/// boot, to learn what dm-verity's root hash says already of every byte. A kernel in lockdown, that is one that was
/// started by Secure Boot, loads signed modules only; the image is not signed for that either.
fn unsigned(module: &[u8]) -> &[u8] {
    const MARK: &[u8] = b"~Module signature appended~\n";
    const FIELDS: usize = 12;
    let split = || {
        let signed = module.strip_suffix(MARK)?;
        let (signed, fields) = signed.split_last_chunk::<FIELDS>()?;
        let length = u32::from_be_bytes(*fields.last_chunk()?);
        signed.get(..signed.len().checked_sub(length as usize)?)
    };
    split().unwrap_or(module)
}

/// The content of a section of a 64 bit little endian ELF file.
fn section<'a>(elf: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let word =
        |at: usize| Some(u64::from_le_bytes(elf.get(at..at.checked_add(8)?)?.try_into().ok()?) as usize);
    let half =
        |at: usize| Some(u16::from_le_bytes(elf.get(at..at.checked_add(2)?)?.try_into().ok()?) as usize);
    let (table, size, count, names) = (word(40)?, half(58)?, half(60)?, half(62)?);
    let header = |i: usize| table.checked_add(i.checked_mul(size)?);
    let content = |at: usize| elf.get(word(at + 24)?..word(at + 24)?.checked_add(word(at + 32)?)?);
    let names = content(header(names)?)?;
    (0..count).find_map(|i| {
        let at = header(i)?;
        let own = u32::from_le_bytes(elf.get(at..at + 4)?.try_into().ok()?) as usize;
        let own = names.get(own..)?;
        (own.starts_with(name) && own.get(name.len()) == Some(&0)).then(|| content(at)).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A 64 bit ELF file with a `.modinfo` section and nothing else.
    fn module(info: &[u8]) -> Vec<u8> {
        let names = b"\0.shstrtab\0.modinfo\0";
        let mut elf = vec![0; 64];
        elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
        let header = |name: u32, offset: usize, size: usize| {
            let mut h = [0u8; 64];
            h[..4].copy_from_slice(&name.to_le_bytes());
            h[24..32].copy_from_slice(&offset.to_le_bytes());
            h[32..40].copy_from_slice(&size.to_le_bytes());
            h
        };
        let headers = [header(1, 64, names.len()), header(11, 64 + names.len(), info.len())];
        elf.extend_from_slice(names);
        elf.extend_from_slice(info);
        let table = elf.len() as u64;
        elf[40..48].copy_from_slice(&table.to_le_bytes());
        elf[58] = 64;
        elf[60] = 2;
        headers.iter().for_each(|h| elf.extend_from_slice(h));
        elf
    }

    fn kernel() -> Tree {
        let mut tree = Tree::default();
        let mut add = |name: &str, info: &[u8]| {
            tree.insert(&format!("usr/lib/modules/6.1/kernel/{name}.ko"), Node::file(0o644, module(info)));
        };
        add("top-level", b"depends=low,built_in\0softdep=pre: crc post: gone\0alias=pci:v1*\0");
        add("low", b"depends=\0license=x\0");
        add("crc", b"depends=low\0");
        add("other", b"depends=\0");
        tree.insert("usr/lib/modules/6.1/modules.builtin", Node::file(0o644, *b"kernel/lib/built-in.ko\n"));
        tree
    }

    #[test]
    fn dependencies_soft_ones_and_aliases() {
        let tree = kernel();
        let modules = Modules::new("linux-image", &tree).unwrap();
        let chosen = modules.select(["top_level"]).unwrap();
        let text = |name: &str| {
            String::from_utf8(chosen.file(&format!("usr/lib/modules/6.1/{name}")).unwrap().to_vec()).unwrap()
        };
        assert_eq!(
            text("modules.dep"),
            "kernel/crc.ko: kernel/low.ko\nkernel/low.ko:\nkernel/top-level.ko: kernel/low.ko\n"
        );
        assert_eq!(text("modules.softdep"), "softdep top_level pre: crc post: gone\n");
        assert_eq!(text("modules.alias"), "alias pci:v1* top_level\n");
        assert!(chosen.get("usr/lib/modules/6.1/kernel/other.ko").is_none());
    }

    #[test]
    fn signatures_are_left_out() {
        let plain = module(b"depends=\0");
        let signed = |length: u32| {
            let fields = [&[0, 0, 2, 0, 0, 0, 0, 0][..], &length.to_be_bytes()].concat();
            [&plain[..], &[7; 300], &fields, b"~Module signature appended~\n"].concat()
        };
        assert_eq!(unsigned(&signed(300)), plain);
        assert_eq!(unsigned(&plain), plain);
        // What claims to be longer than the file is no signature.
        let damaged = signed(u32::MAX);
        assert_eq!(unsigned(&damaged), damaged);
        assert_eq!(unsigned(b"~Module signature appended~\n"), b"~Module signature appended~\n");

        let mut tree = kernel();
        tree.insert("usr/lib/modules/6.1/kernel/low.ko", Node::file(0o644, signed(300)));
        let chosen = Modules::new("linux-image", &tree).unwrap().select(["low"]).unwrap();
        assert_eq!(chosen.file("usr/lib/modules/6.1/kernel/low.ko"), Some(&plain[..]));
    }

    #[test]
    fn a_missing_module_is_an_error_but_a_builtin_one_is_not() {
        let tree = kernel();
        let modules = Modules::new("linux-image", &tree).unwrap();
        assert!(modules.select(["built-in"]).is_ok());
        assert!(modules.select(["none"]).unwrap_err().to_string().contains("no module none"));
    }
}

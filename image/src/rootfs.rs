//! Lays out the device's file systems: the read-only root and the initrd that finds it.

use std::path::Path;

use crate::error::{Error, Result};
use crate::kmod::Modules;
use crate::oci;
use crate::programs::{Programs, SHIM};
use crate::recipe::{Recipe, STUB_PACKAGE};
use crate::select::{Packages, Selection};
use crate::tree::{Kind, Node, Tree};

/// Folders that something is mounted on, or that programs expect, with their modes.
const FOLDERS: [(&str, u32); 10] = [
    ("boot", 0o755),
    ("dev", 0o755),
    ("etc", 0o755),
    ("proc", 0o555),
    ("root", 0o700),
    ("run", 0o755),
    ("sys", 0o555),
    ("tmp", 0o1777),
    ("usr", 0o755),
    ("var", 0o755),
];

/// The links of a merged `/usr`, which no Debian package brings.
const LINKS: [(&str, &str); 7] = [
    ("bin", "usr/bin"),
    ("lib", "usr/lib"),
    ("lib64", "usr/lib64"),
    ("sbin", "usr/sbin"),
    ("usr/sbin/modprobe", "init"),
    ("usr/bin/bothyctl", "../sbin/init"),
    ("etc/os-release", "../usr/lib/os-release"),
];

/// The folder that baked images lie in; the gateway imports from there.
const IMAGES: &str = "usr/share/bothy/images";

/// Builds the root file system.
///
/// # Errors
/// The recipe asks for what no package has, or the overlay cannot be read.
pub fn root(
    recipe: &Recipe,
    packages: &Packages,
    kernel_package: &str,
    modules: &Modules,
    programs: &Programs,
    overlay: &Path,
) -> Result<Selection> {
    let Selection { mut tree, mut sources } = packages.select(&recipe.packages)?;
    for (path, mode) in FOLDERS {
        tree.insert(path, Node::folder(mode));
    }
    for (path, target) in &LINKS {
        if tree.get(path).is_some_and(|node| !matches!(node.kind, Kind::Link(_))) {
            return Err(Error::Tree(format!("a package has put something at /{path}, where a link belongs")));
        }
        tree.insert(path, Node::link(*target));
    }
    let kernel = &recipe.kernel;
    let all = kernel.load_modules.iter().chain(&kernel.modules).chain(&kernel.initrd_modules);
    tree.overlay(&modules.select(all.map(String::as_str))?);
    tree.insert("usr/lib/modules-load.d/bothy.conf", module_list(&kernel.load_modules));
    certificates(&mut tree);
    tree.insert("usr/sbin/init", Node::file(0o755, programs.init.clone()));
    tree.insert("usr/bin/stack", Node::file(0o755, programs.stack.clone()));
    tree.insert(&format!("usr/bin/{SHIM}"), Node::file(0o755, programs.shim.clone()));
    tree.insert("usr/lib/os-release", Node::file(0o644, os_release(recipe).into_bytes()));
    let defaults = provisioning::default_document();
    tree.insert("usr/share/bothy/bothy.toml", Node::file(0o644, defaults.as_bytes().to_vec()));
    for (name, image) in &recipe.functions {
        let Selection { tree: files, sources: from } = packages.select(&image.packages)?;
        sources.extend(from);
        let mut files = renamed(&files, &image.rename)?;
        files.insert("lib64", Node::link("usr/lib64"));
        files.insert("lib", Node::link("usr/lib"));
        let environment = image.environment.clone();
        let layout = oci::function(
            files,
            &programs.watchdog,
            &image.reference,
            environment,
            recipe.architecture,
            recipe.epoch,
        )?;
        for (path, node) in layout.iter() {
            tree.insert(&format!("{IMAGES}/{name}/{path}"), node.clone());
        }
    }
    sources.extend([kernel_package.to_owned(), STUB_PACKAGE.to_owned()]);
    copyrights(&mut tree, packages, &sources)?;
    tree.overlay(&Tree::read_folder(overlay)?);
    if recipe.flavour.has_debug_files() {
        // Last, and without a copyright file, which lies beside the image: nothing else may differ.
        let Selection { tree: files, sources: from } = packages.select(&recipe.debug.packages)?;
        tree.overlay(&files);
        sources.extend(from);
    }
    Ok(Selection { tree, sources })
}

/// Builds the initrd: our init, and the modules without which the root cannot be read.
///
/// # Errors
/// The kernel lacks a module.
pub fn initrd(recipe: &Recipe, modules: &Modules, programs: &Programs) -> Result<Tree> {
    let names = &recipe.kernel.initrd_modules;
    let mut tree = modules.select(names.iter().map(String::as_str))?;
    for folder in ["dev", "proc", "run", "sys", "sysroot"] {
        tree.insert(folder, Node::folder(0o755));
    }
    tree.insert("init", Node::file(0o755, programs.init.clone()));
    tree.insert("etc/initrd-release", Node::file(0o644, os_release(recipe).into_bytes()));
    tree.insert("usr/lib/modules-load.d/bothy.conf", module_list(names));
    Ok(tree)
}

/// A list in the format of modules-load.d(5).
fn module_list(names: &[String]) -> Node {
    let text: String = names.iter().map(|name| format!("{name}\n")).collect();
    Node::file(0o644, text.into_bytes())
}

/// os-release(5).
pub fn os_release(recipe: &Recipe) -> String {
    let version = env!("CARGO_PKG_VERSION");
    format!(
        "NAME=\"Bothy\"\nID=bothy\nID_LIKE=debian\nPRETTY_NAME=\"Bothy {version}\"\nVERSION_ID={version}\n\
         IMAGE_ID={}\nIMAGE_VERSION={version}\n",
        recipe.name
    )
}

/// One file of all certificate authorities, as `update-ca-certificates` would make it.
fn certificates(tree: &mut Tree) {
    let mut bundle = Vec::new();
    for (path, node) in tree.iter() {
        if let (true, Kind::File(bytes)) = (path.starts_with("usr/share/ca-certificates/"), &node.kind) {
            bundle.extend_from_slice(bytes);
            if !bytes.ends_with(b"\n") {
                bundle.push(b'\n');
            }
        }
    }
    if !bundle.is_empty() {
        tree.insert("etc/ssl/certs/ca-certificates.crt", Node::file(0o644, bundle));
    }
}

/// The licence texts of every package that something in the image comes from.
fn copyrights(
    tree: &mut Tree,
    packages: &Packages,
    sources: &std::collections::BTreeSet<String>,
) -> Result<()> {
    for package in sources {
        let path = format!("usr/share/doc/{package}/copyright");
        let from = packages.tree(package)?;
        // The folder may be a link to that of a sister package.
        let real = from.resolve(&path).unwrap_or_default();
        if let Some(node) = from.get(&real) {
            tree.insert(&path, node.clone());
        }
    }
    Ok(())
}

/// Applies a recipe's renames.
fn renamed(files: &Tree, rename: &std::collections::BTreeMap<String, String>) -> Result<Tree> {
    let mut out = Tree::default();
    for (path, node) in files.iter() {
        out.insert(rename.get(path).map_or(path, String::as_str), node.clone());
    }
    match rename.keys().find(|from| files.get(from).is_none()) {
        Some(from) => Err(Error::Tree(format!("the recipe renames {from}, which is not there"))),
        None => Ok(out),
    }
}

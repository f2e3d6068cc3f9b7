//! The C library that our static programs are linked with: that of the image's own Debian release, whatever the
//! machine that builds has.
//!
//! Only what the linker reads is unpacked. cargo is told of it by way of a linker program, not by compiler flags:
//! those would become part of every symbol's name, and with them the path of the cache.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::place;
use crate::recipe::Recipe;
use crate::select::Packages;
use crate::tree::Tree;

/// A folder that programs are linked from.
#[derive(Debug, Clone)]
pub struct Sysroot {
    folder: PathBuf,
}

impl Sysroot {
    /// Unpacks the recipe's static libraries below `cache`, unless they are there.
    ///
    /// # Errors
    /// A package is missing, or the folder cannot be written.
    pub fn unpack(cache: &Path, digest: &str, recipe: &Recipe, packages: &Packages) -> Result<Sysroot> {
        let folder = cache.join("sysroot").join(digest);
        place::folder_once(&folder, |draft| {
            let mut files = Tree::default();
            for package in &recipe.static_libraries {
                let wanted = |path: &str| path.ends_with(".a") || path.ends_with(".o");
                for (path, node) in packages.tree(package)?.iter().filter(|(path, _)| wanted(path)) {
                    files.insert(path, node.clone());
                }
            }
            files.write_folder(draft)?;
            Sysroot { folder: draft.to_owned() }.write_linker(&files)
        })?;
        Ok(Sysroot { folder })
    }

    /// The program that links in place of `cc`. It has the same name: by that rustc knows what it understands.
    pub fn linker(&self) -> PathBuf {
        self.folder.join("cc")
    }

    /// Writes that program.
    fn write_linker(&self, files: &Tree) -> Result<()> {
        let folders: std::collections::BTreeSet<&str> = files
            .iter()
            .filter_map(|(path, _)| path.strip_suffix("/libc.a").or(path.strip_suffix("/libgcc.a")))
            .collect();
        let search: String =
            folders.iter().map(|folder| format!(" \"-B$root/{folder}\" \"-L$root/{folder}\"")).collect();
        // Build scripts and macros are programs of the machine that builds: they are linked as ever.
        let script = format!(
            "#!/bin/sh\nroot=$(dirname \"$0\")\ncase \" $* \" in\n*\" -static-pie \"*) exec cc \"$@\" \"-Wl,--sysroot=$root\"{search} ;;\n\
             *) exec cc \"$@\" ;;\nesac\n"
        );
        let path = self.linker();
        place::replace(&path, script.as_bytes())?;
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).map_err(Error::write(&path))
    }
}

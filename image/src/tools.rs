//! Programs out of Debian packages that the builder itself runs, without installing them.
//!
//! They run through the dynamic linker and libraries of the same packages, so the bytes that they make do not depend
//! on the machine that builds.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{Error, Result};
use crate::place;
use crate::recipe::Recipe;
use crate::select::Packages;

/// A folder of unpacked programs with their libraries.
#[derive(Debug, Clone)]
pub struct Tools {
    folder: PathBuf,
    linker: PathBuf,
    libraries: PathBuf,
}

impl Tools {
    /// Unpacks the recipe's tools into a folder below `cache` that is named after `digest`, unless it is there.
    ///
    /// # Errors
    /// A tool needs what is in no package, or the folder cannot be written.
    pub fn unpack(cache: &Path, digest: &str, recipe: &Recipe, packages: &Packages) -> Result<Tools> {
        let folder = cache.join("tools").join(digest);
        place::folder_once(&folder, |draft| {
            let programs = |package: &String| -> Result<(String, Vec<String>)> {
                let tree = packages.tree(package)?;
                let globs = ["usr/bin/*", "usr/sbin/*"].into_iter().filter(|glob| {
                    let prefix = glob.trim_end_matches('*');
                    tree.iter()
                        .any(|(path, _)| path.strip_prefix(prefix).is_some_and(|rest| !rest.contains('/')))
                });
                Ok((package.clone(), globs.map(str::to_owned).collect()))
            };
            let wanted = recipe.tools.iter().map(programs).collect::<Result<_>>()?;
            packages.select(&wanted)?.tree.write_folder(draft)
        })?;
        Tools::at(&folder, recipe.architecture.library_folder())
    }

    /// Tools that were unpacked before.
    ///
    /// # Errors
    /// The folder holds no dynamic linker.
    pub fn at(folder: &Path, library_folder: &str) -> Result<Tools> {
        let libraries = folder.join("usr/lib").join(library_folder);
        let names = std::fs::read_dir(&libraries).map_err(Error::read(&libraries))?;
        let linker = names
            .filter_map(|entry| Some(entry.ok()?.path()))
            .find(|path| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with("ld-linux")))
            .ok_or_else(|| Error::Tree(format!("{} holds no dynamic linker", libraries.display())))?;
        Ok(Tools { folder: folder.to_owned(), linker, libraries })
    }

    /// The folder that the tools lie in.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A command that runs one of the tools, by its path in the package, such as `usr/bin/mksquashfs`.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(&self.linker);
        command.env_clear().env("LC_ALL", "C.UTF-8").env("TZ", "UTC");
        command.arg("--library-path").arg(&self.libraries).arg(self.folder.join(program));
        command
    }
}

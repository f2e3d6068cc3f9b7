//! Where things lie on the machine that builds.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// The checkout that `bothy` works in: the nearest folder upwards with our recipes, else the one it was built in.
///
/// # Errors
/// The current folder cannot be read.
pub fn source() -> Result<PathBuf> {
    let here = std::env::current_dir().map_err(Error::read("the current folder"))?;
    let built_in = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("/"));
    let is_ours =
        |folder: &&Path| folder.join("image/recipes").is_dir() && folder.join("Cargo.toml").is_file();
    Ok(here.ancestors().find(is_ours).unwrap_or(built_in).to_owned())
}

/// Where downloads are kept for the next time: `$XDG_CACHE_HOME/bothy`, else `~/.cache/bothy`.
///
/// # Errors
/// Neither variable is set.
pub fn cache() -> Result<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    variable("XDG_CACHE_HOME")
        .or_else(|| Some(variable("HOME")?.join(".cache")))
        .map(|folder| folder.join("bothy"))
        .ok_or_else(|| {
            Error::Archive("neither HOME nor XDG_CACHE_HOME is set; name a folder with --cache".into())
        })
}

/// Where cargo and we put what is built.
pub fn target(source: &Path) -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| source.join("target"), PathBuf::from)
}

/// A recipe by its path, or by its name in `image/recipes`.
pub fn recipe(source: &Path, name: &str) -> PathBuf {
    if name.contains('/') || name.ends_with(".toml") {
        return PathBuf::from(name);
    }
    source.join("image/recipes").join(format!("{name}.toml"))
}

//! Where things lie on the machine that builds.

use std::fs::File;
use std::io::Write;
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

/// Where cargo and we put what is built, absolute: `$CARGO_TARGET_DIR`, else `target` in the checkout.
pub fn target(source: &Path) -> PathBuf {
    let folder = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| source.join("target"), PathBuf::from);
    std::path::absolute(&folder).unwrap_or(folder)
}

/// A recipe by its path, or by its name in `image/recipes`.
pub fn recipe(source: &Path, name: &str) -> PathBuf {
    if name.contains('/') || name.ends_with(".toml") {
        return PathBuf::from(name);
    }
    recipes(source).join(format!("{name}.toml"))
}

/// The folder of the recipes that come with the builder.
pub fn recipes(source: &Path) -> PathBuf {
    source.join("image/recipes")
}

/// Opens a lock file and waits until nobody else holds it. The lock ends with the file, or with this process.
///
/// # Errors
/// The file cannot be made, or the file system knows no locks.
pub fn lock(path: &Path) -> Result<File> {
    let file = File::create(path).map_err(Error::write(path))?;
    if file.try_lock().is_err() {
        eprintln!("bothy: waiting for another build, which holds {}", path.display());
        file.lock().map_err(Error::write(path))?;
    }
    Ok(file)
}

/// Writes a file so that under its name there is always a whole one, the old or the new.
///
/// # Errors
/// The file cannot be written.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}", std::process::id()));
    let draft = PathBuf::from(name);
    let write = || -> std::io::Result<()> {
        let mut file = File::create(&draft)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&draft, path)
    };
    write().map_err(|e| {
        let _ = std::fs::remove_file(&draft);
        Error::write(path)(e)
    })
}

/// Makes a folder that is never seen half made: `fill` writes it under another name. Nothing happens when it is there;
/// of two who make it at once one wins, and both have it.
///
/// # Errors
/// Those of `fill`; the folder cannot be put into place.
pub fn folder_once(folder: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    if folder.exists() {
        return Ok(());
    }
    let mut name = folder.as_os_str().to_owned();
    name.push(format!(".{}", std::process::id()));
    let draft = PathBuf::from(name);
    // One of a build that was killed, when process numbers repeat.
    let _ = std::fs::remove_dir_all(&draft);
    fill(&draft)?;
    match std::fs::rename(&draft, folder) {
        Err(error) if !folder.exists() => Err(Error::write(folder)(error)),
        Err(_) => {
            let _ = std::fs::remove_dir_all(&draft);
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_whole_or_not_there() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("tools");
        let names = || std::fs::read_dir(parent.path()).unwrap().count();
        let broken = folder_once(&folder, |draft| {
            std::fs::create_dir(draft).unwrap();
            Err(Error::Tree("broken off".into()))
        });
        assert!(broken.is_err() && !folder.exists());
        let fill = |text: &'static str| {
            move |draft: &Path| {
                std::fs::create_dir(draft).unwrap();
                std::fs::write(draft.join("file"), text).map_err(Error::write(draft))
            }
        };
        // Somebody else was quicker: theirs stays, ours leaves nothing behind.
        folder_once(&folder, |draft| {
            folder_once(&folder, |_| fill("theirs")(&folder)).unwrap();
            fill("ours")(draft)
        })
        .unwrap();
        folder_once(&folder, fill("late")).unwrap();
        assert_eq!(std::fs::read_to_string(folder.join("file")).unwrap(), "theirs");
        assert_eq!(names(), 1);
    }
}

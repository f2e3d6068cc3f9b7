//! Whether an image is what its inputs would give: then nothing is built.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::artifacts::Artifacts;
use crate::build::Options;
use crate::error::{Error, Result};
use crate::tree::{Kind, Tree};
use crate::{digest, place, programs};

/// The stamp of an output folder: a digest of what went in, and the state of what came out.
pub struct Stamp {
    path: PathBuf,
    inputs: String,
}

impl Stamp {
    /// Looks at everything that decides the output: recipe, sources, overlay, lock, options and this program itself.
    ///
    /// # Errors
    /// Something of it cannot be read.
    pub fn of(options: &Options, out: &Path) -> Result<Stamp> {
        let recipes = place::recipes(&options.source);
        let mut files = vec![options.recipe.clone(), recipes.join("maintainer-scripts.toml")];
        files.extend([
            options.source.join("overlay"),
            options.source.join("Cargo.lock"),
            "/proc/self/exe".into(),
        ]);
        files.extend(match &options.programs {
            Some(folder) => programs::files(folder),
            None => programs::sources(&options.source),
        });
        files.extend(options.locked.clone());
        let mut parts =
            vec![format!("{:?} {:?} {:?}", options.compression, options.mirrors, options.flavour)];
        for path in files {
            parts.push(if path.is_dir() { folder_digest(&path)? } else { file_digest(&path)? });
        }
        Ok(Stamp { path: out.join("inputs.sha256"), inputs: digest::hex(parts.join("\n").as_bytes()) })
    }

    /// Whether the last build had the same inputs, and nobody has touched its files since.
    pub fn is_fresh(&self, artifacts: &Artifacts) -> bool {
        let now = states(artifacts).map(|states| format!("{}\n{states}", self.inputs));
        now.is_some_and(|now| fs::read_to_string(&self.path).is_ok_and(|then| then == now))
    }

    /// Says that what is there is of no worth.
    pub fn clear(&self) {
        let _ = fs::remove_file(&self.path);
    }

    /// Says that the files that are there now are those of these inputs.
    ///
    /// # Errors
    /// The stamp cannot be written.
    pub fn set(&self, artifacts: &Artifacts) -> Result<()> {
        let states = states(artifacts).unwrap_or_default();
        place::replace(&self.path, format!("{}\n{states}", self.inputs).as_bytes())
    }
}

/// Size and time of change of every output; `None` where one is missing.
fn states(artifacts: &Artifacts) -> Option<String> {
    let state = |path: &Path| {
        let meta = fs::metadata(path).ok()?;
        Some(format!("{} {} {}.{:09}\n", path.display(), meta.len(), meta.mtime(), meta.mtime_nsec()))
    };
    artifacts.tools.is_dir().then_some(())?;
    artifacts.files().into_iter().map(state).collect()
}

fn file_digest(path: &Path) -> Result<String> {
    Ok(digest::hex(&fs::read(path).map_err(Error::read(path))?))
}

fn folder_digest(path: &Path) -> Result<String> {
    let mut parts = String::new();
    for (name, node) in Tree::read_folder(path)?.iter() {
        let content = match &node.kind {
            Kind::File(bytes) => digest::hex(bytes),
            Kind::Link(target) => target.clone(),
            Kind::Folder => String::new(),
        };
        parts.push_str(&format!("{name} {:o} {content}\n", node.mode));
    }
    Ok(digest::hex(parts.as_bytes()))
}

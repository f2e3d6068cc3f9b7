//! The files of a finished image, and where they lie.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::gpt;
use crate::tools::Tools;

/// The files of a finished image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artifacts {
    /// Name of the recipe.
    pub name: String,
    /// The disk image, with holes.
    pub image: PathBuf,
    /// The same compressed, for publishing.
    pub compressed: PathBuf,
    /// What it was made of.
    pub manifest: PathBuf,
    /// Software bill of materials.
    pub sbom: PathBuf,
    /// The kernel out of the image's own UKI.
    pub kernel: PathBuf,
    /// The initrd out of the image's own UKI.
    pub initrd: PathBuf,
    /// The command line out of the image's own UKI.
    pub command_line: String,
    /// The folder of the device's programs that went into it.
    pub programs: PathBuf,
    /// Programs of Debian's that the builder unpacked: mksquashfs, and second opinions for tests.
    pub tools: PathBuf,
    /// Debian's name of the folder of libraries in `tools`.
    pub library_folder: String,
}

impl Artifacts {
    /// Those of an earlier build in its output folder.
    pub fn load(out: &Path) -> Option<Artifacts> {
        serde_json::from_slice(&fs::read(out.join(Self::FILE)).ok()?).ok()
    }

    /// The name of the file that lists them, in the output folder.
    pub const FILE: &str = "artifacts.json";

    /// Every file of its own that a build leaves.
    pub fn files(&self) -> [&Path; 6] {
        [&self.image, &self.compressed, &self.manifest, &self.sbom, &self.kernel, &self.initrd]
            .map(PathBuf::as_path)
    }

    /// The unpacked tools.
    ///
    /// # Errors
    /// They are gone.
    pub fn tools(&self) -> Result<Tools> {
        Tools::at(&self.tools, &self.library_folder)
    }

    /// Unpacks the image's root file system as plain files, for programs that are to run on this machine.
    ///
    /// # Errors
    /// The image cannot be read, or `unsquashfs` fails.
    pub fn unpack_root(&self, folder: &Path) -> Result<()> {
        let mut image = fs::File::open(&self.image).map_err(Error::read(&self.image))?;
        let (offset, _) = gpt::find(&mut image, "root-a")?;
        let mut command = self.tools()?.command("usr/bin/unsquashfs");
        command.args(["-quiet", "-no-progress", "-no-xattrs", "-force", "-offset"]).arg(offset.to_string());
        crate::process::output(command.arg("-dest").arg(folder).arg(&self.image)).map(drop)
    }
}

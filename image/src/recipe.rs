//! A recipe: everything that decides what an image is, in one TOML file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::error::{Error, Result};
use crate::flavour::Flavour;

/// Where systemd's UEFI stub comes from.
pub const STUB_PACKAGE: &str = "systemd-boot-efi";

/// A recipe as written. Unknown keys are refused.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Recipe {
    /// The image's name; outputs are called after it.
    pub name: String,
    /// One line for people.
    pub description: String,
    /// Debian's name of the architecture.
    pub architecture: Architecture,
    /// Release of Debian that packages come from; its updates and security suites are added.
    pub suite: String,
    /// Every time stamp in the image, in seconds since 1970.
    pub epoch: u64,
    /// Packages that apt shall take for installed: what only a maintainer script or a shell needs.
    pub provided: Vec<String>,
    /// Packages whose programs the builder itself runs, never part of the image.
    #[serde(default)]
    pub tools: Vec<String>,
    /// Packages of static libraries that our own programs are linked with.
    pub static_libraries: Vec<String>,
    /// Kernel, its command line and modules.
    pub kernel: Kernel,
    /// What the image takes from which package: globs over the package's paths. Shared libraries that these need
    /// come along by themselves.
    pub packages: BTreeMap<String, Vec<String>>,
    /// Function images that are baked in.
    #[serde(default)]
    pub functions: BTreeMap<String, FunctionImage>,
    /// What the debug flavour has besides.
    #[serde(default)]
    pub debug: Debug,
    /// Which flavour is meant.
    #[serde(skip)]
    pub flavour: Flavour,
    /// Where the recipe was read from.
    #[serde(skip)]
    pub path: PathBuf,
}

/// Debian's name of an architecture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Architecture {
    /// x86-64.
    Amd64,
}

impl Architecture {
    /// What apt and dpkg call it.
    pub fn debian(self) -> &'static str {
        match self {
            Architecture::Amd64 => "amd64",
        }
    }

    /// The Rust target of programs for it.
    pub fn rust_target(self) -> &'static str {
        match self {
            Architecture::Amd64 => "x86_64-unknown-linux-gnu",
        }
    }

    /// Debian's folder of shared libraries below `usr/lib`.
    pub fn library_folder(self) -> &'static str {
        match self {
            Architecture::Amd64 => "x86_64-linux-gnu",
        }
    }

    /// What the OCI specifications call it.
    pub fn oci(self) -> &'static str {
        match self {
            Architecture::Amd64 => "amd64",
        }
    }

    /// The fallback path of the UEFI specification below `EFI/BOOT` (section 3.5.1.1).
    pub fn efi_name(self) -> &'static str {
        match self {
            Architecture::Amd64 => "BOOTX64.EFI",
        }
    }

    /// Path of systemd's UEFI stub in [`STUB_PACKAGE`].
    pub fn stub(self) -> &'static str {
        match self {
            Architecture::Amd64 => "usr/lib/systemd/boot/efi/linuxx64.efi.stub",
        }
    }
}

/// The kernel's part of a recipe.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Kernel {
    /// The package, or a package that depends on it.
    pub package: String,
    /// Command line; the builder adds the root hash.
    pub command_line: String,
    /// Modules that the initrd loads, in this order.
    pub initrd_modules: Vec<String>,
    /// Modules that the running system loads at once.
    #[serde(default)]
    pub load_modules: Vec<String>,
    /// Modules that lie ready for whoever asks.
    #[serde(default)]
    pub modules: Vec<String>,
}

/// The debug flavour's part of a recipe.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Debug {
    /// Its files by package. No other file of the image differs.
    #[serde(default)]
    pub packages: BTreeMap<String, Vec<String>>,
}

/// A function image made of a static watchdog and files of packages.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct FunctionImage {
    /// The reference that a deployment names.
    pub reference: String,
    /// Files by package; libraries come along.
    pub packages: BTreeMap<String, Vec<String>>,
    /// Renames of files: path in the package to path in the image.
    #[serde(default)]
    pub rename: BTreeMap<String, String>,
    /// Environment of the image.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
}

impl Recipe {
    /// Reads a recipe: a path, or the name of one that comes with the builder.
    ///
    /// # Errors
    /// The file cannot be read, or is no valid recipe; the message names line and column.
    pub fn load(path: &Path) -> Result<Recipe> {
        let text = std::fs::read_to_string(path).map_err(|source| match source.kind() {
            std::io::ErrorKind::NotFound => Error::Recipe {
                path: path.to_owned(),
                reason: format!("there is no such file{}", others(path)),
            },
            _ => Error::Read { path: path.to_owned(), source },
        })?;
        let mut recipe: Recipe = toml::from_str(&text)
            .map_err(|e| Error::Recipe { path: path.to_owned(), reason: e.to_string() })?;
        recipe.path = path.to_owned();
        recipe.check()?;
        Ok(recipe)
    }

    /// Every package that apt has to find, sorted.
    pub fn all_packages(&self) -> Vec<String> {
        let mut all: Vec<String> = self
            .packages
            .keys()
            .chain(self.functions.values().flat_map(|f| f.packages.keys()))
            // For every flavour, so that all of them are made of the same packages.
            .chain(self.debug.packages.keys())
            .chain(&self.tools)
            .chain(&self.static_libraries)
            .cloned()
            .collect();
        all.push(self.kernel.package.clone());
        all.push(STUB_PACKAGE.to_owned());
        all.sort();
        all.dedup();
        all
    }

    fn check(&self) -> Result<()> {
        let plain =
            |s: &str| !s.is_empty() && s.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c));
        let refuse = |reason: String| Err(Error::Recipe { path: self.path.clone(), reason });
        if !plain(&self.name) {
            return refuse(format!("name {:?} must consist of letters, digits, '-' and '_'", self.name));
        }
        for name in self.functions.keys() {
            if !plain(name) {
                return refuse(format!("function {name:?} must consist of letters, digits, '-' and '_'"));
            }
        }
        if self.kernel.command_line.contains("roothash=") {
            return refuse("kernel.command-line: roothash= is the builder's to add".into());
        }
        Ok(())
    }
}

/// The recipes beside one that is not there.
fn others(path: &Path) -> String {
    let folder = path.parent().map(std::fs::read_dir);
    let mut names: Vec<String> = folder
        .and_then(std::io::Result::ok)
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.file_name().to_str()?.strip_suffix(".toml")?.to_owned()))
        .filter(|name| name != "maintainer-scripts")
        .collect();
    names.sort();
    if names.is_empty() { String::new() } else { format!("; there are: {}", names.join(", ")) }
}

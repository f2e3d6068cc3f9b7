//! Maintainer scripts: none ever runs for an image, so a person has to know what each would have done.
//!
//! `image/recipes/maintainer-scripts.toml` lists the SHA-256 of every script that was read and that the image does
//! without. A new or changed one stops the build, with its text and what changed.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::digest;
use crate::error::{Error, Result};

/// Digests by package and script, as in the list.
pub type Reviewed = BTreeMap<String, BTreeMap<String, String>>;

/// A maintainer script.
#[derive(Debug, Clone)]
pub struct Script {
    /// The package's name.
    pub package: String,
    /// `postinst` and its kin.
    pub name: String,
    /// Its text.
    pub text: Vec<u8>,
}

impl Script {
    /// The same with the kernel's version, which is in the name and text of its packages, taken out: a new kernel
    /// alone is no news.
    pub fn without_version(mut self, kernel: &str) -> Script {
        self.package = self.package.replace(kernel, "VERSION");
        if let Ok(text) = std::str::from_utf8(&self.text) {
            self.text = text.replace(kernel, "VERSION").into_bytes();
        }
        self
    }

    fn digest(&self) -> String {
        digest::hex(&self.text)
    }
}

/// Checks scripts against the list.
///
/// `kept` is a folder where the texts of accepted scripts are kept, to show what changed in a later one; `out` is
/// where a new list and the texts of scripts that nobody has read go.
///
/// # Errors
/// A script is not on the list.
pub fn review(list: &Path, scripts: &[Script], kept: &Path, out: &Path) -> Result<()> {
    let text = fs::read_to_string(list).map_err(Error::read(list))?;
    let reviewed: Reviewed =
        toml::from_str(&text).map_err(|e| Error::Recipe { path: list.to_owned(), reason: e.to_string() })?;
    let known = |script: &Script| reviewed.get(&script.package).and_then(|p| p.get(&script.name));
    fs::create_dir_all(kept).map_err(Error::write(kept))?;
    let mut news = Vec::new();
    for script in scripts {
        let place = kept.join(script.digest());
        if known(script) != Some(&script.digest()) {
            news.push(script);
        } else if !place.exists() {
            fs::write(&place, &script.text).map_err(Error::write(&place))?;
        }
    }
    if news.is_empty() {
        return Ok(());
    }
    let folder = out.join("maintainer-scripts");
    fs::create_dir_all(&folder).map_err(Error::write(&folder))?;
    let mut report = String::new();
    for script in news {
        let place = folder.join(format!("{}.{}", script.package, script.name));
        fs::write(&place, &script.text).map_err(Error::write(&place))?;
        let old = known(script).map(|digest| kept.join(digest)).filter(|path| path.exists());
        match old {
            Some(old) => report.push_str(&difference(&old, &place)),
            None => {
                report.push_str(&format!("  {} of {}: {}\n", script.name, script.package, place.display()))
            }
        }
    }
    let new_list = folder.join("list.toml");
    fs::write(&new_list, to_toml(scripts)).map_err(Error::write(&new_list))?;
    Err(Error::Archive(format!(
        "maintainer scripts that nobody has read yet:\n{report}none of them runs for an image: read them, do what the \
         image needs of it in overlay/ or the recipe, then copy {} over {}",
        new_list.display(),
        list.display()
    )))
}

/// What changed, as diff(1) shows it; it ends with a failure whenever there is a difference.
fn difference(old: &Path, new: &Path) -> String {
    let output = Command::new("diff").arg("-u").args([old, new]).output();
    output.map_or_else(
        |e| format!("  {}: {e}\n", new.display()),
        |o| String::from_utf8_lossy(&o.stdout).into_owned(),
    )
}

/// A list that accepts all of these.
fn to_toml(scripts: &[Script]) -> String {
    let mut list = Reviewed::new();
    for script in scripts {
        list.entry(script.package.clone()).or_default().insert(script.name.clone(), script.digest());
    }
    let mut text = String::from(
        "# SHA-256 of every maintainer script that was read: the image does without it, or does itself what is needed.\n\
         # VERSION stands for the kernel's.\n",
    );
    for (package, scripts) in list {
        text.push_str(&format!("\n[\"{package}\"]\n"));
        scripts.iter().for_each(|(name, digest)| text.push_str(&format!("{name} = \"{digest}\"\n")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(text: &str) -> Script {
        Script { package: "linux-6.1".into(), name: "postinst".into(), text: text.into() }
            .without_version("6.1")
    }

    #[test]
    fn a_changed_script_stops_the_build_and_shows_the_change() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let list = path("list.toml");
        let review = |scripts: &[Script]| review(&list, scripts, &path("kept"), &path("out"));
        fs::write(&list, "").unwrap();
        let error = review(&[script("depmod 6.1\n")]).unwrap_err().to_string();
        assert!(error.contains("postinst of linux-VERSION"), "{error}");
        fs::copy(path("out/maintainer-scripts/list.toml"), &list).unwrap();
        review(&[script("depmod 6.1\n")]).unwrap();
        let error = review(&[script("depmod 6.1\nrm -rf /\n")]).unwrap_err().to_string();
        assert!(error.contains("+rm -rf /"), "{error}");
    }
}

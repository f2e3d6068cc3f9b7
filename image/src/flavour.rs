//! Flavours: what is built from one recipe beside the image itself.

use std::collections::BTreeMap;

use crate::error::{Error, Result};
use crate::recipe::{FunctionImage, Recipe};

/// Which of the images that a recipe means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Flavour {
    /// The image.
    #[default]
    Plain,
    /// The image and the files of the recipe's `[debug]`: a shell behind the console's login.
    Debug,
    /// The debug flavour with one function more, `shell`, which runs what it is sent.
    Testing,
}

impl Flavour {
    /// What the outputs' names have behind the recipe's.
    pub fn suffix(self) -> &'static str {
        match self {
            Flavour::Plain => "",
            Flavour::Debug => "-debug",
            Flavour::Testing => "-shell",
        }
    }

    /// Whether the files of `[debug]` are in it.
    pub fn has_debug_files(self) -> bool {
        self != Flavour::Plain
    }
}

impl Recipe {
    /// The same recipe in a flavour.
    ///
    /// # Errors
    /// The recipe has nothing to debug with.
    pub fn in_flavour(mut self, flavour: Flavour) -> Result<Recipe> {
        if flavour.has_debug_files() && self.debug.packages.is_empty() {
            let reason = "it has no [debug] packages, so there is no debug flavour of it".to_owned();
            return Err(Error::Recipe { path: self.path, reason });
        }
        self.flavour = flavour;
        if flavour == Flavour::Testing {
            let words = [("fprocess", "busybox sh"), ("mode", "streaming"), ("content_type", "text/plain")];
            let shell = FunctionImage {
                reference: "localhost/shell:latest".to_owned(),
                packages: self.debug.packages.clone(),
                rename: BTreeMap::new(),
                environment: words.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            };
            self.functions.insert("shell".to_owned(), shell);
        }
        Ok(self)
    }

    /// What outputs are called after: the recipe's name and the flavour's.
    pub fn image_name(&self) -> String {
        format!("{}{}", self.name, self.flavour.suffix())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe() -> Recipe {
        Recipe::load(&crate::build::Options::new("vm-x86_64").unwrap().recipe).unwrap()
    }

    #[test]
    fn every_flavour_asks_apt_for_the_same_packages() {
        let plain = recipe();
        for (flavour, name) in [(Flavour::Debug, "vm-x86_64-debug"), (Flavour::Testing, "vm-x86_64-shell")] {
            let other = recipe().in_flavour(flavour).unwrap();
            assert_eq!(other.all_packages(), plain.all_packages());
            assert_eq!(other.image_name(), name);
            assert_eq!(other.name, plain.name);
        }
        assert!(plain.all_packages().contains(&"busybox-static".to_owned()));
    }

    #[test]
    fn a_recipe_without_a_shell_says_so() {
        let mut recipe = recipe();
        recipe.debug.packages.clear();
        assert!(recipe.clone().in_flavour(Flavour::Plain).is_ok());
        let error = recipe.in_flavour(Flavour::Debug).unwrap_err().to_string();
        assert!(error.contains("vm-x86_64.toml") && error.contains("no [debug] packages"), "{error}");
    }
}

//! Which configuration is in force: the boot partition's, else the last good one, else the defaults. A bad file never
//! stops a boot; what is wrong with it is said.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use provisioning::Config;

use crate::error::{Error, Result};
use crate::file;

/// The copy of the last file that was right.
pub(super) const LAST_GOOD: &str = "/var/lib/bothy/config/last-good.toml";
/// The file's name, on the boot partition and in messages.
const NAME: &str = "bothy.toml";
/// What holds when there is nothing else.
const DEFAULTS: &str = "version = 1\n";

/// A configuration in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Effective {
    /// `boot`, `last-good` or `defaults`.
    pub source: &'static str,
    /// Its text.
    pub text: String,
    /// Its meaning.
    pub config: Config,
    /// Why it is not the boot partition's, in lines.
    pub problem: Option<String>,
}

/// Chooses. `boot` is where the boot partition is mounted, or why it is not.
pub(super) fn choose(boot: Result<PathBuf, String>, last_good: &Path) -> Effective {
    let problem = match boot.map(|folder| fs::read(folder.join(NAME))) {
        Ok(Ok(bytes)) => match provisioning::parse_bytes(&bytes, NAME) {
            Ok(config) => {
                let text = String::from_utf8_lossy(&bytes).into_owned();
                return Effective { source: "boot", text, config, problem: None };
            }
            Err(diagnostics) => diagnostics.to_string(),
        },
        Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => {
            format!("there is no {NAME} on the boot partition")
        }
        Ok(Err(error)) => format!("{NAME} on the boot partition cannot be read: {error}"),
        Err(why) => format!("the boot partition cannot be read: {why}"),
    };
    let kept = fs::read_to_string(last_good).ok();
    let kept = kept.and_then(|text| Some((provisioning::parse(&text, NAME).ok()?, text)));
    let (source, used, text, config) = match kept {
        Some((config, text)) => ("last-good", "the last good configuration", text, config),
        None => ("defaults", "the defaults", DEFAULTS.to_owned(), Config::default()),
    };
    let problem =
        Some(format!("{}\n{used} are used instead", problem.trim_end()).replace("ration are", "ration is"));
    Effective { source, text, config, problem }
}

/// Puts the text where services read it, and keeps a good one. What is kept already is not written again.
pub(super) fn publish(effective: &Effective, run: &Path, last_good: &Path) -> Result<()> {
    file::replace(run.join(NAME), effective.text.as_bytes(), 0o600)?;
    if effective.source != "boot" || fs::read_to_string(last_good).is_ok_and(|kept| kept == effective.text) {
        return Ok(());
    }
    if let Some(folder) = last_good.parent() {
        fs::create_dir_all(folder).map_err(Error::write(folder))?;
    }
    file::replace(last_good, effective.text.as_bytes(), 0o600)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_then_bad_then_gone() {
        let folder = tempfile::tempdir().unwrap();
        let (boot, last) = (folder.path().to_owned(), folder.path().join("kept/last-good.toml"));
        let file = boot.join(NAME);

        let none = choose(Ok(boot.clone()), &last);
        // Nothing at all: the defaults.
        assert_eq!((none.source, none.text.as_str()), ("defaults", DEFAULTS));
        assert_eq!(
            none.problem.as_deref(),
            Some("there is no bothy.toml on the boot partition\nthe defaults are used instead")
        );

        fs::write(&file, "version = 1\nhostname = \"barn\"\n").unwrap();
        let good = choose(Ok(boot.clone()), &last);
        assert_eq!((good.source, good.problem.clone()), ("boot", None));
        publish(&good, folder.path(), &last).unwrap();

        fs::write(&file, "version = 1\nhostnam = \"x\"\n").unwrap();
        let bad = choose(Ok(boot.clone()), &last);
        assert_eq!(bad.source, "last-good");
        assert_eq!(bad.config.hostname.as_ref().map(ToString::to_string).as_deref(), Some("barn"));
        let problem = bad.problem.clone().unwrap();
        assert!(problem.contains("bothy.toml:2:1"), "{problem}");
        assert!(problem.ends_with("the last good configuration is used instead"), "{problem}");
        publish(&bad, folder.path(), &last).unwrap();
        assert!(fs::read_to_string(&last).unwrap().contains("barn"));

        let unmounted = choose(Err("mount: no".to_owned()), &last);
        assert!(unmounted.problem.unwrap().starts_with("the boot partition cannot be read: mount: no"));
        fs::write(&file, [0xff, 0xfe]).unwrap();
        assert_eq!(choose(Ok(boot), &last).source, "last-good");
    }
}

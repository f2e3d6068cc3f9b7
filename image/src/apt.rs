//! Debian's packages through apt, with a state folder of our own and without privileges.
//!
//! apt resolves, verifies signatures and downloads; nothing of the host's package state is read or changed but the
//! mirror's address and the way to reach it (proxy, checks of dates). What apt resolved is kept as a [`Lock`].

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::recipe::Recipe;
use crate::{place, process};

/// Where Debian's own keys lie on a Debian machine.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// One package that apt chose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Package {
    /// Binary package name.
    pub name: String,
    /// Debian version, with its epoch.
    pub version: String,
    /// Architecture of the file: the recipe's, or `all`.
    pub architecture: String,
    /// File name in the download folder.
    pub file: String,
    /// Size of the file in bytes.
    pub size: u64,
    /// SHA-256 of the file, lower case hexadecimal.
    pub sha256: String,
}

/// What apt resolved for a recipe, sorted by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lock {
    /// Release of Debian.
    pub suite: String,
    /// Architecture that was resolved for.
    pub architecture: String,
    /// The packages that the recipe asked for and what it took for installed.
    pub request: Vec<String>,
    /// What apt chose.
    pub packages: Vec<Package>,
}

/// apt with a state of its own below one folder.
pub struct Apt {
    folder: PathBuf,
    config: PathBuf,
    /// Held as long as this lives: apt's own locking is off, since it wants a whole system around it.
    _lock: fs::File,
}

impl Apt {
    /// Prepares the state folder for a recipe, and waits for others that work in it. `mirrors` replaces those of the
    /// host's own apt configuration.
    ///
    /// # Errors
    /// The host's apt names no Debian mirror, or the folder cannot be written.
    pub fn new(folder: &Path, recipe: &Recipe, mirrors: Option<&Mirrors>) -> Result<Apt> {
        fs::create_dir_all(folder).map_err(Error::write(folder))?;
        let lock = place::lock(&folder.join("lock"))?;
        for sub in ["lists/partial", "archives/partial", "none/partial", "etc", "log"] {
            let path = folder.join(sub);
            fs::create_dir_all(&path).map_err(Error::write(&path))?;
        }
        let apt = Apt { folder: folder.to_owned(), config: folder.join("apt.conf"), _lock: lock };
        let host = mirrors.cloned().map_or_else(Mirrors::of_host, Ok)?;
        apt.write("status", &fake_status(recipe))?;
        apt.write("etc/debian.sources", &host.sources(&recipe.suite))?;
        apt.write("apt.conf", &apt.settings(recipe.architecture.debian())?)?;
        Ok(apt)
    }

    /// Downloads the indexes of the mirror.
    ///
    /// # Errors
    /// apt fails: no network, a bad signature, an unknown suite.
    pub fn update(&self) -> Result<()> {
        process::output(self.get().args(["--error-on=any", "update"])).map(drop)
    }

    /// Resolves the recipe's packages against the downloaded indexes.
    ///
    /// # Errors
    /// A package does not exist, or dependencies cannot be met.
    pub fn resolve(&self, recipe: &Recipe) -> Result<Lock> {
        let mut command = self.get();
        command.args(["-y", "-o", "Acquire::ForceHash=SHA256"]);
        // apt leaves out what it has downloaded already: let it look where nothing is.
        command.arg("-o").arg(format!("Dir::Cache::archives={}", self.folder.join("none").display()));
        let printed =
            process::output(command.args(["--print-uris", "install"]).args(recipe.all_packages())).map_err(
                |e| Error::Recipe { path: recipe.path.clone(), reason: format!("resolve its packages: {e}") },
            )?;
        let mut packages = String::from_utf8_lossy(&printed)
            .lines()
            .filter(|line| line.starts_with('\''))
            .map(parse_uri_line)
            .collect::<Result<Vec<_>>>()?;
        packages.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Lock {
            suite: recipe.suite.clone(),
            architecture: recipe.architecture.debian().to_owned(),
            request: request(recipe),
            packages,
        })
    }

    /// Downloads what of a lock is not there yet.
    ///
    /// # Errors
    /// The mirror no longer has a version, or does not answer.
    pub fn download(&self, lock: &Lock) -> Result<()> {
        let missing: Vec<String> = lock
            .packages
            .iter()
            .filter(|p| fs::metadata(self.archive(p)).map(|m| m.len()).ok() != Some(p.size))
            .map(|p| format!("{}={}", p.name, p.version))
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        // Dependencies are in the lock by name: `download` takes exactly what it is told, into the current folder.
        let archives = self.folder.join("archives");
        let fetch = || process::output(self.get().arg("download").args(&missing).current_dir(&archives));
        // A lock from elsewhere, or an old index, may know other packages than the index that is here.
        if fetch().is_err() {
            self.update()?;
            fetch().map_err(|e| {
                let text = e.to_string();
                let gone = text.contains("404") || text.contains("was not found");
                let advice =
                    "; a mirror keeps only the newest versions: `bothy build --update` resolves again";
                Error::Archive(format!("{text}{}", if gone { advice } else { "" }))
            })?;
        }
        Ok(())
    }

    /// Reads a package's file and checks it against the lock.
    ///
    /// # Errors
    /// It cannot be read, or is not what the lock says; then it is deleted, so that it is downloaded anew.
    pub fn read(&self, package: &Package) -> Result<Vec<u8>> {
        let path = self.archive(package);
        let bytes = fs::read(&path).map_err(Error::read(&path))?;
        if crate::digest::hex(&bytes) == package.sha256 {
            return Ok(bytes);
        }
        let _ = fs::remove_file(&path);
        let advice = "does not match its SHA-256 and was deleted; run again to download it anew";
        Err(Error::Archive(format!("{} {advice}", path.display())))
    }

    /// Where a package's file lies.
    pub fn archive(&self, package: &Package) -> PathBuf {
        self.folder.join("archives").join(&package.file)
    }

    fn get(&self) -> Command {
        let mut command = Command::new("apt-get");
        command.arg("-q").env_clear().env("LC_ALL", "C.UTF-8").env("APT_CONFIG", &self.config);
        for keep in ["PATH", "HOME", "http_proxy", "https_proxy", "no_proxy"] {
            if let Some(value) = std::env::var_os(keep) {
                command.env(keep, value);
            }
        }
        command
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.folder.join(name);
        fs::write(&path, text).map_err(Error::write(&path))
    }

    /// Options that keep apt inside our folder, and the host's own about how to reach a mirror.
    fn settings(&self, architecture: &str) -> Result<String> {
        let folder = self.folder.display();
        let mut text = format!(
            r#"Dir "{folder}/"; Dir::State "{folder}"; Dir::State::lists "{folder}/lists"; Dir::State::status "{folder}/status";
Dir::State::extended_states "{folder}/extended_states"; Dir::Cache "{folder}"; Dir::Cache::archives "{folder}/archives";
Dir::Cache::pkgcache "{folder}/pkgcache.bin"; Dir::Cache::srcpkgcache "{folder}/srcpkgcache.bin"; Dir::Log "{folder}/log";
Dir::Etc "{folder}/etc"; Dir::Etc::sourcelist "/dev/null"; Dir::Etc::sourceparts "{folder}/etc/"; Dir::Etc::main "/dev/null";
Dir::Etc::parts "/dev/null"; Dir::Etc::trusted "/dev/null"; Dir::Etc::trustedparts "/dev/null";
Dir::Etc::preferences "/dev/null"; Dir::Etc::preferencesparts "/dev/null";
APT::Architecture "{architecture}"; APT::Architectures "{architecture}"; APT::Install-Recommends "false";
APT::Install-Suggests "false"; APT::Sandbox::User ""; Acquire::Languages "none"; Debug::NoLocking "true"; Acquire::Retries "3";
"#
        );
        let host = process::output(Command::new("apt-config").arg("dump").env("LC_ALL", "C.UTF-8"))?;
        let reach =
            ["Acquire::http", "Acquire::https", "Acquire::Check-", "Acquire::Force", "Acquire::Proxy"];
        for line in String::from_utf8_lossy(&host).lines() {
            if reach.iter().any(|prefix| line.starts_with(prefix)) {
                text.push_str(line);
                text.push('\n');
            }
        }
        Ok(text)
    }
}

/// What a lock was made for: when it changes, the lock is no longer good.
pub fn request(recipe: &Recipe) -> Vec<String> {
    let mut words = recipe.all_packages();
    words.extend(recipe.provided.iter().map(|name| format!("provided:{name}")));
    words
}

/// A dpkg status file in which one package provides everything that the image does without.
fn fake_status(recipe: &Recipe) -> String {
    let provides: Vec<String> = recipe.provided.iter().map(|name| format!("{name} (= 999)")).collect();
    format!(
        "Package: bothy-provided\nStatus: install ok installed\nArchitecture: all\nMulti-Arch: foreign\nVersion: 1\n\
         Maintainer: none\nDescription: what the image does without\nProvides: {}\n",
        provides.join(", ")
    )
}

/// A line of `--print-uris`: `'URI' name_version_arch.deb size SHA256:hex`.
fn parse_uri_line(line: &str) -> Result<Package> {
    let bad = || Error::Archive(format!("apt printed a line that is not understood: {line}"));
    let mut words = line.split_whitespace().skip(1);
    let listed = words.next().ok_or_else(bad)?;
    let size = words.next().and_then(|s| s.parse().ok()).ok_or_else(bad)?;
    let sha256 = words.next().and_then(|s| s.strip_prefix("SHA256:")).ok_or_else(bad)?;
    let mut parts = listed.strip_suffix(".deb").ok_or_else(bad)?.split('_');
    let (Some(name), Some(version), Some(architecture), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(bad());
    };
    Ok(Package {
        name: name.to_owned(),
        version: version.replace("%3a", ":"),
        architecture: architecture.to_owned(),
        file: listed.to_owned(),
        size,
        sha256: sha256.to_owned(),
    })
}

/// Addresses of Debian's archive and its security archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirrors {
    main: String,
    security: String,
}

impl Mirrors {
    /// A mirror, and its security archive where that is not at the usual place beside it.
    pub fn new(main: String, security: Option<String>) -> Mirrors {
        let security = security.unwrap_or_else(|| format!("{}-security", main.trim_end_matches('/')));
        Mirrors { main, security }
    }

    /// What this Debian machine itself uses.
    fn of_host() -> Result<Mirrors> {
        let advice = "name one with --mirror";
        let release = fs::read_to_string("/etc/os-release").map_err(Error::read("/etc/os-release"))?;
        let codename = release
            .lines()
            .find_map(|line| line.strip_prefix("VERSION_CODENAME="))
            .ok_or_else(|| Error::Archive(format!("/etc/os-release names no Debian release; {advice}")))?;
        // Prints what an update would fetch, and so needs no index to be there; fetches nothing.
        let uris = process::output(
            Command::new("apt-get").args(["--print-uris", "update"]).env("LC_ALL", "C.UTF-8"),
        )?;
        Mirrors::parse(&String::from_utf8_lossy(&uris), codename.trim_matches('"')).ok_or_else(|| {
            Error::Archive(format!(
                "this machine's apt has no source for {codename} and {codename}-security; {advice}"
            ))
        })
    }

    fn parse(uris: &str, codename: &str) -> Option<Mirrors> {
        let base_of = |suite: &str| {
            let end = format!("/dists/{suite}/InRelease");
            uris.lines()
                .filter_map(|l| l.split('\'').nth(1))
                .find_map(|uri| uri.strip_suffix(&end))
                .map(str::to_owned)
        };
        // Sources may name a release by what it is now instead of by its name.
        let names = [codename, "stable", "oldstable", "testing"];
        let main = names.iter().find_map(|name| base_of(name))?;
        let security = names.iter().find_map(|name| base_of(&format!("{name}-security")))?;
        Some(Mirrors { main, security })
    }

    fn sources(&self, suite: &str) -> String {
        let stanza = |uri: &str, suites: &str| {
            format!("Types: deb\nURIs: {uri}\nSuites: {suites}\nComponents: main\nSigned-By: {KEYRING}\n\n")
        };
        stanza(&self.main, &format!("{suite} {suite}-updates"))
            + &stanza(&self.security, &format!("{suite}-security"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uri_line_with_an_epoch() {
        let line = "'http://mirror/pool/n/nftables_1%3a1.1_amd64.deb' nftables_1%3a1.1.3-1_amd64.deb 77384 SHA256:ab12";
        let package = parse_uri_line(line).unwrap();
        assert_eq!(package.version, "1:1.1.3-1");
        assert_eq!(package.file, "nftables_1%3a1.1.3-1_amd64.deb");
        assert_eq!((package.size, package.sha256.as_str()), (77384, "ab12"));
        assert!(parse_uri_line("'http://mirror/x.deb' x.deb 12").is_err());
    }

    #[test]
    fn mirrors_skip_other_archives() {
        let uris = "'https://other/apt/dists/cloud-bookworm/InRelease' a 0 \n\
                    'http://m/debian/dists/bookworm/InRelease' b 0 \n\
                    'http://m/debian/dists/bookworm-updates/InRelease' c 0 \n\
                    'http://s/debian-security/dists/bookworm-security/InRelease' d 0 \n";
        let mirrors = Mirrors::parse(uris, "bookworm").unwrap();
        assert_eq!(
            mirrors,
            Mirrors { main: "http://m/debian".into(), security: "http://s/debian-security".into() }
        );
        assert!(Mirrors::parse(uris, "trixie").is_none());
    }
}

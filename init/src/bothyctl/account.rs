//! Who somebody is at a gateway: arguments, environment, the file that `bothyctl login` writes, or a question.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::http::Host;
use super::terminal::{self, Typed};
use crate::error::{Error, Result};
use crate::file;

/// Environment variables.
const USER: &str = "BOTHY_USER";
const PASSWORD: &str = "BOTHY_PASSWORD";
/// Who the gateway knows unless somebody said otherwise.
const DEFAULT_USER: &str = "admin";

/// Where a machine has its own gateway's.
pub(super) const PUBLISHED: &str = "/run/bothy/secrets";

/// User and password.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Account {
    /// The user.
    pub user: String,
    /// The password.
    pub password: String,
}

/// What the arguments say.
#[derive(Debug, Default)]
pub(super) struct Said {
    /// `--user`.
    pub user: Option<String>,
    /// `--password-file`.
    pub password_file: Option<PathBuf>,
}

/// The account that this machine's gateway goes by.
pub(super) fn published(folder: &Path) -> Result<Account> {
    let read = |name: &str| file::read(folder.join(name)).map(|text| text.trim().to_owned());
    Ok(Account { user: read("basic-auth-user")?, password: read("basic-auth-password")? })
}

/// The account for a host.
pub(super) fn find(host: &Host, said: &Said) -> Result<Account> {
    let kept = kept(&path()?)?.remove(&host.to_string());
    let user = said.user.clone().or_else(|| std::env::var(USER).ok());
    let password = match &said.password_file {
        Some(path) => Some(first_line(&file::read(path)?)),
        None => std::env::var(PASSWORD).ok(),
    };
    match (user, password, kept) {
        (user, Some(password), kept) => {
            let known = kept.map(|kept| kept.user);
            Ok(Account { user: user.or(known).unwrap_or_else(|| DEFAULT_USER.to_owned()), password })
        }
        (None, None, Some(kept)) => Ok(kept),
        (Some(user), None, Some(kept)) if user == kept.user => Ok(kept),
        (user, None, _) => ask(host, user.as_deref()),
    }
}

/// Asks whoever sits at the terminal.
pub(super) fn ask(host: &Host, user: Option<&str>) -> Result<Account> {
    if !std::io::stdin().is_terminal() {
        return Err(Error::Usage(format!(
            "no password for {host}: say --password-file FILE, set {PASSWORD}, or run `bothyctl login --host {host}` \
             at a terminal"
        )));
    }
    let given_up = || Error::Usage("no password, no answer".to_owned());
    let user = match user {
        Some(user) => user.to_owned(),
        None => match terminal::ask(&format!("User at {host} [{DEFAULT_USER}]: "), None) {
            Typed::Line(line) if line.trim().is_empty() => DEFAULT_USER.to_owned(),
            Typed::Line(line) => line.trim().to_owned(),
            Typed::End | Typed::Idle => return Err(given_up()),
        },
    };
    match terminal::ask_secret(&format!("Password of {user}: "), None) {
        Typed::Line(password) => Ok(Account { user, password }),
        Typed::End | Typed::Idle => Err(given_up()),
    }
}

/// Keeps an account for a host, for this user's eyes alone. Gives the file.
pub(super) fn keep(host: &Host, account: &Account) -> Result<PathBuf> {
    let path = path()?;
    let mut all = kept(&path)?;
    all.insert(host.to_string(), account.clone());
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(Error::write(folder))?;
    }
    file::replace(&path, written(&all).as_bytes(), 0o600)?;
    Ok(path)
}

fn written(all: &BTreeMap<String, Account>) -> String {
    // JSON's strings are TOML's basic strings, but for a DEL, which no password of a gateway has.
    let quoted = |text: &str| serde_json::to_string(text).unwrap_or_default();
    let mut text = "# Written by bothyctl login.\n".to_owned();
    for (host, account) in all {
        let (user, password) = (quoted(&account.user), quoted(&account.password));
        text += &format!("\n[{}]\nuser = {user}\npassword = {password}\n", quoted(host));
    }
    text
}

fn kept(path: &Path) -> Result<BTreeMap<String, Account>> {
    match std::fs::read_to_string(path) {
        Ok(text) => toml::from_str(&text).map_err(|error| {
            Error::Usage(format!("{}: {}", path.display(), error.to_string().trim_end().replace('\n', " ")))
        }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(BTreeMap::new()),
        Err(error) => Err(Error::read(path)(error)),
    }
}

/// `credentials.toml` in the folder of the XDG Base Directory Specification.
fn path() -> Result<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let folder = variable("XDG_CONFIG_HOME").or_else(|| Some(variable("HOME")?.join(".config")));
    let folder = folder.ok_or_else(|| Error::Usage("HOME is not set".to_owned()))?;
    Ok(folder.join("bothy/credentials.toml"))
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("credentials.toml");
        assert!(kept(&path).unwrap().is_empty());
        let account = |password: &str| Account { user: "admin".into(), password: password.into() };
        let all: BTreeMap<String, Account> =
            [("http://a:8080".into(), account("x \"y\" \\ 'z'")), ("http://[::1]:1".into(), account("ü"))]
                .into();
        std::fs::write(&path, written(&all)).unwrap();
        assert!(kept(&path).unwrap() == all);
        std::fs::write(&path, "[x]\nuser = 1\n").unwrap();
        assert!(matches!(kept(&path), Err(Error::Usage(text)) if text.contains("credentials.toml")));
    }
}

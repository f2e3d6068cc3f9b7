//! The gateway's user and password as files, written before the gateway starts.

use std::path::Path;

use provisioning::Gateway;
use rustix::rand::{GetRandomFlags, getrandom};

use crate::error::{Error, Result};
use crate::file;

/// Where a password that this device made is kept.
pub(super) const KEPT: &str = "/var/lib/bothy/secrets/basic-auth-password";
/// 32 signs that nobody confuses when reading them from a screen: no i, l, o, 1, 0.
const SIGNS: &[u8; 32] = b"abcdefghjkmnpqrstuvwxyz23456789-";
/// Five bits each: 120 bits.
const LENGTH: usize = 24;

/// Writes `secrets/basic-auth-{user,password}` below `run`. Gives the password if this device made it: it must then
/// be shown to whoever stands at the console, and to nobody else.
pub(super) fn publish(gateway: &Gateway, kept: &Path, run: &Path) -> Result<Option<String>> {
    let (password, made) = match &gateway.password {
        Some(secret) => (secret.expose().to_owned(), false),
        None => (own(kept)?, true),
    };
    let folder = run.join("secrets");
    file::make_dir(&folder, 0o700)?;
    file::replace(folder.join("basic-auth-user"), gateway.user.as_bytes(), 0o600)?;
    file::replace(folder.join("basic-auth-password"), password.as_bytes(), 0o600)?;
    Ok(made.then_some(password))
}

/// The device's own password: made once, then kept.
fn own(kept: &Path) -> Result<String> {
    if let Some(before) =
        file::read(kept).ok().map(|text| text.trim().to_owned()).filter(|text| text.len() >= LENGTH)
    {
        return Ok(before);
    }
    let mut bytes = [0_u8; LENGTH];
    getrandom(&mut bytes, GetRandomFlags::empty())
        .map_err(|errno| Error::Read { path: "/dev/random".into(), source: errno.into() })?;
    let sign = |byte: &u8| SIGNS.get(usize::from(byte % 32)).map(|sign| char::from(*sign));
    let password: String = bytes.iter().filter_map(sign).collect();
    if let Some(folder) = kept.parent() {
        file::make_dir(folder, 0o700)?;
    }
    file::replace(kept, password.as_bytes(), 0o600)?;
    Ok(password)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn made_once_unless_given() {
        let folder = tempfile::tempdir().unwrap();
        let kept = folder.path().join("kept/password");
        let gateway = Gateway::default();
        let first = publish(&gateway, &kept, folder.path()).unwrap().unwrap();
        assert_eq!(first.len(), 24);
        assert_eq!(publish(&gateway, &kept, folder.path()).unwrap(), Some(first.clone()));
        assert_eq!(fs::read_to_string(folder.path().join("secrets/basic-auth-password")).unwrap(), first);
        let text = "version = 1\n[gateway]\nuser = \"farmer\"\npassword = \"hay\"\n";
        let given = provisioning::parse(text, "x").unwrap().gateway;
        assert_eq!(publish(&given, &kept, folder.path()).unwrap(), None);
        assert_eq!(fs::read_to_string(folder.path().join("secrets/basic-auth-user")).unwrap(), "farmer");
        assert_eq!(fs::read_to_string(folder.path().join("secrets/basic-auth-password")).unwrap(), "hay");
        // Cut by a full disk or a hand: a fresh one.
        fs::write(&kept, "short").unwrap();
        assert_ne!(publish(&gateway, &kept, folder.path()).unwrap(), Some("short".to_owned()));
    }
}

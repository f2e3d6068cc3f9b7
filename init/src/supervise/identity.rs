//! Who this machine is: machine-id and host name. Never part of an image: two machines from one image differ.

use std::fs;
use std::path::Path;

use crate::error::{Error, Result};
use crate::file;
use crate::uuid;
use crate::verity::hex;

/// The machine-id (machine-id(5)): made once, kept on the data partition, put where programs look for it.
pub(super) fn machine_id(kept: &Path, published: &Path) -> Result<String> {
    let before = file::read(kept).ok().map(|text| text.trim().to_owned());
    let id = match before
        .filter(|id| id.len() == 32 && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))
    {
        Some(id) => id,
        None => {
            // A UUID of version 4, as systemd makes it.
            let id = hex(&uuid::fresh()?);
            if let Some(folder) = kept.parent() {
                fs::create_dir_all(folder).map_err(Error::write(folder))?;
            }
            file::replace(kept, format!("{id}\n").as_bytes(), 0o444)?;
            id
        }
    };
    file::replace(published, format!("{id}\n").as_bytes(), 0o444)?;
    Ok(id)
}

/// The name of a machine that nobody named: after its first card, else after its machine-id.
pub(super) fn own_name(mac: Option<[u8; 6]>, machine_id: &str) -> String {
    match mac {
        Some(mac) => format!("bothy-{}", hex(mac.get(3..).unwrap_or_default())),
        None => format!("bothy-{}", machine_id.get(..6).unwrap_or("nameless")),
    }
}

/// Sets the kernel's host name, and the files that repeat it.
pub(super) fn set_hostname(name: &str) -> Result<()> {
    rustix::system::sethostname(name.as_bytes()).map_err(|errno| Error::Control {
        act: "set the host name",
        device: "the kernel".to_owned(),
        source: errno.into(),
    })?;
    file::replace("/etc/hostname", format!("{name}\n").as_bytes(), 0o644)?;
    let hosts = format!("127.0.0.1 localhost\n::1 localhost ip6-localhost\n127.0.1.1 {name}\n");
    file::replace("/etc/hosts", hosts.as_bytes(), 0o644)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_is_made_once() {
        let folder = tempfile::tempdir().unwrap();
        let (kept, published) = (folder.path().join("lib/machine-id"), folder.path().join("machine-id"));
        let first = machine_id(&kept, &published).unwrap();
        assert_eq!((first.len(), first.as_bytes()[12]), (32, b'4'));
        assert_eq!(machine_id(&kept, &published).unwrap(), first);
        assert_eq!(fs::read_to_string(&published).unwrap(), format!("{first}\n"));
        fs::remove_file(&kept).unwrap();
        fs::write(&kept, "uninitialized\n").unwrap();
        assert_ne!(machine_id(&kept, &published).unwrap(), first);
    }

    #[test]
    fn names() {
        assert_eq!(own_name(Some([0x52, 0x54, 0, 0x12, 0x34, 0x56]), ""), "bothy-123456");
        assert_eq!(own_name(None, "0123456789abcdef0123456789abcdef"), "bothy-012345");
    }
}

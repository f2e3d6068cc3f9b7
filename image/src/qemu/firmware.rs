//! UEFI firmware for virtual machines (OVMF), as Debian packages it.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Error, Result};

/// Firmware code, and the variables that a fresh machine begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Firmware {
    /// The code, shared by all machines.
    pub code: PathBuf,
    /// The variables; each machine gets its own copy.
    pub variables: PathBuf,
}

/// Where OVMF lies: Debian and Ubuntu; Fedora; Arch.
const PLACES: [(&str, &str); 3] = [
    ("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"),
    ("/usr/share/edk2/ovmf/OVMF_CODE.fd", "/usr/share/edk2/ovmf/OVMF_VARS.fd"),
    ("/usr/share/edk2/x64/OVMF_CODE.4m.fd", "/usr/share/edk2/x64/OVMF_VARS.4m.fd"),
];

impl Firmware {
    /// The firmware of this host.
    ///
    /// # Errors
    /// There is none.
    pub fn find() -> Result<Self> {
        let places = PLACES.iter().map(|(code, variables)| (Path::new(code), Path::new(variables)));
        places
            .filter(|(code, variables)| code.exists() && variables.exists())
            .map(|(code, variables)| Self { code: code.to_owned(), variables: variables.to_owned() })
            .next()
            .ok_or_else(|| Error::Missing { program: "UEFI firmware OVMF".to_owned(), package: "ovmf" })
    }

    /// The variables of one machine, in a file of its own that outlives its reboots.
    pub(crate) fn variables_at(&self, place: &Path) -> Result<()> {
        if !place.exists() {
            let bytes = fs::read(&self.variables).map_err(Error::file("read", &self.variables))?;
            // Not fs::copy: the original is read-only, its copy must not be.
            fs::write(place, bytes).map_err(Error::file("write", place))?;
        }
        Ok(())
    }
}

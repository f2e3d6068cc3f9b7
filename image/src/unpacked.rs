//! Debian's packages, unpacked in memory; their uncompressed archives are kept for the next time.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use rayon::prelude::*;

use crate::apt::{Apt, Lock, Package};
use crate::deb::{self, Deb};
use crate::error::{Error, Result};
use crate::place;
use crate::scripts::Script;
use crate::select::Packages;
use crate::tree::Tree;

/// How a kept file begins; the lengths of its two archives follow, then these.
const MAGIC: &[u8; 8] = b"bothydeb";

/// Every package of a lock.
pub struct Unpacked {
    /// Their files.
    pub packages: Packages,
    /// What an installation would run.
    pub scripts: Vec<Script>,
}

impl Unpacked {
    /// Unpacks the packages of a lock.
    ///
    /// # Errors
    /// A package is damaged, or not what the lock says.
    pub fn of(apt: &Apt, lock: &Lock, cache: &Path, library_folder: &str) -> Result<Unpacked> {
        let kept = cache.join("unpacked");
        fs::create_dir_all(&kept).map_err(Error::write(&kept))?;
        let one = |package: &Package| -> Result<(Tree, Vec<Script>)> {
            let deb = open(apt, package, &kept)?;
            let damaged = |reason| Error::Unpack { path: apt.archive(package), reason };
            let script = |(name, text)| Script { package: package.name.clone(), name, text };
            let scripts = deb::scripts(&deb.control).map_err(damaged)?.into_iter().map(script).collect();
            Ok((deb::tree(&deb.data).map_err(damaged)?, scripts))
        };
        let unpacked: Vec<(Tree, Vec<Script>)> = lock.packages.par_iter().map(one).collect::<Result<_>>()?;
        let (trees, scripts): (Vec<Tree>, Vec<Vec<Script>>) = unpacked.into_iter().unzip();
        let trees: BTreeMap<String, Tree> = lock.packages.iter().map(|p| p.name.clone()).zip(trees).collect();
        Ok(Unpacked { packages: Packages::new(trees, library_folder), scripts: scripts.concat() })
    }
}

fn open(apt: &Apt, package: &Package, kept: &Path) -> Result<Deb> {
    let place = kept.join(&package.sha256);
    if let Some(deb) = fs::read(&place).ok().and_then(|bytes| decode(&bytes)) {
        return Ok(deb);
    }
    let deb = Deb::parse(&apt.read(package)?)
        .map_err(|reason| Error::Unpack { path: apt.archive(package), reason })?;
    place::replace(&place, &encode(&deb))?;
    Ok(deb)
}

fn encode(deb: &Deb) -> Vec<u8> {
    let length = |part: &[u8]| (part.len() as u64).to_le_bytes();
    [&MAGIC[..], &length(&deb.data), &length(&deb.control), &deb.data, &deb.control].concat()
}

/// A file that was cut short, by a power cut or a full disk, is none.
fn decode(bytes: &[u8]) -> Option<Deb> {
    let rest = bytes.strip_prefix(MAGIC)?;
    let (data, rest) = rest.split_first_chunk::<8>()?;
    let (control, rest) = rest.split_first_chunk::<8>()?;
    let (data, control) = (u64::from_le_bytes(*data) as usize, u64::from_le_bytes(*control) as usize);
    if data.checked_add(control) != Some(rest.len()) {
        return None;
    }
    let (data, control) = rest.split_at(data);
    Some(Deb { data: data.to_vec(), control: control.to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kept_package_that_was_cut_is_unpacked_again() {
        let deb = Deb { data: vec![1; 100], control: vec![2; 10] };
        let bytes = encode(&deb);
        let back = decode(&bytes).unwrap();
        assert!(back.data == deb.data && back.control == deb.control);
        for cut in 0..bytes.len() {
            assert!(decode(&bytes[..cut]).is_none());
        }
    }
}

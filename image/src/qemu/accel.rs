//! What executes the guest's code: the processor itself where that really works, else QEMU.

use std::fs;
use std::path::Path;

use super::{Error, Result, probe};

/// How the guest's code is executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accel {
    /// By the processor (KVM).
    Kvm,
    /// By QEMU (TCG): one thread for all processors and no 16-byte compare and exchange, which avoids the faults that
    /// [`Fault`](super::Fault) tells of: of 40 boots none failed, with QEMU's own defaults 6 of 40. And no fast copies
    /// byte by byte (ERMS, FSRM), which are slow here: a first boot takes 5.0 G instructions instead of 5.3 G.
    Tcg,
}

impl Accel {
    /// Finds out, by starting a guest of one sector. The result is kept in `cache` until the host's next boot.
    ///
    /// # Errors
    /// QEMU is missing, or `cache` cannot be written.
    pub fn probe(cache: &Path) -> Result<Self> {
        if !Path::new("/dev/kvm").exists() {
            return Ok(Self::Tcg);
        }
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let boot = boot.trim();
        let note = cache.join("accelerator");
        let known = fs::read_to_string(&note).ok();
        let known = known.as_deref().and_then(|known| known.trim().split_once(' '));
        match known {
            Some((of, "kvm")) if of == boot && !boot.is_empty() => return Ok(Self::Kvm),
            Some((of, "tcg")) if of == boot && !boot.is_empty() => return Ok(Self::Tcg),
            _ => {}
        }
        fs::create_dir_all(cache).map_err(Error::file("create", cache))?;
        let (accel, name) = match probe::guest_runs(Self::Kvm.accel(), Self::Kvm.cpu(), cache)? {
            true => (Self::Kvm, "kvm"),
            false => (Self::Tcg, "tcg"),
        };
        fs::write(&note, format!("{boot} {name}\n")).map_err(Error::file("write", &note))?;
        Ok(accel)
    }

    /// QEMU's `-accel`.
    pub(crate) fn accel(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg,thread=single",
        }
    }

    /// QEMU's `-cpu`.
    pub(crate) fn cpu(self) -> &'static str {
        match self {
            Self::Kvm => "host",
            Self::Tcg => "max,-cx16,-erms,-fsrm",
        }
    }
}

impl std::fmt::Display for Accel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Kvm => "KVM",
            Self::Tcg => "emulation (TCG)",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_probe_reads_the_first_ones_note() {
        let cache = tempfile::tempdir().unwrap();
        let first = Accel::probe(cache.path()).unwrap();
        if Path::new("/dev/kvm").exists() {
            let note = fs::read_to_string(cache.path().join("accelerator")).unwrap();
            // A note of another boot is not believed, one of this boot is.
            let boot = note.split(' ').next().unwrap();
            fs::write(cache.path().join("accelerator"), "another-boot kvm\n").unwrap();
            assert_eq!(Accel::probe(cache.path()).unwrap(), first);
            fs::write(cache.path().join("accelerator"), format!("{boot} kvm\n")).unwrap();
            assert_eq!(Accel::probe(cache.path()).unwrap(), Accel::Kvm);
        } else {
            assert_eq!(first, Accel::Tcg);
        }
    }
}

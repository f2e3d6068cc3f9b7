//! Loading: finit_module(2) for each file in order.

use std::collections::BTreeSet;
use std::ffi::CStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

use super::Index;
use crate::console::{Level, kmsg};
use crate::error::{Error, Result};
use crate::file;

/// `MODULE_INIT_COMPRESSED_FILE` of include/uapi/linux/module.h.
const COMPRESSED: libc::c_int = 4;

impl Index {
    /// The modules of the running kernel.
    pub(crate) fn of_kernel() -> Self {
        let uname = rustix::system::uname();
        Self::read(&Path::new("/usr/lib/modules").join(uname.release().to_string_lossy().as_ref()))
    }
}

/// Loads what `wanted` means, a module or an alias. Gives whether anything is known by that name. Of several modules
/// for one alias each is tried, and the first failure told: often one fits the device and the others say so.
pub(crate) fn load(index: &Index, wanted: &str) -> Result<bool> {
    load_with(index, wanted, is_live, insert)
}

/// Loads the modules of devices by their aliases, each asked for once. What fails is said.
pub(crate) fn load_for(
    index: &Index,
    aliases: impl IntoIterator<Item = String>,
    asked: &mut BTreeSet<String>,
) {
    for alias in aliases {
        if asked.insert(alias.clone())
            && let Err(error) = load(index, &alias)
        {
            kmsg(Level::Warning, &error.to_string());
        }
    }
}

fn load_with(
    index: &Index,
    wanted: &str,
    loaded: impl Fn(&str) -> bool,
    insert: impl Fn(&Path) -> io::Result<()>,
) -> Result<bool> {
    let names = index.resolve(wanted);
    let each = names.iter().map(|name| {
        index.order(name).into_iter().filter(|step| !loaded(&step.name)).try_for_each(|step| {
            match insert(&step.path) {
                Err(source) if !step.soft => Err(Error::Module { name: step.name, source }),
                _ => Ok(()),
            }
        })
    });
    // Collected before it is looked at: all are tried.
    each.collect::<Vec<_>>().into_iter().collect::<Result<()>>()?;
    Ok(!names.is_empty())
}

/// Whether a module is in the kernel and ready. The kernel itself finds that out last, when it has read the file and
/// verified its signature: 45 million instructions each, and a request for nft's parts asks for eight.
fn is_live(name: &str) -> bool {
    fs::read(Path::new("/sys/module").join(name).join("initstate")).is_ok_and(|state| state == b"live\n")
}

/// Loads one file; that it is loaded already is success.
fn insert(path: &Path) -> io::Result<()> {
    const NO_PARAMETERS: &CStr = c"";
    let file = File::open(path)?;
    let compressed = path.extension().is_some_and(|ext| ext == "xz" || ext == "zst" || ext == "gz");
    let flags = if compressed { COMPRESSED } else { 0 };
    // SAFETY: a valid descriptor and a NUL terminated string, both alive during the call.
    let done =
        unsafe { libc::syscall(libc::SYS_finit_module, file.as_raw_fd(), NO_PARAMETERS.as_ptr(), flags) };
    match io::Error::last_os_error() {
        _ if done == 0 => Ok(()),
        error if error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
        error => Err(error),
    }
}

/// Loads the modules that `/usr/lib/modules-load.d` lists. What fails is said and left: the boot goes on.
pub(crate) fn load_listed(index: &Index, folder: &Path) {
    for name in listed(folder) {
        match load(index, &name) {
            Ok(true) => {}
            Ok(false) => kmsg(Level::Warning, &format!("module {name} of {} is not there", folder.display())),
            Err(error) => kmsg(Level::Warning, &error.to_string()),
        }
    }
}

/// The names in a folder's `*.conf`, by file name, without comments.
fn listed(folder: &Path) -> Vec<String> {
    let texts = file::configurations(folder).into_iter().filter_map(|path| fs::read_to_string(path).ok());
    texts
        .flat_map(|text| {
            let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim().to_owned());
            lines.filter(|line| !line.is_empty()).collect::<Vec<_>>()
        })
        .collect()
}

/// The kernel's `/sbin/modprobe -q -- NAME`. Gives the exit code.
pub(crate) fn modprobe(arguments: &[String]) -> u8 {
    let quiet = arguments.iter().any(|word| word == "-q" || word == "--quiet");
    let names = arguments.iter().filter(|word| !word.starts_with('-'));
    let index = Index::of_kernel();
    let mut code = 0;
    for name in names {
        if index.is_builtin(name) {
            continue;
        }
        match load(&index, name) {
            Ok(true) => {}
            Ok(false) => {
                code = 1;
                if !quiet {
                    eprintln!("modprobe: no module is called {name}");
                }
            }
            Err(error) => {
                code = 1;
                eprintln!("modprobe: {error}");
                kmsg(Level::Warning, &error.to_string());
            }
        }
    }
    code
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_in_order_without_comments() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("b.conf"), "veth\n").unwrap();
        fs::write(folder.path().join("a.conf"), "# network\nvirtio_net # card\n\n overlay\n").unwrap();
        fs::write(folder.path().join("c.txt"), "not_this\n").unwrap();
        assert_eq!(listed(folder.path()), ["virtio_net", "overlay", "veth"]);
    }

    #[test]
    fn what_is_only_wanted_may_fail_and_every_module_of_an_alias_is_tried() {
        let folder = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        put("modules.dep", "a.ko:\nb.ko:\nwish.ko:\n");
        put("modules.softdep", "softdep b pre: wish\n");
        put("modules.alias", "alias pci:* a\nalias pci:v1* b\n");
        let index = Index::read(folder.path());
        let tried = std::cell::RefCell::new(Vec::new());
        let insert = |path: &Path| {
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            let fails = name != "b";
            tried.borrow_mut().push(name);
            if fails { Err(io::Error::from_raw_os_error(libc::ENODEV)) } else { Ok(()) }
        };
        let none = |_: &str| false;
        let error = load_with(&index, "pci:v1d2", none, insert).unwrap_err();
        assert!(error.to_string().starts_with("load module a: "), "{error}");
        assert_eq!(*tried.borrow(), ["a", "wish", "b"]);
        assert!(load_with(&index, "b", none, insert).unwrap());
        assert!(!load_with(&index, "usb:x", none, insert).unwrap());
        // What is there already is not even read again.
        tried.borrow_mut().clear();
        assert!(load_with(&index, "b", |name| name == "wish", insert).unwrap());
        assert_eq!(*tried.borrow(), ["b"]);
    }

    #[test]
    fn a_missing_folder_lists_nothing() {
        assert!(listed(Path::new("/nonexistent")).is_empty());
    }
}

//! What a virtual machine is made of, and the command line that makes it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::{Accel, Disk, Firmware, Result, Running};

/// The emulator.
pub(crate) const PROGRAM: &str = "qemu-system-x86_64";

/// How a machine finds its kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Boot {
    /// QEMU loads it: the quick way.
    Direct {
        /// The kernel.
        kernel: PathBuf,
        /// Its initial file system.
        initrd: PathBuf,
        /// Its command line.
        command_line: String,
    },
    /// UEFI firmware looks for it on the disk: the way of a real machine.
    Firmware(Firmware),
}

/// A virtual machine that can be started, again and again, with the same disk.
#[derive(Debug, Clone)]
pub struct Machine {
    /// Folder for its console log, firmware variables and sockets.
    pub folder: PathBuf,
    /// What executes its code.
    pub accel: Accel,
    /// How it boots.
    pub boot: Boot,
    /// Its disk, if it has one.
    pub disk: Option<Disk>,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Number of processors.
    pub processors: u32,
    /// Whether there is a network card.
    pub network: bool,
    /// The port of 127.0.0.1 that leads to the machine's port 8080; any free one unless given.
    pub port: Option<u16>,
    /// Whether each instruction takes one nanosecond of the machine's time, so that its clock counts instructions.
    pub counted: bool,
    /// The file for the console, if not `console.log` in the folder.
    pub console: Option<PathBuf>,
}

impl Machine {
    /// A machine of usual size: 1 GiB of memory, two processors, a network card.
    pub fn new(folder: &Path, accel: Accel, boot: Boot) -> Self {
        Self {
            folder: folder.to_owned(),
            accel,
            boot,
            disk: None,
            memory_mib: 1024,
            processors: 2,
            network: true,
            port: None,
            counted: false,
            console: None,
        }
    }

    /// Starts it. The thread that starts it must outlive it: when that thread ends, the kernel ends QEMU too, so that
    /// no machine is left behind by a program that was killed.
    ///
    /// # Errors
    /// QEMU is missing or ends at once; a file or socket cannot be made.
    pub fn start(&self) -> Result<Running> {
        Running::start(self)
    }

    /// Where the console goes.
    pub(crate) fn console_log(&self) -> PathBuf {
        self.console.clone().unwrap_or_else(|| self.folder.join("console.log"))
    }

    /// Where the firmware's variables lie.
    pub(crate) fn variables(&self) -> PathBuf {
        self.folder.join("firmware-variables.fd")
    }

    /// QEMU's arguments, without those of the sockets.
    pub(crate) fn arguments(&self, port: u16) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = Vec::new();
        let mut add = |name: &str, value: OsString| arguments.extend([name.into(), value]);
        // QEMU 10's firmware for q35 spends half a minute before it starts a kernel directly; that of pc does not.
        let (kind, accel) = match (&self.boot, self.counted) {
            (Boot::Direct { .. }, false) => ("pc", self.accel),
            (Boot::Direct { .. }, true) => ("pc", Accel::Tcg),
            (Boot::Firmware(_), _) => ("q35", self.accel),
        };
        add("-machine", kind.into());
        add("-accel", accel.accel().into());
        add("-cpu", accel.cpu().into());
        let processors = if self.counted { 1 } else { self.processors };
        if self.counted {
            add("-icount", "shift=0,sleep=off".into());
        }
        add("-smp", processors.to_string().into());
        add("-m", format!("{}M", self.memory_mib).into());
        add("-display", "none".into());
        match &self.boot {
            Boot::Direct { kernel, initrd, command_line } => {
                add("-kernel", kernel.into());
                add("-initrd", initrd.into());
                add("-append", command_line.into());
            }
            Boot::Firmware(firmware) => {
                add("-drive", drive("if=pflash,format=raw,unit=0,readonly=on", &firmware.code));
                add("-drive", drive("if=pflash,format=raw,unit=1", &self.variables()));
            }
        }
        if let Some(disk) = &self.disk {
            add("-drive", drive("if=none,id=disk,format=raw,discard=unmap,detect-zeroes=unmap", disk.path()));
            // Of a kernel that it loads itself QEMU says the same: first.
            let first = if matches!(self.boot, Boot::Firmware(_)) { ",bootindex=0" } else { "" };
            add("-device", format!("virtio-blk-pci,drive=disk{first}").into());
        }
        if self.network {
            add("-netdev", format!("user,id=net,hostfwd=tcp:127.0.0.1:{port}-:8080").into());
            // Without a boot ROM the card needs no file of another package, and the firmware no time for it.
            add("-device", "virtio-net-pci,netdev=net,romfile=".into());
        }
        add("-object", "rng-random,id=random,filename=/dev/urandom".into());
        add("-device", "virtio-rng-pci,rng=random".into());
        arguments.push("-nodefaults".into());
        arguments
    }
}

/// A `-drive` with a file's name, in which QEMU wants commas doubled.
fn drive(options: &str, file: &Path) -> OsString {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    let mut text = format!("{options},file=").into_bytes();
    for byte in file.as_os_str().as_bytes() {
        text.push(*byte);
        if *byte == b',' {
            text.push(b',');
        }
    }
    OsString::from_vec(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(machine: &Machine) -> String {
        let words: Vec<String> =
            machine.arguments(4444).iter().map(|word| word.to_string_lossy().into_owned()).collect();
        words.join(" ")
    }

    fn direct() -> Boot {
        Boot::Direct { kernel: "k".into(), initrd: "i".into(), command_line: "console=ttyS0".into() }
    }

    #[test]
    fn the_parts_are_those_that_were_asked_for() {
        let mut machine = Machine::new(Path::new("/m"), Accel::Tcg, direct());
        assert!(line(&machine).contains("-accel tcg,thread=single -cpu max,-cx16 -smp 2 -m 1024M"));
        assert!(line(&machine).contains("hostfwd=tcp:127.0.0.1:4444-:8080"));
        machine.network = false;
        machine.counted = true;
        assert!(!line(&machine).contains("net"));
        assert!(line(&machine).contains("-icount shift=0,sleep=off -smp 1"));
    }

    #[test]
    fn commas_in_names_survive() {
        assert_eq!(drive("a=b", Path::new("/x,y/z")), "a=b,file=/x,,y/z");
    }
}

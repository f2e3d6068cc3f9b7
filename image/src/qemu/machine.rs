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

/// A cable: a datagram is an Ethernet frame. The host's end must be bound before the machine starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wire {
    /// The machine's socket; QEMU makes it.
    pub machine: PathBuf,
    /// The host's socket.
    pub host: PathBuf,
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
    /// A second disk, which firmware and kernel find before the first one, but firmware does not boot from.
    pub other_disk: Option<Disk>,
    /// Whether the disks refuse to be written.
    pub read_only: bool,
    /// The file for a record of all writes to the disk, see [`Writes`](super::Writes). Nothing of it is flushed: what a
    /// flush must bring about is in the record, and the host is not the one whose power fails.
    pub writes: Option<PathBuf>,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Number of processors.
    pub processors: u32,
    /// Whether there is a network card.
    pub network: bool,
    /// A card before that one, whose cable ends in our own process; its name for the monitor is `wire`.
    pub wire: Option<Wire>,
    /// The port of 127.0.0.1 that leads to the machine's port 8080; any free one unless given.
    pub port: Option<u16>,
    /// The port of 127.0.0.1 that leads to the machine's port 443; none unless given.
    pub tls_port: Option<u16>,
    /// Whether each instruction takes one nanosecond of the machine's time, so that its clock counts instructions.
    pub counted: bool,
    /// Whether there is a hardware watchdog; a machine that it finds dead is reset.
    pub watchdog: bool,
    /// What the clock in the machine shows when it starts, as `2026-11-23T12:00:00`; the host's time unless given.
    pub clock: Option<String>,
    /// A file in which the firmware keeps what the kernel says when it crashes (ACPI ERST); none unless given.
    pub crash_store: Option<PathBuf>,
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
            other_disk: None,
            read_only: false,
            writes: None,
            memory_mib: 1024,
            processors: 2,
            network: true,
            wire: None,
            port: None,
            tls_port: None,
            counted: false,
            watchdog: false,
            clock: None,
            crash_store: None,
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
                add("-drive", named("if=pflash,format=raw,unit=0,readonly=on", "file", &firmware.code));
                add("-drive", named("if=pflash,format=raw,unit=1", "file", &self.variables()));
            }
        }
        let read_only = if self.read_only { ",readonly=on" } else { "" };
        let options =
            |id: &str| format!("if=none,id={id},format=raw,discard=unmap,detect-zeroes=unmap{read_only}");
        if let Some(other) = &self.other_disk {
            add("-drive", named(&options("other"), "file", other.path()));
            add("-device", "virtio-blk-pci,drive=other".into());
        }
        if let Some(disk) = &self.disk {
            match &self.writes {
                None => add("-drive", named(&options("disk"), "file", disk.path())),
                Some(log) => recorded(disk.path(), log).into_iter().for_each(|node| add("-blockdev", node)),
            }
            // Of a kernel that it loads itself QEMU says the same: first.
            let first = if matches!(self.boot, Boot::Firmware(_)) { ",bootindex=0" } else { "" };
            add("-device", format!("virtio-blk-pci,drive=disk{first}").into());
        }
        if let Some(Wire { machine, host }) = &self.wire {
            let ends = [("local", machine), ("remote", host)]
                .map(|(end, path)| format!("{end}.type=unix,{end}.path={}", path.display()));
            add("-netdev", format!("dgram,id=wire,{}", ends.join(",")).into());
            add("-device", "virtio-net-pci,netdev=wire,romfile=".into());
        }
        if self.network {
            let tls =
                self.tls_port.map(|port| format!(",hostfwd=tcp:127.0.0.1:{port}-:443")).unwrap_or_default();
            add("-netdev", format!("user,id=net,hostfwd=tcp:127.0.0.1:{port}-:8080{tls}").into());
            // Without a boot ROM the card needs no file of another package, and the firmware no time for it.
            add("-device", "virtio-net-pci,netdev=net,romfile=".into());
        }
        if self.watchdog {
            add("-device", "i6300esb".into());
            add("-action", "watchdog=reset".into());
        }
        if let Some(clock) = &self.clock {
            add("-rtc", format!("base={clock}").into());
        }
        if let Some(file) = &self.crash_store {
            let mut words = OsString::from("memory-backend-file,id=crash,size=64K,share=on,mem-path=");
            words.push(file);
            add("-object", words);
            add("-device", "acpi-erst,memdev=crash".into());
        }
        add("-object", "rng-random,id=random,filename=/dev/urandom".into());
        add("-device", "virtio-rng-pci,rng=random".into());
        arguments.push("-nodefaults".into());
        arguments
    }
}

/// The nodes of `-blockdev` whose last, `disk`, notes every write in `log`, which must exist. No detection of zeroes and
/// no discards: the record has what the machine sent.
pub(crate) fn recorded(disk: &Path, log: &Path) -> [OsString; 3] {
    let plain = "driver=file,cache.no-flush=on,discard=ignore,detect-zeroes=off,node-name";
    [
        named(&format!("{plain}=medium"), "filename", disk),
        named(&format!("{plain}=log"), "filename", log),
        "driver=blklogwrites,node-name=disk,file=medium,log=log,log-append=off".into(),
    ]
}

/// Options with a file's name, in which QEMU wants commas doubled.
fn named(options: &str, key: &str, file: &Path) -> OsString {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    let mut text = format!("{options},{key}=").into_bytes();
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
        assert!(
            line(&machine).contains("-accel tcg,thread=single -cpu max,-cx16,-erms,-fsrm -smp 2 -m 1024M")
        );
        assert!(line(&machine).contains("hostfwd=tcp:127.0.0.1:4444-:8080"));
        machine.tls_port = Some(4445);
        assert!(line(&machine).contains("4444-:8080,hostfwd=tcp:127.0.0.1:4445-:443"));
        machine.network = false;
        assert!(!line(&machine).contains("i6300esb"));
        machine.watchdog = true;
        assert!(line(&machine).contains("-device i6300esb -action watchdog=reset"));
        machine.counted = true;
        assert!(!line(&machine).contains("net"));
        assert!(line(&machine).contains("-icount shift=0,sleep=off -smp 1"));
    }

    #[test]
    fn clock_and_crash_store_are_as_given() {
        let mut machine = Machine::new(Path::new("/m"), Accel::Tcg, direct());
        assert!(!line(&machine).contains("-rtc") && !line(&machine).contains("erst"));
        machine.clock = Some("2090-01-01T00:00:00".to_owned());
        machine.crash_store = Some("/m/crash".into());
        assert!(line(&machine).contains("-rtc base=2090-01-01T00:00:00 "));
        assert!(line(&machine).contains("share=on,mem-path=/m/crash -device acpi-erst,memdev=crash"));
    }

    #[test]
    fn commas_in_names_survive() {
        assert_eq!(named("a=b", "file", Path::new("/x,y/z")), "a=b,file=/x,,y/z");
    }
}

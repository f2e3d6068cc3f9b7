//! The floor of `bothy bench boot`: an init that does nothing but bring containerd and NATS up on the image's own
//! root file system, with its verity tree, and the disk's own data partition. Not part of any image.
//!
//! It runs from an initial file system with the same modules (`/modules/NNN.ko`, in the order in which they must be
//! loaded), prints `floor: ready` and powers off in good order, so that the next boot of the disk finds it clean.

#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

use std::fs::{self, File};
use std::io;
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode};
use std::time::{Duration, Instant};

use init::{mapper, verity};
use rustix::mount::{MountFlags, UnmountFlags};

/// How long anything may take.
const LIMIT: Duration = Duration::from_secs(120);
/// How often something that gives no sign is looked at.
const TICK: Duration = Duration::from_millis(5);
/// The user that NATS runs as in the image.
const NATS_USER: u32 = 900;
const NOTIFY: &str = "/run/floor-notify";

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    if std::process::id() != 1 {
        eprintln!("floor: only as process 1 of a machine of `bothy bench boot`");
        return ExitCode::FAILURE;
    }
    if let Err(error) = floor() {
        eprintln!("floor: failed: {error}");
        std::thread::sleep(Duration::from_secs(5));
    }
    // SAFETY: plain system calls; nothing of ours is left to lose.
    unsafe {
        libc::sync();
        libc::reboot(libc::RB_POWER_OFF);
    }
    loop {
        std::thread::park();
    }
}

fn floor() -> Result<()> {
    mount("dev", "/dev", "devtmpfs", "")?;
    mount("proc", "/proc", "proc", "")?;
    mount("sys", "/sys", "sysfs", "")?;
    load_modules()?;
    let (device, tree, hash) = root()?;
    let parameters = tree.parameters(&device, &hash);
    let target = mapper::Target { sectors: tree.sectors(), kind: "verity", parameters: &parameters };
    let root = mapper::create_read_only("root", &target)?;
    until("the mapped device", || Ok(root.exists().then_some(())))?;
    rustix::mount::mount(&root, "/sysroot", "squashfs", MountFlags::RDONLY, None)?;
    for folder in ["/dev", "/proc", "/sys"] {
        rustix::mount::mount_move(folder, format!("/sysroot{folder}"))?;
    }
    rustix::process::chroot("/sysroot")?;
    std::env::set_current_dir("/")?;
    mount("run", "/run", "tmpfs", "mode=0755")?;
    mount("tmp", "/tmp", "tmpfs", "")?;
    mount("cgroup2", "/sys/fs/cgroup", "cgroup2", "")?;
    mount(&partition("data")?.to_string_lossy(), "/var", "ext4", "")?;
    loopback_up()?;

    let notify = UnixDatagram::bind(NOTIFY)?;
    notify.set_read_timeout(Some(LIMIT))?;
    let mut containerd = Command::new("/usr/bin/containerd");
    containerd.args(["--config", "/etc/containerd/config.toml"]).env("NOTIFY_SOCKET", NOTIFY);
    let containerd = quiet(containerd.env("PATH", "/usr/bin:/usr/sbin"))?;
    let nats =
        ["/usr/bin/nats-server", "/usr/sbin/nats-server"].into_iter().find(|path| Path::new(path).exists());
    let mut nats = Command::new(nats.ok_or("no nats-server")?);
    nats.args(["-a", "127.0.0.1", "-p", "4222", "-js", "-sd", "/var/lib/nats"]).uid(NATS_USER).gid(NATS_USER);
    let nats = quiet(&mut nats)?;
    until("NATS", || Ok(TcpStream::connect(("127.0.0.1", 4222)).ok()))?;
    let mut message = [0; 256];
    loop {
        let length = notify.recv(&mut message)?;
        let text = String::from_utf8_lossy(message.get(..length).unwrap_or_default()).into_owned();
        if text.lines().any(|line| line == "READY=1") {
            break;
        }
    }
    println!("floor: ready {}", fs::read_to_string("/proc/uptime").unwrap_or_default().trim());

    for mut child in [nats, containerd] {
        // SAFETY: a system call with the number of our own child, which was not waited for.
        unsafe { libc::kill(child.id() as i32, libc::SIGTERM) };
        child.wait()?;
    }
    rustix::mount::unmount("/var", UnmountFlags::empty())?;
    Ok(())
}

fn mount(source: &str, target: &str, kind: &str, options: &str) -> Result<()> {
    let options = std::ffi::CString::new(options)?;
    rustix::mount::mount(source, target, kind, MountFlags::empty(), Some(options.as_c_str()))
        .map_err(|errno| format!("mount {kind} on {target}: {errno}"))?;
    Ok(())
}

/// A service whose words nobody reads.
fn quiet(command: &mut Command) -> Result<Child> {
    let null = || File::options().read(true).write(true).open("/dev/null");
    let child = command.stdin(null()?).stdout(null()?).stderr(null()?).spawn();
    child.map_err(|error| format!("start {:?}: {error}", command.get_program()).into())
}

/// Looks again and again.
fn until<T>(what: &str, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let end = Instant::now() + LIMIT;
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        if Instant::now() > end {
            return Err(format!("{what} did not appear").into());
        }
        std::thread::sleep(TICK);
    }
}

fn load_modules() -> Result<()> {
    let mut files: Vec<PathBuf> = fs::read_dir("/modules")?.flatten().map(|entry| entry.path()).collect();
    files.sort();
    for path in files {
        let file = File::open(&path)?;
        // SAFETY: the kernel reads the file; the parameters are an empty C string.
        let done = unsafe { libc::syscall(libc::SYS_finit_module, file.as_raw_fd(), c"".as_ptr(), 0) };
        let error = io::Error::last_os_error();
        if done != 0 && error.raw_os_error() != Some(libc::EEXIST) {
            return Err(format!("load {}: {error}", path.display()).into());
        }
    }
    Ok(())
}

/// The partition of that name, by its node.
fn partition(name: &str) -> Result<PathBuf> {
    let wanted = format!("PARTNAME={name}");
    until(&format!("the partition {name}"), || {
        for entry in fs::read_dir("/sys/class/block")?.flatten() {
            let event = fs::read_to_string(entry.path().join("uevent")).unwrap_or_default();
            if event.lines().any(|line| line == wanted) {
                return Ok(Some(Path::new("/dev").join(entry.file_name())));
            }
        }
        Ok(None)
    })
}

/// The root partition as `major:minor`, where its parts lie, and the root hash of the command line.
fn root() -> Result<(String, verity::Tree, [u8; 32])> {
    let line = fs::read_to_string("/proc/cmdline")?;
    let text =
        line.split_whitespace().find_map(|word| word.strip_prefix("roothash=")).ok_or("no roothash=")?;
    let mut hash = [0; 32];
    for (place, byte) in hash.iter_mut().enumerate() {
        let digits = text.get(2 * place..2 * place + 2).ok_or("roothash= is too short")?;
        *byte = u8::from_str_radix(digits, 16)?;
    }
    let node = partition("root-a")?;
    until("the root partition's node", || Ok(node.exists().then_some(())))?;
    match verity::examine(&mut File::open(&node)?, &hash)? {
        verity::Finding::Other(why) => Err(format!("{}: {why}", node.display()).into()),
        verity::Finding::Ours(tree) => {
            let device = fs::metadata(&node)?.rdev();
            let numbers = format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
            Ok((numbers, tree, hash))
        }
    }
}

/// `ip link set lo up` (netdevice(7)).
fn loopback_up() -> Result<()> {
    let socket = UnixDatagram::unbound()?;
    // SAFETY: all zeroes are a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (place, byte) in request.ifr_name.iter_mut().zip(b"lo") {
        *place = *byte as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: the request is a whole ifreq and outlives the call.
    if unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as libc::Ioctl, &request) } != 0 {
        return Err(format!("bring lo up: {}", io::Error::last_os_error()).into());
    }
    Ok(())
}

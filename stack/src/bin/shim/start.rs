//! `start`: listens, prints the address for containerd, and goes on in a process of its own.
//!
//! The process is a fork and no second start of the program: by then one thread runs and nothing has been made that
//! would not survive it, and whatever cannot be has been refused while containerd still listens.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use containerd_shim_protos::protobuf::Message;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::shim::oci::Options;
use nix::libc;
use nix::unistd::{ForkResult, fork, setsid};
use sha2::{Digest, Sha256};

use crate::arguments::Arguments;
use crate::failure::Failure;
use crate::serve;

/// Where containerd's own shims have their sockets too.
const SOCKETS: &str = "/run/containerd/s";

/// In the bundle, for who has to clean up without us: the OCI runtime's program, and our process.
pub const RUNTIME_FILE: &str = "runtime";
pub const PID_FILE: &str = "shim.pid";

/// The socket of a container's shim.
pub fn socket(arguments: &Arguments) -> PathBuf {
    let mut hash = Sha256::new();
    for part in [&arguments.address, &arguments.namespace, &arguments.id] {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    let name: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Path::new(SOCKETS).join(name)
}

/// Does it; returns in the first process when the socket listens, in the second when its task is gone.
pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let options = options()?;
    let bundle = std::env::current_dir().map_err(Failure::io("find", "the working directory"))?;
    let events = std::env::var("TTRPC_ADDRESS").unwrap_or_default();
    let path = socket(arguments);
    let listener = listen(&path)?;
    let begun = begin(arguments, &options, &bundle, &path);
    let Some(address) = begun.inspect_err(|_| drop(std::fs::remove_file(&path)))? else {
        let (id, namespace) = (arguments.id.clone(), arguments.namespace.clone());
        let shim = serve::Shim { id, namespace, bundle, events, socket: path.clone() };
        return detach().and_then(|()| serve::run(shim, listener));
    };
    print!("{address}");
    std::io::stdout().flush().map_err(Failure::io("write", "the address"))
}

/// Writes what has to be known of us, and forks: the first process gets the address, the second nothing.
fn begin(
    arguments: &Arguments,
    options: &Options,
    bundle: &Path,
    socket: &Path,
) -> Result<Option<String>, Failure> {
    let write = |name: &str, text: &str| {
        let path = bundle.join(name);
        std::fs::write(&path, text).map_err(Failure::io("write", path))
    };
    let address = format!("unix://{}", socket.display());
    write("address", &address)?;
    write(RUNTIME_FILE, &options.binary_name)?;
    if !options.shim_cgroup.is_empty() {
        enter(&options.shim_cgroup)?;
    }
    // SAFETY: no other thread runs that could hold a lock.
    match unsafe { fork() }.map_err(Failure::errno("fork", arguments.id.as_str()))? {
        ForkResult::Parent { child } => {
            let written = write(PID_FILE, &child.to_string());
            if written.is_err() {
                // Nobody would find it.
                let _ = nix::sys::signal::kill(child, nix::sys::signal::Signal::SIGKILL);
            }
            written.map(|()| Some(address))
        }
        ForkResult::Child => Ok(None),
    }
}

/// The runtime's options, which containerd writes to our standard input.
fn options() -> Result<Options, Failure> {
    let mut bytes = Vec::new();
    std::io::stdin().read_to_end(&mut bytes).map_err(Failure::io("read", "the runtime's options"))?;
    let parsed = Any::parse_from_bytes(&bytes).and_then(|any| Options::parse_from_bytes(&any.value));
    parsed.map_err(|error| Failure::Refused(format!("the runtime's options are damaged: {error}")))
}

/// Listens. What a shim left that was killed is removed; one that lives keeps its socket.
fn listen(path: &Path) -> Result<UnixListener, Failure> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o711).create(folder);
    made.map_err(Failure::io("create", folder))?;
    match UnixListener::bind(path) {
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse && UnixStream::connect(path).is_err() => {
            std::fs::remove_file(path).map_err(Failure::io("remove", path))?;
            UnixListener::bind(path)
        }
        other => other,
    }
    .map_err(Failure::io("listen on", path))
}

/// Moves this process into a cgroup, so that it does not end with containerd's.
fn enter(cgroup: &str) -> Result<(), Failure> {
    let folder = Path::new("/sys/fs/cgroup").join(cgroup.trim_start_matches('/'));
    std::fs::create_dir_all(&folder).map_err(Failure::io("create", &folder))?;
    let list = folder.join("cgroup.procs");
    std::fs::write(&list, "0").map_err(Failure::io("enter", &list))
}

/// Lets go of containerd: its session, its pipes, the bundle's folder. What is written to standard error goes to
/// containerd's log as long as it runs.
fn detach() -> Result<(), Failure> {
    setsid().map_err(Failure::errno("leave the session of", "containerd"))?;
    let null = File::options().read(true).write(true).open("/dev/null");
    let null = null.map_err(Failure::io("open", "/dev/null"))?;
    let log = File::options().write(true).custom_flags(libc::O_NONBLOCK).open("log");
    let error = log.as_ref().unwrap_or(&null);
    for (file, number) in [(&null, 0), (&null, 1), (error, 2)] {
        // SAFETY: both are numbers of open files, and the standard streams belong to nobody else here.
        if unsafe { libc::dup2(file.as_raw_fd(), number) } < 0 {
            return Err(Failure::io("open", "/dev/null")(std::io::Error::last_os_error()));
        }
    }
    std::env::set_current_dir("/").map_err(Failure::io("enter", "/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_shims_socket_is_taken_and_a_living_ones_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s/one");
        let first = listen(&path).unwrap();
        assert!(listen(&path).is_err());
        drop(first);
        listen(&path).unwrap();
    }
}

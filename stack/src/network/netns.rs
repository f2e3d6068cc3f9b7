//! Named network namespaces, made in a thread of their own.
//!
//! Not rtnetlink's `NetworkNamespace`: it forks the whole multi-threaded process and blocks in waitpid. Here a thread
//! leaves the host's namespace for a new one, gives that a name by a bind mount, does what has to be done inside, and
//! ends; no other thread notices.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use netlink_packet_route::link::{InfoData, InfoVeth};
use netlink_packet_route::route::RouteScope;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use rtnetlink::{Handle, LinkBridgePort, LinkUnspec, LinkVeth, RouteMessageBuilder};

use super::addresses::Subnet;
use super::links::hardware_address;
use crate::error::{Error, Result};

/// The link's name as the function sees it.
const INSIDE: &str = "eth0";

/// A network namespace to make.
pub struct Plan {
    /// Its name: a file to mount it on.
    pub path: PathBuf,
    /// The host's end of its link.
    pub link: String,
    /// The bridge's number.
    pub bridge: u32,
    /// Its address.
    pub address: Ipv4Addr,
    /// The subnet it is in.
    pub subnet: Subnet,
}

/// Makes a namespace with an address, a route, and a link to the bridge.
pub async fn make(host: Handle, plan: Plan) -> Result<()> {
    let path = plan.path.clone();
    let (done, result) = tokio::sync::oneshot::channel();
    let thread = std::thread::Builder::new().name("netns".into()).spawn(move || {
        // Nobody listens when the caller was dropped; the sweep finds what was made.
        let _ = done.send(inside(&host, &plan));
    });
    thread.map_err(|source| Error::Netns { act: "start a thread", path: path.clone(), source })?;
    let lost =
        || Error::Netns { act: "its thread panicked", path, source: io::Error::from(ErrorKind::Other) };
    result.await.unwrap_or_else(|_| Err(lost()))
}

/// What the thread does. The tokio runtime is its own: sockets belong to the namespace of the thread that opens them.
fn inside(host: &Handle, plan: &Plan) -> Result<()> {
    let step =
        |act: &'static str| move |source: io::Error| Error::Netns { act, path: plan.path.clone(), source };
    if let Some(folder) = plan.path.parent() {
        fs::create_dir_all(folder).map_err(step("make its folder"))?;
    }
    File::create_new(&plan.path).map_err(step("make its file"))?;
    unshare(CloneFlags::CLONE_NEWNET).map_err(io::Error::from).map_err(step("unshare"))?;
    let source = Path::new("/proc/thread-self/ns/net");
    mount(Some(source), &plan.path, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .map_err(io::Error::from)
        .map_err(step("mount"))?;
    let namespace = File::open(source).map_err(step("open"))?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_io().build().map_err(step("start a runtime"))?;
    runtime.block_on(async {
        // One request makes the pair with its far end in the new namespace already.
        let peer = LinkUnspec::new_with_name(INSIDE)
            .setns_by_fd(namespace.as_raw_fd())
            .address(hardware_address(plan.address))
            .build();
        let pair = LinkVeth::new(&plan.link, INSIDE)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
            .controller(plan.bridge)
            .up()
            .build();
        let netlink = |act: String| move |source| Error::Netlink { act, source };
        host.link().add(pair).execute().await.map_err(netlink(format!("add {}", plan.link)))?;

        let port = super::links::index(host, &plan.link).await?;
        // Only an existing port can be told so: from here on the bridge carries nothing from one function to another.
        let alone = LinkBridgePort::new(port).isolated(true).build();
        let set = host.link().set_port(alone).execute().await;
        set.map_err(netlink(format!("isolate {}", plan.link)))?;

        let (connection, handle, _) = rtnetlink::new_connection().map_err(step("open netlink in it"))?;
        tokio::spawn(connection);
        let eth0 = super::links::index(&handle, INSIDE).await?;
        // A redirect would make a way around the machine. On the appliance that is so already, and /proc/sys read-only.
        for name in ["all", INSIDE] {
            let _ = std::fs::write(format!("/proc/sys/net/ipv4/conf/{name}/accept_redirects"), "0");
        }
        for (name, index) in [("lo", 1), (INSIDE, eth0)] {
            let up = LinkUnspec::new_with_index(index).up().build();
            let set = handle.link().set(up).execute().await;
            set.map_err(netlink(format!("set {name} of {} up", plan.path.display())))?;
        }
        // Alone on its subnet: what it sends to another function goes to the machine, whose firewall drops it, even
        // where the bridge would have carried it.
        let address = handle.address().add(eth0, plan.address.into(), 32).execute().await;
        address.map_err(netlink(format!("add address {}", plan.address)))?;
        let gateway = plan.subnet.gateway();
        let near = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(gateway, 32)
            .scope(RouteScope::Link)
            .output_interface(eth0);
        let added = handle.route().add(near.build()).execute().await;
        added.map_err(netlink(format!("add a route to {gateway} in {}", plan.path.display())))?;
        let route = RouteMessageBuilder::<Ipv4Addr>::new().gateway(gateway).output_interface(eth0);
        let added = handle.route().add(route.build()).execute().await;
        added.map_err(netlink(format!("add a default route in {}", plan.path.display())))
    })
}

/// Takes a namespace's name away, and with it the namespace once no process is in it. One that is not there is fine.
pub fn remove(path: &Path) -> Result<()> {
    match umount2(path, MntFlags::MNT_DETACH) {
        // EINVAL: a file without a mount, left by an interrupted start.
        Ok(()) | Err(nix::errno::Errno::EINVAL | nix::errno::Errno::ENOENT) => {}
        Err(error) => {
            return Err(Error::Netns { act: "unmount", path: path.to_owned(), source: error.into() });
        }
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(Error::Netns { act: "remove its file", path: path.to_owned(), source: error })
        }
        _ => Ok(()),
    }
}

/// The namespaces in a folder; a folder that is not there is empty.
pub fn list(folder: &Path) -> Result<Vec<PathBuf>> {
    match fs::read_dir(folder) {
        Ok(entries) => Ok(entries.flatten().map(|entry| entry.path()).collect()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(source) => Err(Error::Read { path: folder.to_owned(), source }),
    }
}

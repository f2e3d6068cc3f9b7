//! Another machine on a network of the test's own: `192.0.2.0/24`, where the test is 192.0.2.1, and what else it is given.

use std::fs::File;
use std::io::{self, Read};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::Duration;

use futures_util::TryStreamExt;
use netlink_packet_route::link::{InfoData, InfoVeth};
use nix::sched::{CloneFlags, setns, unshare};
use rtnetlink::{Handle, LinkUnspec, LinkVeth, RouteMessageBuilder};

use super::PATIENCE;

/// The machine's own address there.
pub const HERE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

/// Its link.
const LINK: &str = "peer0";

/// The other machine. It is gone with its network namespace when this is dropped.
pub struct Peer(File);

impl Peer {
    /// One with these addresses, which this machine can reach.
    pub async fn new(addresses: &[Ipv4Addr]) -> Self {
        let namespace = std::thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            File::open("/proc/thread-self/ns/net").unwrap()
        });
        let namespace = namespace.join().unwrap();
        let (connection, handle, _) = rtnetlink::new_connection().unwrap();
        tokio::spawn(connection);
        let far = LinkUnspec::new_with_name("eth0").setns_by_fd(namespace.as_raw_fd()).build();
        let pair =
            LinkVeth::new(LINK, "eth0").set_info_data(InfoData::Veth(InfoVeth::Peer(far))).up().build();
        handle.link().add(pair).execute().await.unwrap();
        let near = number(&handle, LINK).await;
        handle.address().add(near, HERE.into(), 24).execute().await.unwrap();
        for address in addresses {
            let route = RouteMessageBuilder::<Ipv4Addr>::new()
                .destination_prefix(*address, 32)
                .output_interface(near);
            handle.route().add(route.build()).execute().await.unwrap();
        }
        within(&namespace, || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
            runtime.block_on(async {
                let (connection, handle, _) = rtnetlink::new_connection().unwrap();
                tokio::spawn(connection);
                let near = number(&handle, "eth0").await;
                handle.link().set(LinkUnspec::new_with_index(near).up().build()).execute().await.unwrap();
                for address in addresses {
                    handle.address().add(near, (*address).into(), 24).execute().await.unwrap();
                }
            });
        });
        Self(namespace)
    }

    /// Takes connections of TCP there, as long as what is given back lives.
    pub fn listen(&self, address: &str) -> TcpListener {
        within(&self.0, || TcpListener::bind(address).unwrap())
    }

    /// Answers datagrams of UDP there, until the test ends.
    pub fn echo(&self, address: &str) {
        let socket = within(&self.0, || UdpSocket::bind(address).unwrap());
        std::thread::spawn(move || {
            let mut bytes = [0; 512];
            while let Ok((size, from)) = socket.recv_from(&mut bytes) {
                let _ = socket.send_to(&bytes[..size], from);
            }
        });
    }
}

async fn number(handle: &Handle, link: &str) -> u32 {
    let found = handle.link().get().match_name(link).execute().try_next().await.unwrap();
    found.unwrap().header.index
}

/// Does something in a network namespace, in a thread of its own: sockets belong to the namespace that they were made in.
pub fn within<T: Send>(namespace: &File, act: impl FnOnce() -> T + Send) -> T {
    let there = || {
        setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
        act()
    };
    std::thread::scope(|scope| scope.spawn(there).join().unwrap())
}

/// The network of a function's instance, in which a test can do what a program of the function could, and more.
pub struct Inside(File);

impl Inside {
    pub fn of(folder: &Path, instance: &str) -> Self {
        Self(File::open(folder.join("netns").join(instance)).unwrap())
    }

    /// Connects; what is neither taken nor refused is `TimedOut`.
    pub fn connect(&self, address: &str) -> Result<TcpStream, io::ErrorKind> {
        self.connect_within(address, PATIENCE)
    }

    pub fn connect_within(&self, address: &str, patience: Duration) -> Result<TcpStream, io::ErrorKind> {
        let address: SocketAddr = address.parse().unwrap();
        within(&self.0, || TcpStream::connect_timeout(&address, patience).map_err(|error| error.kind()))
    }

    /// Sends a datagram and waits for its echo.
    pub fn ask(&self, address: &str) -> Result<String, io::ErrorKind> {
        let ask = || -> io::Result<String> {
            let socket = within(&self.0, || UdpSocket::bind("0.0.0.0:0"))?;
            socket.set_read_timeout(Some(PATIENCE))?;
            socket.connect(address)?;
            socket.send(b"name?")?;
            let mut bytes = [0; 512];
            let size = socket.recv(&mut bytes)?;
            Ok(String::from_utf8_lossy(&bytes[..size]).into_owned())
        };
        ask().map_err(|error| error.kind())
    }

    /// Gives up the addresses of its own loopback, so that what it sends to 127.0.0.0/8 leaves it as anything else.
    pub fn let_loopback_out(&self) {
        within(&self.0, || {
            std::fs::write("/proc/sys/net/ipv4/conf/eth0/route_localnet", "1").unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
            runtime.block_on(async {
                let (connection, handle, _) = rtnetlink::new_connection().unwrap();
                tokio::spawn(connection);
                let found = handle.address().get().set_link_index_filter(1).execute();
                let addresses: Vec<_> = found.try_collect().await.unwrap();
                for address in addresses {
                    handle.address().del(address).execute().await.unwrap();
                }
            });
        });
    }
}

/// The first bytes that the other side says.
pub fn first_words(mut stream: &TcpStream) -> String {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut bytes = [0; 512];
    let size = stream.read(&mut bytes).unwrap();
    String::from_utf8_lossy(&bytes[..size]).into_owned()
}

/// Whether this machine itself gets a connection: what a function does not get is there all the same.
pub fn reaches(address: &str) -> bool {
    TcpStream::connect_timeout(&address.parse().unwrap(), PATIENCE).is_ok()
}

/// An address of IPv4.
pub fn v4(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
}

//! What functions reach: each of it is there, and this machine itself reaches it.

use std::io::ErrorKind::ConnectionRefused;
use std::io::Write;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use hyper::Method;

use super::namespaces::inside;
use super::peer::{Inside, Peer, first_words, reaches, v4};
use super::tls::heard;
use super::{IMAGE, PATIENCE, deployment, image, ready};
use crate::lab::Lab;

const METADATA: &str = "169.254.169.254:80";

/// A gateway with such a table, and one function `f` in whose place the test may speak.
async fn start(lab: &mut Lab, egress: &str) -> Inside {
    like_the_appliance();
    image(lab, "one", "here\n");
    configure(lab, egress);
    lab.start_containerd();
    lab.start_gateway();
    ready(lab).await;
    lab.expect(200, Method::POST, "/system/functions", &deployment("f", IMAGE)).await;
    Inside::of(&lab.folder, "openfaas-fn.f.0")
}

fn configure(lab: &Lab, egress: &str) {
    std::fs::write(lab.folder.join("bothy.toml"), format!("version = 1\n[egress]\n{egress}")).unwrap();
}

/// The next gateway, with another table; the function runs on.
async fn restart(lab: &mut Lab, egress: &str) {
    lab.stop_gateway();
    configure(lab, egress);
    lab.start_gateway();
    lab.until("/function/f", "here\n", PATIENCE).await;
}

/// The appliance's bridge does not ask the firewall; the host's may. Seen by this network namespace alone, as is the rest
/// that the appliance sets otherwise than the kernel does. (After a redirect no other word of ICMP goes out for a second.)
fn like_the_appliance() {
    let asks = Path::new("/proc/sys/net/bridge/bridge-nf-call-iptables");
    if asks.exists() {
        std::fs::write(asks, "0").unwrap();
    }
    for (name, value) in [("rp_filter", "2"), ("send_redirects", "0")] {
        for link in ["all", "default"] {
            std::fs::write(format!("/proc/sys/net/ipv4/conf/{link}/{name}"), value).unwrap();
        }
    }
}

#[test]
fn the_world_but_not_the_metadata_nor_the_machine() {
    inside("reach::the_world_but_not_the_metadata_nor_the_machine", async |mut lab| {
        let peer = Peer::new(&["192.0.2.2", "169.254.169.254"].map(v4)).await;
        let _listeners = [peer.listen("192.0.2.2:80"), peer.listen(METADATA)];
        peer.echo("192.0.2.2:53");
        peer.echo("169.254.169.254:53");
        // The cloud's server of names is where its metadata are.
        std::fs::write(lab.folder.join("resolv.conf"), "nameserver 169.254.169.254\n").unwrap();
        let function = start(&mut lab, "").await;
        let _machine = ["10.62.0.1:9999", "192.0.2.1:22"].map(|address| TcpListener::bind(address).unwrap());
        lab.expect(200, Method::POST, "/system/functions", &deployment("g", IMAGE)).await;
        let neighbour = "10.62.0.3:8080";
        assert!([METADATA, "10.62.0.1:9999", "192.0.2.1:22", neighbour].map(reaches).iter().all(|is| *is));

        for open in ["192.0.2.2:80", "10.62.0.1:8080"] {
            assert!(function.connect(open).is_ok(), "{open}");
        }
        for name in ["192.0.2.2:53", "169.254.169.254:53"] {
            assert_eq!(function.ask(name), Ok("name?".to_owned()), "{name}");
        }
        // Metadata, a port of the machine's, two at another address of the machine's, the way to NATS, another function.
        for closed in [METADATA, "10.62.0.1:9999", "192.0.2.1:22", "10.62.0.1:4222", neighbour] {
            assert_eq!(function.connect(closed).err(), Some(ConnectionRefused), "{closed}");
        }
        // What is not TCP hears it by ICMP.
        for closed in ["169.254.169.254:80", "10.62.0.1:9999", neighbour] {
            assert_eq!(function.ask(closed).err(), Some(std::io::ErrorKind::HostUnreachable), "{closed}");
        }
        restart(&mut lab, "world = false\n").await;
        assert_eq!(function.connect(METADATA).err(), Some(ConnectionRefused));
        assert_eq!(function.ask("169.254.169.254:53"), Ok("name?".to_owned()));
        assert_eq!(function.connect("192.0.2.2:80").err(), Some(ConnectionRefused));
    });
}

#[test]
fn without_the_world_what_is_allowed_and_the_servers_of_names() {
    inside("reach::without_the_world_what_is_allowed_and_the_servers_of_names", async |mut lab| {
        let peer = Peer::new(&["192.0.2.2", "192.0.2.3", "192.0.2.9", "192.0.2.17"].map(v4)).await;
        let all = [
            "192.0.2.2:5432",
            "192.0.2.2:80",
            "192.0.2.3:53",
            "192.0.2.9:80",
            "192.0.2.17:80",
            "192.0.2.17:53",
        ];
        let _listeners = all.map(|address| peer.listen(address));
        for address in ["192.0.2.3:53", "192.0.2.2:5432", "192.0.2.9:9", "192.0.2.17:53"] {
            peer.echo(address);
        }
        let resolv_conf = |lab: &Lab, server: &str| {
            std::fs::write(lab.folder.join("resolv.conf"), format!("nameserver {server}\n")).unwrap();
        };
        resolv_conf(&lab, "192.0.2.3");
        let table = "world = false\nallow = [\"192.0.2.2:5432\", \"192.0.2.8/29\"]\n";
        let function = start(&mut lab, table).await;
        assert!(all.map(reaches).iter().all(|is| *is));
        let expect = |open: &[&str]| {
            for address in all {
                let wanted = if open.contains(&address) { None } else { Some(ConnectionRefused) };
                assert_eq!(function.connect(address).err(), wanted, "{address}");
            }
        };
        expect(&["192.0.2.2:5432", "192.0.2.9:80", "192.0.2.3:53"]);
        for open in ["192.0.2.3:53", "192.0.2.2:5432", "192.0.2.9:9"] {
            assert_eq!(function.ask(open), Ok("name?".to_owned()), "{open}");
        }
        assert_eq!(function.ask("192.0.2.17:53").err(), Some(std::io::ErrorKind::HostUnreachable));

        // The machine came to another network.
        resolv_conf(&lab, "192.0.2.17");
        let end = Instant::now() + PATIENCE;
        while function.connect("192.0.2.17:53").is_err() {
            assert!(Instant::now() < end, "the new server of names stays closed");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        expect(&["192.0.2.2:5432", "192.0.2.9:80", "192.0.2.17:53"]);
        assert_eq!(function.ask("192.0.2.17:53"), Ok("name?".to_owned()));
        // And lost it.
        std::fs::remove_file(lab.folder.join("resolv.conf")).unwrap();
        while function.connect("192.0.2.17:53").is_ok() {
            assert!(Instant::now() < end, "the old server of names stays open");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        lab.expect(200, Method::GET, "/function/f", "").await;

        restart(&mut lab, "allow = [\"192.0.2.2:5432\"]\n").await;
        expect(&all);
    });
}

/// The machine's own nats-server, as the supervisor starts it.
struct Nats(Child);

impl Nats {
    fn start() -> Self {
        let root = std::env::var_os("BOTHY_ROOTFS").unwrap();
        let mut command = Command::new(Path::new(&root).join("usr/sbin/nats-server"));
        command.args(["-a", "127.0.0.1", "-p", "4222"]).stdin(Stdio::null()).stderr(Stdio::null());
        Self(command.spawn().unwrap())
    }

    async fn ready(&self) {
        let end = Instant::now() + PATIENCE;
        while std::net::TcpStream::connect("127.0.0.1:4222").is_err() {
            assert!(Instant::now() < end, "nats-server does not listen");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn nats_where_it_is_allowed_and_nothing_else_of_the_loopback() {
    inside("reach::nats_where_it_is_allowed_and_nothing_else_of_the_loopback", async |mut lab| {
        let nats = Nats::start();
        let function = start(&mut lab, "nats = true\nworld = false\n").await;
        nats.ready().await;
        let loopback = ["127.0.0.1:9998", "127.0.0.2:9998", "0.0.0.0:9997"];
        let _machine = loopback.map(|address| TcpListener::bind(address).unwrap());

        let mut stream = function.connect("10.62.0.1:4222").unwrap();
        assert!(first_words(&stream).starts_with("INFO {"));
        stream.write_all(b"CONNECT {\"verbose\":false}\r\nPING\r\n").unwrap();
        assert_eq!(first_words(&stream), "PONG\r\n");
        for closed in ["10.62.0.1:9998", "10.62.0.1:9997", "10.62.0.1:8222"] {
            assert_eq!(function.connect(closed).err(), Some(ConnectionRefused), "{closed}");
        }
        assert_eq!(function.ask("10.62.0.1:4222").err(), Some(std::io::ErrorKind::HostUnreachable));

        let localnet = |link: &str| {
            std::fs::read_to_string(format!("/proc/sys/net/ipv4/conf/{link}/route_localnet")).unwrap()
        };
        assert_eq!(["of0", "all", "default", "of0-0002"].map(localnet), ["1\n", "0\n", "0\n", "0\n"]);
        // A function that could send whatever it liked gets no further: not even to NATS.
        function.let_loopback_out();
        let (moment, all) = (
            Duration::from_secs(1),
            ["127.0.0.1:4222", "127.0.0.1:9998", "127.0.0.2:9998", "127.0.0.1:9997"],
        );
        for closed in all {
            let outcome = function.connect_within(closed, moment).err();
            assert_eq!(outcome, Some(std::io::ErrorKind::TimedOut), "{closed}");
        }
        // It is our rules that it does not get past: without them it does.
        lab.nft(&["delete", "table", "inet", "bothy"]);
        for open in all {
            assert!(function.connect(open).is_ok(), "{open}");
        }

        restart(&mut lab, "").await;
        assert_eq!(function.connect("10.62.0.1:4222").err(), Some(ConnectionRefused));
        assert_eq!(localnet("of0"), "0\n");
        // Without the rules too, now.
        lab.nft(&["delete", "table", "inet", "bothy"]);
        assert_eq!(
            function.connect_within("127.0.0.1:9998", moment).err(),
            Some(std::io::ErrorKind::TimedOut)
        );
    });
}

#[test]
fn no_rules_no_network() {
    inside("reach::no_rules_no_network", async |mut lab| {
        image(&lab, "one", "here\n");
        let nft = lab.folder.join("bin/nft");
        let good = std::fs::read(&nft).unwrap();
        std::fs::write(&nft, "#!/bin/sh\necho no such module >&2\nexit 1\n").unwrap();
        let path = lab.folder.join("notify");
        let supervisor = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
        lab.notify = Some(path);
        lab.start_containerd();
        lab.start_gateway();
        ready(&lab).await;
        let refused = lab.expect(400, Method::POST, "/system/functions", &deployment("f", IMAGE)).await;
        assert!(refused.text.contains("look up of0"), "{}", refused.text);
        let program = nft.display();
        heard(&supervisor, &format!("X_NOTICE=network: {program} -f -: exit status: 1: no such module"))
            .await;
        std::fs::write(&nft, good).unwrap();
        let end = Instant::now() + PATIENCE;
        while !crate::lab::links().iter().any(|link| link == "of0") {
            assert!(Instant::now() < end, "no bridge");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        lab.expect(200, Method::POST, "/system/functions", &deployment("f", IMAGE)).await;
    });
}

//! The firewall's rules as text: a pure function of the settings.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use provisioning::Destination;

use super::Settings;

/// Where the machine's own nats-server listens, for the machine alone.
const NATS: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 4222);

/// Addresses that belong to one link alone; a cloud's metadata service is there.
const LINK_LOCAL: &str = "169.254.0.0/16";

/// Our table, replaced as a whole. (Chain names must not be words of nft's language.)
///
/// - What functions send comes from their own addresses and goes to nobody's loopback: so what arrives there, where NATS
///   is allowed, was sent by the rule for NATS.
/// - What they send into the world goes out under the machine's own address.
/// - Nobody outside reaches a function but through the gateway, and no function another one. A function has no neighbours
///   on its link, so that what it sends to another one comes by here; the bridge's ports are isolated besides.
/// - Of the machine itself a function reaches the gateway's port, NATS where it may, and echo requests.
/// - What a function may not reach it is told at once. Strangers are told nothing.
pub fn table(settings: &Settings, servers: &BTreeSet<Ipv4Addr>) -> String {
    let Settings { table, subnet, bridge, port, egress, .. } = settings;
    let gateway = subnet.gateway();
    let (nats, nats_port) = NATS;
    let (mut to_nats, mut nats_inward) = (String::new(), String::new());
    if egress.nats {
        to_nats = format!(
            "\tchain functions_to_nats {{\n\
             \t\ttype nat hook prerouting priority dstnat; policy accept;\n\
             \t\tiifname \"{bridge}\" ip daddr {gateway} tcp dport {nats_port} dnat ip to {nats}\n\
             \t}}\n"
        );
        nats_inward = format!("\t\tip daddr {nats} tcp dport {nats_port} ct status dnat accept\n");
    }
    let (names, outward) = (names(settings, servers), outward(settings));
    // The first line makes sure that there is something to delete.
    format!(
        "table inet {table}\n\
         delete table inet {table}\n\
         table inet {table} {{\n\
         \tchain functions_first {{\n\
         \t\ttype filter hook prerouting priority raw; policy accept;\n\
         \t\tiifname != \"{bridge}\" accept\n\
         \t\tmeta nfproto ipv6 drop\n\
         \t\tip saddr != {subnet} drop\n\
         \t\tip daddr 127.0.0.0/8 drop\n\
         \t}}\n\
         {to_nats}\
         \tchain functions_outward {{\n\
         \t\ttype nat hook postrouting priority srcnat; policy accept;\n\
         \t\tip saddr {subnet} oifname != \"{bridge}\" masquerade\n\
         \t}}\n\
         \tchain functions_through {{\n\
         \t\ttype filter hook forward priority filter; policy accept;\n\
         \t\tiifname \"{bridge}\" oifname \"{bridge}\" goto functions_refused\n\
         \t\toifname \"{bridge}\" ct state established,related accept\n\
         \t\toifname \"{bridge}\" drop\n\
         \t\tiifname != \"{bridge}\" accept\n\
         {names}\
         \t\tip daddr {LINK_LOCAL} goto functions_refused\n\
         {outward}\
         \t}}\n\
         \tchain functions_inward {{\n\
         \t\ttype filter hook input priority filter; policy accept;\n\
         \t\tiifname != \"{bridge}\" accept\n\
         \t\tct state established,related accept\n\
         \t\ttcp dport {port} accept\n\
         {nats_inward}\
         \t\tmeta l4proto icmp accept\n\
         \t\tgoto functions_refused\n\
         \t}}\n\
         \tchain functions_refused {{\n\
         \t\tmeta l4proto tcp reject with tcp reset\n\
         \t\treject with icmpx admin-prohibited\n\
         \t}}\n\
         }}\n"
    )
}

/// Lets functions ask the machine's servers of names, wherever these are: some clouds have them beside their metadata. A
/// rule that would change nothing is left out, so that a server that changes is rarely a reason to load the table anew.
fn names(settings: &Settings, servers: &BTreeSet<Ipv4Addr>) -> String {
    let closed = |server: &&Ipv4Addr| !settings.egress.world || server.is_link_local();
    let servers: Vec<String> = servers.iter().filter(closed).map(Ipv4Addr::to_string).collect();
    match servers.is_empty() {
        true => String::new(),
        false => {
            format!(
                "\t\tip daddr {{ {} }} meta l4proto {{ tcp, udp }} th dport 53 accept\n",
                servers.join(", ")
            )
        }
    }
}

/// What functions reach of the world.
fn outward(settings: &Settings) -> String {
    if settings.egress.world {
        return "\t\taccept\n".to_owned();
    }
    let allowed: String = settings.egress.allow.iter().map(allow).collect();
    format!("{allowed}\t\tgoto functions_refused\n")
}

fn allow(destination: &Destination) -> String {
    let (network, prefix) = (destination.network(), destination.prefix());
    match destination.port() {
        Some(port) => {
            format!("\t\tip daddr {network}/{prefix} meta l4proto {{ tcp, udp }} th dport {port} accept\n")
        }
        None => format!("\t\tip daddr {network}/{prefix} accept\n"),
    }
}

#[cfg(test)]
mod tests {
    use provisioning::Egress;

    use super::*;

    fn rules(egress: Egress, servers: &[&str]) -> String {
        let settings = Settings::sample(egress);
        table(&settings, &servers.iter().map(|server| server.parse().unwrap()).collect())
    }

    /// The rules of a chain, without its first line.
    fn chain<'t>(rules: &'t str, name: &str) -> Vec<&'t str> {
        let begin = rules.lines().skip_while(|line| *line != format!("\tchain {name} {{"));
        begin
            .skip(1)
            .map(str::trim)
            .take_while(|line| *line != "}")
            .filter(|l| !l.starts_with("type "))
            .collect()
    }

    #[test]
    fn one_transaction_on_our_own_table() {
        let rules = rules(Egress::default(), &[]);
        assert!(rules.starts_with("table inet bothy\ndelete table inet bothy\ntable inet bothy {\n"));
        assert_eq!(rules.matches("table inet").count(), 3);
        assert!(!rules.contains("flush"));
    }

    #[test]
    fn by_default_the_world_and_nothing_beside_it() {
        let rules = rules(Egress::default(), &["192.0.2.53"]);
        assert_eq!(
            chain(&rules, "functions_through"),
            [
                "iifname \"of0\" oifname \"of0\" goto functions_refused",
                "oifname \"of0\" ct state established,related accept",
                "oifname \"of0\" drop",
                "iifname != \"of0\" accept",
                "ip daddr 169.254.0.0/16 goto functions_refused",
                "accept",
            ]
        );
        assert_eq!(
            chain(&rules, "functions_inward"),
            [
                "iifname != \"of0\" accept",
                "ct state established,related accept",
                "tcp dport 8080 accept",
                "meta l4proto icmp accept",
                "goto functions_refused",
            ]
        );
        assert!(!rules.contains("dnat ip"), "{rules}");
    }

    #[test]
    fn without_the_world_what_is_allowed_and_names() {
        let allow = ["10.0.0.7:5432", "10.1.0.0/16"].map(|text| text.parse().unwrap()).to_vec();
        let rules = rules(Egress { world: false, nats: false, allow }, &["192.0.2.53", "192.0.2.54"]);
        assert_eq!(
            chain(&rules, "functions_through")[4..],
            [
                "ip daddr { 192.0.2.53, 192.0.2.54 } meta l4proto { tcp, udp } th dport 53 accept",
                "ip daddr 169.254.0.0/16 goto functions_refused",
                "ip daddr 10.0.0.7/32 meta l4proto { tcp, udp } th dport 5432 accept",
                "ip daddr 10.1.0.0/16 accept",
                "goto functions_refused",
            ]
        );
    }

    #[test]
    fn a_server_of_names_beside_the_metadata_is_only_that() {
        let rules = rules(Egress::default(), &["169.254.169.254", "192.0.2.53"]);
        assert_eq!(
            chain(&rules, "functions_through")[4..],
            [
                "ip daddr { 169.254.169.254 } meta l4proto { tcp, udp } th dport 53 accept",
                "ip daddr 169.254.0.0/16 goto functions_refused",
                "accept",
            ]
        );
    }

    #[test]
    fn nats_is_one_port_of_the_loopback() {
        let rules = rules(Egress { nats: true, ..Egress::default() }, &[]);
        assert_eq!(
            chain(&rules, "functions_to_nats"),
            ["iifname \"of0\" ip daddr 10.62.0.1 tcp dport 4222 dnat ip to 127.0.0.1"]
        );
        assert!(chain(&rules, "functions_first").contains(&"ip daddr 127.0.0.0/8 drop"));
        let inward = chain(&rules, "functions_inward");
        assert!(inward.contains(&"ip daddr 127.0.0.1 tcp dport 4222 ct status dnat accept"), "{inward:?}");
    }
}

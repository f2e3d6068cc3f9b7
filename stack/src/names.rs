//! The names by which functions find each other, the gateway and the machine's services.

use provisioning::Namespace;

use crate::key::Key;

/// What is not a function's: a function of such a name has only its longer ones.
const RESERVED: [&str; 4] = ["gateway", "nats", "prometheus", "localhost"];

/// What OpenFaaS calls the namespace of its own services.
const SERVICES: &str = "openfaas";

/// What Kubernetes puts behind NAME.NAMESPACE.
const CLUSTER: &str = "svc.cluster.local";

/// The names of the machine's services, each with its longer form.
pub fn services() -> impl Iterator<Item = [String; 2]> {
    let own = RESERVED.iter().filter(|name| **name != "localhost");
    own.map(|name| [(*name).to_owned(), format!("{name}.{SERVICES}")])
}

/// The names of a function, the shortest first.
pub fn of(key: &Key) -> Vec<String> {
    let short = is_short(key).then(|| key.name.to_string());
    short.into_iter().chain([key.to_string(), format!("{key}.{CLUSTER}")]).collect()
}

/// The function whose name a client called, from what stands there for a host: `NAME:8080`, `NAME.NAMESPACE`. There may be
/// no such function.
pub fn read(authority: &str) -> Option<Key> {
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    let long = host.strip_suffix(CLUSTER).and_then(|host| host.strip_suffix('.'));
    let key = Key::from_path(long.unwrap_or(&host))?;
    let is_whole = long.map_or_else(|| host.contains('.') || is_short(&key), |long| long.contains('.'));
    is_whole.then_some(key)
}

/// Whether the name alone is enough.
fn is_short(key: &Key) -> bool {
    key.namespace == Namespace::default() && !RESERVED.contains(&key.name.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(name: &str, namespace: &str) -> Key {
        Key::new(name, namespace).unwrap()
    }

    #[test]
    fn names_of_functions() {
        for (name, namespace, names) in [
            ("f", "", &["f", "f.openfaas-fn", "f.openfaas-fn.svc.cluster.local"][..]),
            ("f", "dev", &["f.dev", "f.dev.svc.cluster.local"]),
            ("nats", "", &["nats.openfaas-fn", "nats.openfaas-fn.svc.cluster.local"]),
            ("nats", "dev", &["nats.dev", "nats.dev.svc.cluster.local"]),
        ] {
            assert_eq!(of(&key(name, namespace)), names);
        }
    }

    #[test]
    fn names_of_services() {
        let all: Vec<String> = services().flatten().collect();
        let wanted =
            ["gateway", "gateway.openfaas", "nats", "nats.openfaas", "prometheus", "prometheus.openfaas"];
        assert_eq!(all, wanted);
    }

    #[test]
    fn whose_name_was_called() {
        for (authority, name, namespace) in [
            ("figlet", "figlet", "openfaas-fn"),
            ("figlet:8080", "figlet", "openfaas-fn"),
            ("Figlet.Dev.:8080", "figlet", "dev"),
            ("figlet.dev.svc.cluster.local", "figlet", "dev"),
            ("gateway.dev", "gateway", "dev"),
            ("localhost.openfaas-fn:80", "localhost", "openfaas-fn"),
        ] {
            assert_eq!(read(authority), Some(key(name, namespace)), "{authority}");
        }
        for authority in [
            "",
            ":8080",
            ".",
            "gateway",
            "GATEWAY:8080",
            "gateway.openfaas:8080",
            "nats",
            "prometheus:9090",
            "localhost:8080",
            "10.62.0.1:8080",
            "10.62.0.1",
            "[::1]:8080",
            "figlet.svc.cluster.local",
            "svc.cluster.local",
            "figletsvc.cluster.local",
            "a.b.c",
            "user@figlet",
            "fig let",
        ] {
            assert_eq!(read(authority), None, "{authority}");
        }
    }

    proptest! {
        #[test]
        fn every_name_leads_back(name in "[a-z][a-z0-9]{0,8}", namespace in "(openfaas-fn|[a-z][a-z0-9]{0,8})") {
            if let Some(key) = Key::new(&name, &namespace) {
                for name in of(&key) {
                    prop_assert_eq!(read(&name), Some(key.clone()));
                    let with_port = format!("{name}:8080");
                    prop_assert_eq!(read(&with_port), Some(key.clone()));
                }
            }
        }

        #[test]
        fn never_panics(authority in ".{0,40}") {
            let _ = read(&authority);
        }
    }
}

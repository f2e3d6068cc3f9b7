//! Whole files, good and bad: `tests/samples/good/*.toml` parse, `bad/NAME.toml` is refused with exactly the text of
//! `bad/NAME.txt`. After a deliberate change of a message: `BOTHY_BLESS=1 cargo test -p provisioning`, then read the diff.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use provisioning::{
    Backoff, Config, Idler, Images, Login, Nats, NatsUrl, PullPolicy, Queue, Retries, Stack,
    default_document, parse, parse_bytes,
};

fn samples(kind: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/samples").join(kind);
    let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "toml"));
    files.sort();
    assert!(!files.is_empty());
    files
}

fn name(file: &Path) -> &str {
    file.file_name().unwrap().to_str().unwrap()
}

#[test]
fn good_files_parse() {
    for file in samples("good") {
        let parsed = parse_bytes(&fs::read(&file).unwrap(), name(&file));
        assert!(parsed.is_ok(), "{}", parsed.unwrap_err());
    }
}

#[test]
fn bad_files_say_what_is_wrong() {
    let mut wrong = Vec::new();
    for file in samples("bad") {
        let said = match parse_bytes(&fs::read(&file).unwrap(), name(&file)) {
            Ok(config) => format!("accepted: {config:?}\n"),
            Err(diagnostics) => diagnostics.to_string(),
        };
        assert!(!said.contains("swordfish") && !said.contains("fish\"\"\""), "{said}");
        let expected = file.with_extension("txt");
        if std::env::var_os("BOTHY_BLESS").is_some() {
            fs::write(&expected, &said).unwrap();
        }
        if fs::read_to_string(&expected).unwrap_or_default() != said {
            wrong.push(said);
        }
    }
    assert!(wrong.is_empty(), "not as in the .txt files:\n{}", wrong.join("\n"));
}

#[test]
fn the_full_file_means_what_it_says() {
    let file = samples("good").into_iter().find(|file| name(file) == "full.toml").unwrap();
    let config = parse(&fs::read_to_string(file).unwrap(), "full.toml").unwrap();
    assert_eq!(config.hostname.unwrap().as_str(), "barn-7.example.org");
    assert_eq!(config.gateway.user, "farmer");
    assert_eq!(config.gateway.password.unwrap().expose(), "correct horse battery staple");
    assert_eq!(config.registries.pull_policy, PullPolicy::IfNotPresent);
    assert_eq!(config.registries.docker_config.as_deref(), Some(Path::new("/boot/docker.json")));
    let plant = &config.registries.named[&"10.0.0.7:5000".parse().unwrap()];
    assert!(plant.insecure && plant.mirrors.is_empty() && plant.ca.is_none());
    let hub = &config.registries.named[&"docker.io".parse().unwrap()];
    assert_eq!(
        (hub.mirrors[1].registry.as_str(), hub.mirrors[1].path.as_str()),
        ("mirror.example.org", "hub")
    );
    assert_eq!(hub.ca.as_deref(), Some(Path::new("/boot/ca.pem")));
    assert_eq!(config.images, Images { high_threshold: 60, low_threshold: 0 });
    assert_eq!(config.gateway.provider, provisioning::Provider::Faasd);
    assert_eq!(config.gateway.timeout.duration(), std::time::Duration::from_secs(5400));
    let tls = config.gateway.tls.unwrap();
    assert_eq!((tls.listen.to_string().as_str(), tls.only), ("[::]:8443", true));
    assert_eq!(
        (tls.certificate.as_path(), tls.key.as_path()),
        (Path::new("/boot/chain.pem"), Path::new("/boot/key.pem"))
    );
    let allowed: Vec<String> = config.egress.allow.iter().map(ToString::to_string).collect();
    assert_eq!(allowed, ["10.0.0.7:5432", "10.1.0.0/16", "10.1.0.9"]);
    assert!(config.egress.nats && !config.egress.world);
    let nats = config.stack.nats;
    assert_eq!(nats.url.unwrap().servers(), ["tls://10.0.0.5:4222", "tls://nats.example.org:4333"]);
    assert_eq!((nats.replicas, nats.ca.as_deref()), (3, Some(Path::new("/boot/nats-ca.pem"))));
    assert_eq!(
        nats.login,
        Some(Login::Password { user: "barn:7".to_owned(), password: "hay and straw".parse().unwrap() })
    );
    let queue = config.stack.queue;
    assert_eq!((queue.max_inflight, queue.ack_wait), (1000, Duration::from_secs(3600)));
    assert_eq!((queue.max_body, queue.max_bytes), (1 << 30, Some(1 << 30)));
    assert_eq!(
        queue.retries,
        Retries {
            attempts: 0,
            initial_wait: Duration::from_secs(1),
            max_wait: Duration::from_secs(24 * 3600),
            codes: [429, 503].into(),
            backoff: Backoff::Equal,
        }
    );
    let queues: Vec<(&str, Option<u32>)> =
        config.stack.queues.iter().map(|(name, queue)| (name.as_str(), queue.max_inflight)).collect();
    assert_eq!(queues, [("faas-request", None), ("slow_queue", Some(1))]);
    let (inactivity, interval) = (Duration::from_secs(30 * 24 * 3600), Duration::from_secs(1));
    assert_eq!(config.stack.idler, Idler { inactivity, interval });
    let names: Vec<&str> = config.functions.iter().map(|function| function.name.as_str()).collect();
    assert_eq!(names, ["figlet", "weather-station"]);
    let figlet = &config.functions[0];
    assert_eq!(
        (figlet.namespace.as_str(), figlet.image.as_str()),
        ("openfaas-fn", "localhost/figlet:latest")
    );
    assert!(
        figlet.env_process.is_none() && !figlet.read_only_root_filesystem && figlet.limits.memory.is_none()
    );
    let weather = &config.functions[1];
    assert_eq!(weather.namespace.as_str(), "farm");
    assert_eq!(weather.env_process.as_deref(), Some("cat -"));
    assert_eq!(weather.environment["write_debug"], "true");
    assert_eq!(weather.environment["EMPTY"], "");
    assert_eq!(weather.labels["com.openfaas.scale.min"], "1");
    assert_eq!(weather.annotations["topic"], "hay.dry");
    assert_eq!(weather.secrets, ["api-key", "tls.crt"]);
    assert_eq!(weather.limits.memory.as_ref().unwrap().bytes(), 128 << 20);
    assert_eq!(weather.limits.cpu.as_ref().unwrap().millis(), 500);
    assert_eq!(weather.requests.memory.as_ref().unwrap().as_str(), "32Mi");
    assert!(weather.read_only_root_filesystem && weather.requests.cpu.is_none());
    assert_eq!(weather.constraints, ["node.platform.os == linux"]);
}

#[test]
fn a_credentials_file_and_a_list_of_codes_are_taken_too() {
    let file = samples("good").into_iter().find(|file| name(file) == "stack.toml").unwrap();
    let stack = parse(&fs::read_to_string(file).unwrap(), "stack.toml").unwrap().stack;
    assert_eq!(stack.nats.login, Some(Login::Credentials("/boot/nats.creds".into())));
    assert_eq!(stack.nats.url.unwrap().servers(), ["nats://[fd00::7]:4222"]);
    assert_eq!(stack.queue.retries.codes, [400, 599].into());
    assert_eq!(stack.queue.retries.max_wait, stack.queue.retries.initial_wait);
}

#[test]
fn no_call_is_made_again_for_its_code_where_the_list_is_empty() {
    let parsed = parse("version = 1\n[stack.queue]\nretry_http_codes = []\n", "f").unwrap();
    assert!(parsed.stack.queue.retries.codes.is_empty());
}

#[test]
fn the_default_document_sets_nothing() {
    assert_eq!(parse(default_document(), "bothy.toml").unwrap(), Config::default());
}

/// What the default document explains must be true: with its example lines switched on it is still a good file, and
/// no key is left unexplained.
#[test]
fn the_default_document_explains_every_key() {
    let example = |line: &str| {
        let line = line.strip_prefix("# ").unwrap_or(line);
        let key = line.split(" = ").next().unwrap_or_default();
        let is_key = line.contains(" = ") && key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        (is_key
            || line.starts_with("[functions.figlet]")
            || line.starts_with("[registries")
            || line.starts_with("[stack.")
            || ["[egress]", "[images]"].contains(&line))
        .then(|| line.to_owned())
    };
    // Only one of the two makes sense at a time.
    let apart = ["# insecure", "# credentials"];
    let lines = default_document().lines().filter(|line| !apart.iter().any(|one| line.starts_with(one)));
    let on: Vec<String> = lines.map(|line| example(line).unwrap_or_else(|| line.to_owned())).collect();
    let config = parse(&on.join("\n"), "bothy.toml").unwrap_or_else(|wrong| panic!("{wrong}"));
    let figlet = &config.functions[0];
    assert!(config.hostname.is_some() && config.gateway.password.is_some());
    assert_ne!(config.gateway.provider, provisioning::Provider::default());
    assert!(config.gateway.tls.is_some_and(|tls| tls.only && tls.listen == provisioning::Tls::LISTEN));
    assert!(figlet.env_process.is_some() && figlet.read_only_root_filesystem);
    assert!(figlet.limits.cpu.is_some() && figlet.requests.memory.is_some());
    for empty in [&figlet.environment, &figlet.labels, &figlet.annotations].map(|map| map.is_empty()) {
        assert!(!empty);
    }
    assert!(config.egress.nats && !config.egress.world && config.egress.allow.len() == 3);
    assert_eq!(config.images, Images::default());
    let Stack { nats, queue, queues, idler } = &config.stack;
    assert!(nats.url.as_ref().is_some_and(NatsUrl::is_tls) && nats.login.is_some() && nats.ca.is_some());
    assert!(queue.max_bytes.is_some() && queues.len() == 1);
    // What is no example there is the default.
    assert_eq!(nats.replicas, Nats::default().replicas);
    assert_eq!(Queue { max_bytes: None, ..queue.clone() }, Queue::default());
    assert_eq!(*idler, Idler::default());
    let registry = config.registries.named.values().next().unwrap();
    assert!(registry.mirrors.len() == 2 && registry.ca.is_some());
    assert!(!figlet.secrets.is_empty() && !figlet.constraints.is_empty());
}

#[test]
fn a_huge_file_is_refused_before_it_is_read() {
    let said = parse_bytes(&vec![b'#'; (1 << 20) + 1], "f").unwrap_err().to_string();
    assert!(said.starts_with("f:1:1: the file has 1048577 bytes, expected at most 1048576\n"), "{said}");
}

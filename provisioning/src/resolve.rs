//! From the tables of a file to a [`Config`]: which keys there are, what each must be, and the defaults.

mod stack;

use std::net::SocketAddr;
use std::ops::Range;
use std::path::PathBuf;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::reader::{Elsewhere, Reader};
use crate::report::Report;
use crate::{
    Config, Destination, Egress, Function, Gateway, Images, Invalid, Mirror, Namespace, Registries, Registry,
    RegistryName, Resources, Tls,
};

/// The only version of the file that there is.
const VERSION: &str = "1";

const TOP: [&str; 8] =
    ["version", "hostname", "gateway", "registries", "egress", "images", "stack", "functions"];
const GATEWAY: [&str; 8] =
    ["user", "password", "provider_name", "timeout", "tls_certificate", "tls_key", "tls_listen", "tls_only"];
/// The port of plain HTTP, which is taken.
const PLAIN_PORT: u16 = 8080;
const REGISTRIES: [&str; 2] = ["pull_policy", "docker_config"];
const REGISTRY: [&str; 3] = ["mirrors", "insecure", "ca"];
const EGRESS: [&str; 3] = ["world", "nats", "allow"];
const IMAGES: [&str; 2] = [HIGH, LOW];
const HIGH: &str = "gc_high_threshold_percent";
const LOW: &str = "gc_low_threshold_percent";
/// The registry of the images that the machine brings: there is no such host to ask.
const LOCAL: &str = "localhost";
const FUNCTION: [&str; 11] = [
    "image",
    "namespace",
    "env_process",
    "environment",
    "labels",
    "annotations",
    "secrets",
    "limits",
    "requests",
    "read_only_root_filesystem",
    "constraints",
];
const RESOURCES: [&str; 2] = ["memory", "cpu"];

/// A key after a `[table]` line belongs to that table: the slip that everybody makes with TOML.
const ELSEWHERE: &Elsewhere = &[
    ("at the top of the file, before the first `[table]`", &TOP),
    ("under `[gateway]`", &GATEWAY),
    ("under `[registries]`", &REGISTRIES),
    ("under `[registries.\"HOST\"]`", &REGISTRY),
    ("under `[egress]`", &EGRESS),
    ("under `[images]`", &IMAGES),
    ("under `[stack]`", &stack::STACK),
    ("under `[stack.nats]`", &stack::NATS),
    ("under `[stack.queue]`", &stack::QUEUE),
    ("under `[stack.queues.NAME]`", &stack::NAMED_QUEUE),
    ("under `[stack.idler]`", &stack::IDLER),
    ("under `[functions.NAME]`", &FUNCTION),
    ("under `[functions.NAME.limits]` or `[functions.NAME.requests]`", &RESOURCES),
];

/// Reads the whole file. What is wrong goes to the report, what is right into the result.
pub(crate) fn config<'t>(root: &DeTable<'t>, report: &mut Report<'t>) -> Config {
    let mut top = Reader { table: root, report };
    if !version(&mut top) {
        return Config::default();
    }
    top.only("at the top of the file", &TOP, ELSEWHERE);
    let hostname = top.value("hostname");
    let gateway = top.table("gateway").map(|table| gateway(table, top.report)).unwrap_or_default();
    let registries = top.table("registries").map(|table| registries(table, top.report)).unwrap_or_default();
    let egress = top.table("egress").map(|table| egress(table, top.report)).unwrap_or_default();
    let images = top.table("images").map(|table| images(table, top.report)).unwrap_or_default();
    let stack = top.table("stack").map(|table| stack::stack(table, top.report)).unwrap_or_default();
    let functions = top.table("functions").into_iter().flat_map(DeTable::iter);
    let functions = functions.filter_map(|(name, value)| {
        let name = (name.get_ref().as_ref(), name.span());
        function(name, value, top.report)
    });
    Config { hostname, gateway, registries, egress, images, stack, functions: functions.collect() }
}

/// Whether the file is of a version that this program can read; if not, no other complaint about it means anything.
fn version(top: &mut Reader<'_, '_, '_>) -> bool {
    let Some(value) = top.get("version") else {
        let hint = "write `version = 1` as the first line".to_owned();
        top.report.absence(0..0, "`version` is missing, expected `version = 1`", Some(hint));
        return true;
    };
    match value.get_ref() {
        DeValue::Integer(number) if number.radix() == 10 && number.as_str() == VERSION => true,
        DeValue::Integer(number) if number.as_str().parse::<u64>().is_ok_and(|number| number > 1) => {
            let message =
                format!("this file is of version {number}, this machine's software knows version {VERSION}");
            let hint =
                "it was written for a newer Bothy: update the machine, or write the file for version 1";
            top.report.problem(value.span(), message, Some(hint.to_owned()));
            false
        }
        _ => {
            top.report.problem(value.span(), format!("`version` is wrong, expected {VERSION}"), None);
            true
        }
    }
}

fn gateway<'t>(table: &DeTable<'t>, report: &mut Report<'t>) -> Gateway {
    let default = Gateway::default();
    if let Some(password) = table.get("password") {
        report.hide(password.span());
    }
    let mut reader = Reader { table, report };
    reader.only("in `[gateway]`", &GATEWAY, ELSEWHERE);
    let user = reader.checked("user", user).unwrap_or(default.user);
    Gateway {
        user,
        password: reader.value("password"),
        provider: reader.value("provider_name").unwrap_or_default(),
        timeout: reader.value("timeout").unwrap_or_default(),
        tls: tls(&mut reader),
    }
}

/// Certificate and key make the TLS port; one without the other, or the rest without them, is a slip.
fn tls(reader: &mut Reader<'_, '_, '_>) -> Option<Tls> {
    let certificate = reader.checked("tls_certificate", file).map(PathBuf::from);
    let key = reader.checked("tls_key", file).map(PathBuf::from);
    let listen = reader.checked("tls_listen", address).and_then(|text| text.parse().ok());
    let only = reader.boolean("tls_only").unwrap_or(false);
    let written = GATEWAY.iter().filter(|name| name.starts_with("tls_"));
    let first = written.filter_map(|name| reader.get(name)).next()?;
    for (name, what) in [("tls_certificate", "a certificate"), ("tls_key", "a private key")] {
        if reader.get(name).is_none() {
            let message = format!("TLS needs {what}, expected `{name}` beside this");
            let hint = format!(
                "write `{name} = \"/boot/{}.pem\"`; /boot is the partition that this file lies on",
                &name[4..]
            );
            reader.report.problem(first.span(), message, Some(hint));
        }
    }
    Some(Tls { certificate: certificate?, key: key?, listen: listen.unwrap_or(Tls::LISTEN), only })
}

/// A table within `[registries]` is a registry's, by its name; everything else is a key.
fn registries<'t>(table: &DeTable<'t>, report: &mut Report<'t>) -> Registries {
    let mut named = std::collections::BTreeMap::new();
    for (name, value) in table.iter() {
        let word = name.get_ref().as_ref();
        let DeValue::Table(settings) = value.get_ref() else { continue };
        if REGISTRIES.contains(&word) {
            continue;
        }
        match word.parse::<RegistryName>() {
            Ok(parsed) if parsed.as_str() == LOCAL => {
                let message =
                    format!("`{word}` is no registry: its images are those that the machine brings");
                let hint = "a registry on the machine itself has a port: `[registries.\"localhost:5000\"]`"
                    .to_owned();
                report.problem(name.span(), message, Some(hint));
            }
            Ok(parsed) => {
                if named.insert(parsed, registry(word, settings, report)).is_some() {
                    report.problem(
                        name.span(),
                        format!("`{word}` is there twice, written in two ways"),
                        None,
                    );
                }
            }
            Err(invalid) => {
                let shown: String = word.chars().take(64).collect();
                // A dot that is not in quotes makes a table in a table.
                let dotted = settings.iter().any(|(_, value)| is_table(value.get_ref()));
                let hint = dotted.then(|| "write the name in quotes: `[registries.\"ghcr.io\"]`".to_owned());
                report.problem(name.span(), format!("`{shown}` {invalid}"), hint);
            }
        }
    }
    let mut reader = Reader { table, report };
    reader.only_but("in `[registries]`", &REGISTRIES, ELSEWHERE, is_table);
    let docker_config = reader.checked("docker_config", file).map(std::path::PathBuf::from);
    Registries { pull_policy: reader.value("pull_policy").unwrap_or_default(), docker_config, named }
}

fn is_table(value: &DeValue<'_>) -> bool {
    matches!(value, DeValue::Table(_))
}

fn registry<'t>(name: &str, table: &DeTable<'t>, report: &mut Report<'t>) -> Registry {
    let mut reader = Reader { table, report };
    reader.only(&format!("in `[registries.\"{name}\"]`"), &REGISTRY, ELSEWHERE);
    let mirrors = reader.strings("mirrors", |text| text.parse::<Mirror>().map(drop));
    let insecure = reader.boolean("insecure").unwrap_or(false);
    let ca = reader.checked("ca", file).map(std::path::PathBuf::from);
    if let (true, Some(value)) = (insecure && ca.is_some(), table.get("ca")) {
        let message = "`ca` and `insecure` exclude each other: plain HTTP has no certificates";
        reader.report.problem(value.span(), message, None);
    }
    let mirrors = mirrors.iter().filter_map(|text| text.parse().ok()).collect();
    Registry { mirrors, insecure, ca }
}

fn egress<'t>(table: &DeTable<'t>, report: &mut Report<'t>) -> Egress {
    let default = Egress::default();
    let mut reader = Reader { table, report };
    reader.only("in `[egress]`", &EGRESS, ELSEWHERE);
    let allow = reader.strings("allow", |text| text.parse::<Destination>().map(drop));
    Egress {
        world: reader.boolean("world").unwrap_or(default.world),
        nats: reader.boolean("nats").unwrap_or(default.nats),
        allow: allow.iter().filter_map(|text| text.parse().ok()).collect(),
    }
}

/// Two percentages, the second below the first; both 0 keep nothing.
fn images<'t>(table: &DeTable<'t>, report: &mut Report<'t>) -> Images {
    let mut reader = Reader { table, report };
    reader.only("in `[images]`", &IMAGES, ELSEWHERE);
    let (high, low) = (reader.integer(HIGH, 0..=100), reader.integer(LOW, 0..=100));
    let default = Images::default();
    let images = Images {
        high_threshold: high.unwrap_or(default.high_threshold),
        low_threshold: low.unwrap_or(default.low_threshold),
    };
    let fit = images.low_threshold < images.high_threshold;
    let none = (images.high_threshold, images.low_threshold) == (0, 0);
    // Of a wrong one nobody knows what it should have been.
    let known = |key: &str, value: Option<u8>| value.is_some() || table.get(key).is_none();
    if !fit
        && !none
        && known(HIGH, high)
        && known(LOW, low)
        && let Some(place) = reader.get(LOW).or(reader.get(HIGH))
    {
        let message = format!(
            "`{LOW}` is {} and `{HIGH}` is {}, expected the low one to be less than the high one, or 0 for both",
            images.low_threshold, images.high_threshold
        );
        let hint = (high.is_none() || low.is_none()).then(|| {
            format!(
                "write both: without them they are {} and {}",
                default.high_threshold, default.low_threshold
            )
        });
        reader.report.problem(place.span(), message, hint);
    }
    images
}

fn function<'t>(
    (name, place): (&str, Range<usize>),
    value: &Spanned<DeValue<'t>>,
    report: &mut Report<'t>,
) -> Option<Function> {
    let parsed = name.parse();
    if let Err(invalid) = &parsed {
        let lower = name.to_ascii_lowercase().replace(['_', '.', ' '], "-");
        let hint = lower.parse::<crate::FunctionName>().ok().map(|name| format!("did you mean `{name}`?"));
        let shown: String = name.chars().take(64).collect();
        report.problem(place.clone(), format!("`{shown}` {invalid}"), hint);
    }
    let DeValue::Table(table) = value.get_ref() else {
        let message =
            format!("`functions.{name}` is no table, expected `[functions.{name}]` and its keys below it");
        report.problem(value.span(), message, None);
        return None;
    };
    let title = format!("in `[functions.{name}]`");
    let mut reader = Reader { table, report };
    reader.only(&title, &FUNCTION, ELSEWHERE);
    let image = reader.checked("image", image);
    if reader.get("image").is_none() {
        let hint = "write `image = \"REGISTRY/NAME:TAG\"`; `localhost/figlet:latest` is in every appliance"
            .to_owned();
        reader.report.absence(place, format!("function `{name}` has no `image`, expected one"), Some(hint));
    }
    Some(Function {
        namespace: reader.value::<Namespace>("namespace").unwrap_or_default(),
        env_process: reader.checked("env_process", command),
        environment: reader.map("environment", variable),
        labels: reader.map("labels", label),
        annotations: reader.map("annotations", label),
        secrets: reader.strings("secrets", secret),
        limits: resources("limits", &title, &mut reader),
        requests: resources("requests", &title, &mut reader),
        read_only_root_filesystem: reader.boolean("read_only_root_filesystem").unwrap_or(false),
        constraints: reader.strings("constraints", command),
        name: parsed.ok()?,
        image: image?,
    })
}

fn resources(key: &str, title: &str, function: &mut Reader<'_, '_, '_>) -> Resources {
    let Some(table) = function.table(key) else { return Resources::default() };
    let mut reader = Reader { table, report: function.report };
    reader.only(&format!("of `{key}` {title}"), &RESOURCES, ELSEWHERE);
    Resources { memory: reader.value("memory"), cpu: reader.value("cpu") }
}

fn refuse_unless(fits: bool, why: &str) -> Result<(), Invalid> {
    if fits { Ok(()) } else { Err(Invalid(why.to_owned())) }
}

fn user(text: &str) -> Result<(), Invalid> {
    let fits = !text.is_empty() && text.len() <= 256 && !text.contains(|c: char| c == ':' || c.is_control());
    refuse_unless(
        fits,
        "is not a user name, expected 1 to 256 characters without a colon or control characters",
    )
}

fn image(text: &str) -> Result<(), Invalid> {
    let fits = !text.is_empty()
        && text.len() <= 1024
        && !text.contains(|c: char| c.is_whitespace() || c.is_control());
    refuse_unless(fits, "is not an image reference, expected something like \"localhost/figlet:latest\"")
}

fn file(text: &str) -> Result<(), Invalid> {
    let fits = text.starts_with('/') && text.len() < 4096 && !text.contains(char::is_control);
    refuse_unless(
        fits,
        "is not a file's path on the machine, expected something like \"/boot/plant-ca.pem\" (/boot is the partition \
         that bothy.toml lies on)",
    )
}

fn address(text: &str) -> Result<(), Invalid> {
    let fits = text.parse::<SocketAddr>().is_ok_and(|address| !matches!(address.port(), 0 | PLAIN_PORT));
    refuse_unless(
        fits,
        "is not an address to listen on, expected something like \"0.0.0.0:443\", with another port than 8080, which \
         is plain HTTP's",
    )
}

fn command(text: &str) -> Result<(), Invalid> {
    let fits = !text.trim().is_empty() && !text.contains('\0');
    refuse_unless(fits, "is empty or has a NUL character, expected text")
}

/// A variable as execve(2) can pass it: the name without `=`, neither part with NUL.
fn variable(name: &str, value: &str) -> Result<(), Invalid> {
    let fits = !name.is_empty() && !name.contains(['=', '\0']) && !value.contains('\0');
    refuse_unless(fits, "is not an environment variable, expected a name without `=` and no NUL characters")
}

/// A label or an annotation: of any size, they lie in documents of ours.
fn label(name: &str, _value: &str) -> Result<(), Invalid> {
    refuse_unless(!name.is_empty(), "has an empty name, expected a name")
}

/// A secret's name becomes a file's name.
fn secret(text: &str) -> Result<(), Invalid> {
    let fits = !text.is_empty()
        && text.len() <= 253
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        && text != "."
        && !text.contains("..");
    refuse_unless(
        fits,
        "is not a secret's name, expected letters, digits, `-`, `_` and `.`, without two dots in a row",
    )
}

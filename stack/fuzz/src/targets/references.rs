//! Image references.

use hyper::Uri;

use crate::containerd::{Reference, is_digest, normalise};

pub fn check(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let found = Reference::parse(text);
    // What is added counts: a long one may be too long when it is complete.
    if found.is_none() && text.len() > 900 {
        return;
    }
    assert_eq!(found.is_some(), is_reference(text), "{text:?}: {found:?}");
    let Some(reference) = found else { return };
    // What is complete stays as it is.
    let full = reference.to_string();
    assert_eq!(Reference::parse(&full).as_ref(), Some(&reference), "{full}");
    assert_eq!(normalise(text), Some(full));
    assert!(reference.tag.is_some() || reference.digest.is_some());
    assert!(reference.digest.as_deref().is_none_or(is_digest));
    // A registry can be asked for it, and is asked for nothing else.
    let (registry, repository) = (&reference.registry, &reference.repository);
    let path = format!("/v2/{repository}/manifests/{}", reference.version());
    let address: Uri = format!("https://{registry}{path}").parse().expect("an address");
    assert_eq!(address.authority().map(|host| host.as_str()), Some(registry.as_str()));
    assert_eq!((address.path(), address.query()), (path.as_str(), None));
    assert!(!repository.split('/').any(|part| matches!(part, "" | "." | "..")));
}

/// The grammar of references (the reference package of Docker's distribution), with this machine's bounds.
fn is_reference(text: &str) -> bool {
    let (name, digest) = match text.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (text, None),
    };
    let digest_fits = digest.is_none_or(|digest| {
        let hex = digest.strip_prefix("sha256:").unwrap_or_default();
        hex.len() == 64 && hex.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f'))
    });
    let last = name.rfind('/').map_or(0, |slash| slash + 1);
    let (path, tag) = match name[last..].split_once(':') {
        Some((end, tag)) => (&name[..last + end.len()], Some(tag)),
        None => (name, None),
    };
    let tag_fits = tag.is_none_or(|tag| {
        tag.len() <= 128
            && tag.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
            && tag.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
    });
    let mut parts: Vec<&str> = path.split('/').collect();
    let first = parts[0];
    let host = parts.len() > 1 && (first.contains(['.', ':']) || first == "localhost");
    let host_fits = !host || is_host(parts.remove(0));
    text.len() <= 1024 && digest_fits && tag_fits && host_fits && parts.iter().all(|part| is_part(part))
}

fn is_host(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    let port_fits = port.is_none_or(|port| port.parse::<u16>().is_ok() && !port.starts_with('+'));
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
    };
    let host_fits = match host.strip_prefix('[') {
        Some(rest) => {
            rest.strip_suffix(']').is_some_and(|address| address.parse::<std::net::Ipv6Addr>().is_ok())
        }
        None => host.split('.').all(label),
    };
    port_fits && host_fits
}

/// Letters and digits with a separator between them: a dot, one or two underscores, or hyphens.
fn is_part(text: &str) -> bool {
    let plain = |c: char| matches!(c, 'a'..='z' | '0'..='9');
    let between = text.split(plain).filter(|separator| !separator.is_empty());
    text.starts_with(plain)
        && text.ends_with(plain)
        && between
            .into_iter()
            .all(|separator| matches!(separator, "." | "_" | "__") || separator.chars().all(|c| c == '-'))
}

//! The software bill of materials: CycloneDX 1.5, JSON (ECMA-424).

use serde_json::{Value, json};

use crate::digest::{Seed, to_hex};
use crate::manifest::Manifest;

/// Describes what is in an image: Debian's packages, our programs, and the crates that these are linked from.
///
/// `cargo_lock` is the text of the workspace's `Cargo.lock`.
pub fn cyclonedx(manifest: &Manifest, cargo_lock: &str, seed: &Seed) -> Vec<u8> {
    let used = |name: &str| manifest.used.iter().any(|u| u == name);
    let mut components: Vec<Value> = manifest
        .lock
        .packages
        .iter()
        .filter(|p| used(&p.name))
        .map(|p| {
            let purl = format!(
                "pkg:deb/debian/{}@{}?arch={}&distro={}",
                escape(&p.name),
                escape(&p.version),
                p.architecture,
                manifest.lock.suite
            );
            json!({
                "type": "library", "bom-ref": purl, "name": p.name, "version": p.version, "purl": purl,
                "hashes": [{"alg": "SHA-256", "content": p.sha256}],
            })
        })
        .collect();
    components.extend(manifest.programs.iter().map(|program| {
        json!({
            "type": "application", "bom-ref": format!("bothy:{}", program.name), "name": program.name,
            "version": manifest.version, "hashes": [{"alg": "SHA-256", "content": program.sha256}],
        })
    }));
    components.extend(crates(cargo_lock).into_iter().map(|(name, version, checksum)| {
        let purl = format!("pkg:cargo/{name}@{}", escape(&version));
        json!({
            "type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl,
            "hashes": [{"alg": "SHA-256", "content": checksum}],
        })
    }));
    let uuid = to_hex(&seed.uuid("sbom"));
    let uuid = [&uuid[..8], &uuid[8..12], &uuid[12..16], &uuid[16..20], &uuid[20..]].join("-");
    let document = json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": format!("urn:uuid:{uuid}"),
        "version": 1,
        "metadata": {
            "component": {
                "type": "operating-system", "bom-ref": format!("bothy:{}", manifest.name),
                "name": format!("bothy-{}", manifest.name), "version": manifest.version,
            },
        },
        "components": components,
    });
    let mut text = serde_json::to_vec_pretty(&document).unwrap_or_default();
    text.push(b'\n');
    text
}

/// Name, version and checksum of every crate from a registry.
fn crates(lock: &str) -> Vec<(String, String, String)> {
    let Ok(document) = lock.parse::<toml::Table>() else { return Vec::new() };
    let packages = document.get("package").and_then(|p| p.as_array()).cloned().unwrap_or_default();
    let text = |p: &toml::Value, key: &str| Some(p.get(key)?.as_str()?.to_owned());
    packages
        .iter()
        .filter_map(|p| Some((text(p, "name")?, text(p, "version")?, text(p, "checksum")?)))
        .collect()
}

/// Percent-encodes what a package URL may not hold as it is (purl specification).
fn escape(text: &str) -> String {
    text.bytes()
        .map(|b| match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_' | b'~' => char::from(b).to_string(),
            _ => format!("%{b:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crates_of_a_registry_are_listed_and_ours_are_not() {
        let lock = "version = 4\n[[package]]\nname = \"own\"\nversion = \"1.0.0\"\n\
                    [[package]]\nname = \"foreign\"\nversion = \"2.0.0+x\"\nchecksum = \"ab\"\n";
        assert_eq!(crates(lock), [("foreign".to_owned(), "2.0.0+x".to_owned(), "ab".to_owned())]);
    }

    #[test]
    fn versions_are_escaped() {
        assert_eq!(escape("1:2.0+deb13~1"), "1%3A2.0%2Bdeb13~1");
    }
}

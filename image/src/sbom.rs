//! The software bill of materials: CycloneDX 1.5, JSON (ECMA-424).

use serde_json::{Value, json};

use crate::digest::{Seed, to_hex};
use crate::manifest::Manifest;
use crate::programs::Crate;

/// Describes what is in an image: Debian's packages, our programs, and the crates that these are linked from.
///
pub fn cyclonedx(manifest: &Manifest, crates: &[Crate], seed: &Seed) -> Vec<u8> {
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
    components.extend(crates.iter().map(|Crate { name, version, sha256 }| {
        let purl = format!("pkg:cargo/{name}@{}", escape(version));
        json!({
            "type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl,
            "hashes": [{"alg": "SHA-256", "content": sha256}],
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
    fn versions_are_escaped() {
        assert_eq!(escape("1:2.0+deb13~1"), "1%3A2.0%2Bdeb13~1");
    }
}

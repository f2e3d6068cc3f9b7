//! OCI image layouts (opencontainers/image-spec: image-layout.md, manifest.md, config.md), made from a file tree.
//!
//! One uncompressed layer: what an image costs at first boot is the hashing and copying of its bytes, and the root
//! file system compresses them anyway.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::digest;
use crate::error::{Error, Result};
use crate::recipe::Architecture;
use crate::tree::{Node, Tree};

/// How a container of the image is started, and where its bytes come from.
#[derive(Debug, Clone)]
pub struct ImageSpec {
    /// The image's full reference, such as `localhost/figlet:latest`.
    pub reference: String,
    /// Architecture of its programs.
    pub architecture: Architecture,
    /// Program and arguments.
    pub command: Vec<String>,
    /// Environment variables.
    pub environment: BTreeMap<String, String>,
    /// `uid`, `uid:gid` or a name in the image's `/etc/passwd`; empty for root.
    pub user: String,
    /// Working directory; empty for `/`.
    pub working_dir: String,
    /// Time stamp of every file, seconds since 1970.
    pub epoch: u64,
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// Makes the files of an image layout: `oci-layout`, `index.json` and `blobs/sha256/…`.
///
/// # Errors
/// The tree does not fit into a tar archive (a path that is too long).
pub fn layout(files: &Tree, spec: &ImageSpec) -> Result<Tree> {
    let mut layer = Vec::new();
    files.write_tar(&mut layer, spec.epoch).map_err(|e| Error::format("OCI layer", e.to_string()))?;

    let mut out = Tree::default();
    let mut blob = |media_type: &str, bytes: Vec<u8>| -> Value {
        let hex = digest::hex(&bytes);
        let descriptor =
            json!({"mediaType": media_type, "digest": format!("sha256:{hex}"), "size": bytes.len()});
        out.insert(&format!("blobs/sha256/{hex}"), Node::file(0o644, bytes));
        descriptor
    };
    let text = |value: &Value| value.to_string().into_bytes();

    let layer = blob(LAYER, layer);
    let mut run = json!({
        "Cmd": spec.command,
        "Env": spec.environment.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>(),
    });
    for (key, value) in [("User", &spec.user), ("WorkingDir", &spec.working_dir)] {
        if !value.is_empty() {
            run[key] = json!(value);
        }
    }
    let config = json!({
        "architecture": spec.architecture.oci(),
        "os": "linux",
        "config": run,
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
    });
    let config = blob(CONFIG, text(&config));
    let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer]});
    let mut manifest = blob(MANIFEST, text(&manifest));
    manifest["annotations"] = json!({"org.opencontainers.image.ref.name": spec.reference});
    manifest["platform"] = json!({"architecture": spec.architecture.oci(), "os": "linux"});
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [manifest],
    });
    out.insert("index.json", Node::file(0o644, text(&index)));
    out.insert("oci-layout", Node::file(0o644, *br#"{"imageLayoutVersion":"1.0.0"}"#));
    Ok(out)
}

/// Makes the layout of a function: a static watchdog in front of a program.
///
/// The function runs as user `app` (100:101) with a `/tmp` that it may write to.
///
/// # Errors
/// As [`layout`].
pub fn function(
    mut files: Tree,
    watchdog: &[u8],
    reference: &str,
    environment: BTreeMap<String, String>,
    architecture: Architecture,
    epoch: u64,
) -> Result<Tree> {
    files.insert("usr/bin/fwatchdog", Node::file(0o755, watchdog.to_vec()));
    files.insert("tmp", Node::folder(0o1777));
    files.insert("home/app", Node::folder(0o755).owned_by(100, 101));
    files.insert("etc/passwd", Node::file(0o644, *b"root:x:0:0::/:/\napp:x:100:101::/home/app:/\n"));
    files.insert("etc/group", Node::file(0o644, *b"root:x:0:\napp:x:101:\n"));
    let spec = ImageSpec {
        reference: reference.to_owned(),
        architecture,
        command: vec!["/usr/bin/fwatchdog".into()],
        environment,
        user: "app".into(),
        working_dir: "/home/app".into(),
        epoch,
    };
    layout(&files, &spec)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(tree: &Tree, path: &str) -> Value {
        serde_json::from_slice(tree.file(path).unwrap()).unwrap()
    }

    fn blob(descriptor: &Value) -> String {
        format!("blobs/sha256/{}", descriptor["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap())
    }

    #[test]
    fn every_descriptor_leads_to_its_bytes() {
        let environment = [("fprocess".to_owned(), "cat".to_owned())].into();
        let tree =
            function(Tree::default(), b"#!", "localhost/x:1", environment, Architecture::Amd64, 5).unwrap();
        let index = json(&tree, "index.json");
        let entry = &index["manifests"][0];
        assert_eq!(entry["annotations"]["org.opencontainers.image.ref.name"], "localhost/x:1");
        let manifest = json(&tree, &blob(entry));
        let config = json(&tree, &blob(&manifest["config"]));
        assert_eq!(config["rootfs"]["diff_ids"][0], manifest["layers"][0]["digest"]);
        assert_eq!(config["config"]["Env"][0], "fprocess=cat");
        assert_eq!(config["config"]["User"], "app");
        for descriptor in [entry, &manifest["config"], &manifest["layers"][0]] {
            let bytes = tree.file(&blob(descriptor)).unwrap();
            assert_eq!(descriptor["size"], bytes.len());
            assert_eq!(descriptor["digest"], format!("sha256:{}", digest::hex(bytes)));
        }
        let layer = crate::deb::tree(tree.file(&blob(&manifest["layers"][0])).unwrap()).unwrap();
        assert_eq!(layer.get("tmp").unwrap().mode, 0o1777);
        assert_eq!(layer.get("home/app").unwrap().uid, 100);
    }
}

//! Images: from a reference to what a container needs of it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use containerd_client::services::v1::GetImageRequest;
use containerd_client::services::v1::images_client::ImagesClient;
use containerd_client::types::Descriptor;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::client::{Containerd, call, request};
use super::layout::{Index, JsonDescriptor, Platform};
use super::reference::is_digest;
use crate::desired::hex;
use crate::error::{Error, Result};
use crate::registry::said;

/// Layers at most: overlayfs takes 500 (fs/overlayfs/params.c, OVL_MAX_STACK).
const MOST_LAYERS: usize = 500;

/// An image that can be run here.
#[derive(Debug, Clone)]
pub struct Image {
    /// Its full reference.
    pub reference: String,
    /// The snapshot of all its layers.
    pub chain_id: String,
    /// What its maker wants to run.
    pub process: Process,
    pub(super) layers: Vec<Descriptor>,
    pub(super) diff_ids: Vec<String>,
    pub(super) config_digest: String,
}

/// Images that were read, by namespace and reference, with the digests that the references stood for: documents never
/// change under their digest, and every start of a function asks for one.
#[derive(Debug, Clone, Default)]
pub(super) struct Records(Arc<Mutex<HashMap<Name, (String, Image)>>>);

/// Namespace and reference.
type Name = (String, String);

impl Records {
    /// The image, if the reference still stands for the same.
    pub fn get(&self, namespace: &str, reference: &str, digest: &str) -> Option<Image> {
        let records = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (known, image) = records.get(&(namespace.to_owned(), reference.to_owned()))?;
        (known == digest).then(|| image.clone())
    }

    /// Forgets an image.
    pub fn forget(&self, namespace: &str, reference: &str) {
        let mut records = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        records.remove(&(namespace.to_owned(), reference.to_owned()));
    }

    /// Keeps an image, in place of a former version.
    pub fn put(&self, namespace: &str, digest: &str, image: &Image) {
        let mut records = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (namespace.to_owned(), image.reference.clone());
        records.insert(key, (digest.to_owned(), image.clone()));
    }
}

/// The image configuration's part about the process (image-spec, config.md).
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Process {
    /// Start of the command.
    #[serde(default, deserialize_with = "nullable")]
    pub entrypoint: Vec<String>,
    /// Its arguments.
    #[serde(default, deserialize_with = "nullable")]
    pub cmd: Vec<String>,
    /// Environment, `NAME=value`.
    #[serde(default, deserialize_with = "nullable")]
    pub env: Vec<String>,
    /// `user`, `uid`, `user:group`, `uid:gid`, or empty for root.
    #[serde(default)]
    pub user: String,
    /// Working directory, or empty for `/`.
    #[serde(default)]
    pub working_dir: String,
}

/// What an image is made of.
#[derive(Debug)]
pub(super) struct Manifest {
    /// Its configuration.
    pub config: Descriptor,
    /// Its layers, the lowest first.
    pub layers: Vec<Descriptor>,
}

#[derive(Debug, Deserialize)]
struct JsonManifest {
    config: JsonDescriptor,
    layers: Vec<JsonDescriptor>,
}

#[derive(Debug, Deserialize)]
struct Config {
    architecture: String,
    os: String,
    config: Option<Process>,
    rootfs: RootFs,
}

#[derive(Debug, Deserialize)]
struct RootFs {
    diff_ids: Vec<String>,
}

/// Image makers write `null` for an empty list.
fn nullable<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

impl Containerd {
    /// The digest that a reference stands for; nothing when containerd does not know it.
    pub(super) async fn image_target(&self, namespace: &str, reference: &str) -> Result<Option<Descriptor>> {
        let get = GetImageRequest { name: reference.to_owned() };
        let mut client = ImagesClient::new(self.channel.clone());
        match call(format!("get image {reference}"), client.get(request(namespace, None, get))).await {
            Ok(answer) => Ok(answer.image.and_then(|image| image.target)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads an image that containerd has, and checks that it is for this machine.
    pub async fn image(&self, namespace: &str, reference: &str) -> Result<Image> {
        let Some(mut target) = self.image_target(namespace, reference).await? else {
            return Err(Error::ImageMissing { reference: reference.to_owned() });
        };
        let mut text = self.read_document(namespace, &target).await?;
        if target.media_type.contains("index") || target.media_type.contains("manifest.list") {
            target = choose(&text, reference)?;
            text = self.read_document(namespace, &target).await?;
        }
        let manifest = Manifest::parse(&text, reference)?;
        let config = self.read_document(namespace, &manifest.config).await?;
        manifest.image(&config, reference)
    }
}

impl Manifest {
    /// Reads a manifest.
    pub fn parse(text: &[u8], reference: &str) -> Result<Self> {
        let manifest: JsonManifest = parse(text, reference)?;
        if manifest.layers.len() > MOST_LAYERS {
            let reason = format!("it has {} layers, at most {MOST_LAYERS} can be run", manifest.layers.len());
            return Err(Error::ImageUnusable { reference: reference.to_owned(), reason });
        }
        let layers = manifest.layers.into_iter().map(Descriptor::from).collect();
        Ok(Self { config: manifest.config.into(), layers })
    }

    /// The image that it makes with its configuration, if it is for this machine.
    pub fn image(self, config: &[u8], reference: &str) -> Result<Image> {
        let config: Config = parse(config, reference)?;
        if config.os != "linux" || config.architecture != architecture() {
            let found = said(&format!("{}/{}", config.os, config.architecture));
            return Err(Error::ImagePlatform { reference: reference.to_owned(), found, wanted: platform() });
        }
        let unusable =
            |reason: &str| Error::ImageUnusable { reference: reference.to_owned(), reason: reason.into() };
        if self.layers.len() != config.rootfs.diff_ids.len() {
            return Err(unusable("its manifest and its configuration disagree about the number of layers"));
        }
        if !config.rootfs.diff_ids.iter().all(|id| is_digest(id)) {
            return Err(unusable("one of its diff ids is no sha256 digest"));
        }
        let process = config.config.unwrap_or_default();
        if process.entrypoint.is_empty() && process.cmd.is_empty() {
            return Err(unusable("it names no program to run (neither entrypoint nor command)"));
        }
        Ok(Image {
            reference: reference.to_owned(),
            chain_id: chain_ids(&config.rootfs.diff_ids).pop().unwrap_or_default(),
            process,
            layers: self.layers,
            diff_ids: config.rootfs.diff_ids,
            config_digest: self.config.digest,
        })
    }
}

fn parse<'a, T: Deserialize<'a>>(text: &'a [u8], reference: &str) -> Result<T> {
    // The parser's words quote what it read, which anybody may have written.
    serde_json::from_slice(text).map_err(|error| Error::Parse {
        what: format!("the image {reference}"),
        source: serde::de::Error::custom(said(&error.to_string())),
    })
}

/// The index's manifest for this machine.
pub(super) fn choose(text: &[u8], reference: &str) -> Result<Descriptor> {
    let index: Index = parse(text, reference)?;
    let ours = |platform: &Platform| platform.os == "linux" && platform.architecture == architecture();
    let name = |m: &JsonDescriptor| m.platform.as_ref().map(|p| format!("{}/{}", p.os, p.architecture));
    let found: Vec<_> = index.manifests.iter().filter_map(name).filter(|n| n != "unknown/unknown").collect();
    match index.manifests.into_iter().find(|m| m.platform.as_ref().is_none_or(ours)) {
        Some(manifest) => Ok(manifest.into()),
        None => Err(Error::ImagePlatform {
            reference: reference.to_owned(),
            found: said(&found.join(", ")),
            wanted: platform(),
        }),
    }
}

/// This machine's architecture as images name it (Go's names).
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn platform() -> String {
    format!("linux/{}", architecture())
}

/// The chain of snapshots that layers make: each is named by the digest of the one below and its own diff id
/// (image-spec, config.md, "Layer ChainID").
pub(super) fn chain_ids(diff_ids: &[String]) -> Vec<String> {
    let mut chain: Vec<String> = Vec::new();
    for diff_id in diff_ids {
        let id = match chain.last() {
            None => diff_id.clone(),
            Some(below) => format!("sha256:{}", hex(&Sha256::digest(format!("{below} {diff_id}")))),
        };
        chain.push(id);
    }
    chain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains() {
        let ids = ["sha256:a".to_owned(), "sha256:b".to_owned()];
        let chain = chain_ids(&ids);
        assert_eq!(chain[0], "sha256:a");
        // printf 'sha256:a sha256:b' | sha256sum
        assert_eq!(chain[1], format!("sha256:{}", hex(&Sha256::digest("sha256:a sha256:b"))));
        assert!(chain_ids(&[]).is_empty());
    }

    #[test]
    fn null_lists_and_missing_parts() {
        let process: Process =
            serde_json::from_str(r#"{"Cmd":null,"Entrypoint":["/watchdog"],"Labels":null}"#).unwrap();
        assert_eq!(process, Process { entrypoint: vec!["/watchdog".into()], ..Process::default() });
    }

    #[test]
    fn an_index_without_our_platform_names_what_it_has() {
        let digest = format!("sha256:{}", "0".repeat(64));
        let index = serde_json::json!({"manifests": [
            {"digest": digest, "size": 1, "platform": {"os": "linux", "architecture": "s390x"}},
            {"digest": digest, "size": 1, "platform": {"os": "unknown", "architecture": "unknown"}}]});
        let text = choose(index.to_string().as_bytes(), "a:1").unwrap_err().to_string();
        assert_eq!(text, format!("image a:1 is made for linux/s390x, this machine is {}", platform()));
    }

    #[test]
    fn what_a_stranger_wrote_is_bounded() {
        let layer = serde_json::json!({"digest": "d", "size": 1});
        let manifest =
            |count| serde_json::json!({"config": layer, "layers": vec![layer.clone(); count]}).to_string();
        assert!(Manifest::parse(manifest(MOST_LAYERS).as_bytes(), "a:1").is_ok());
        let refused = Manifest::parse(manifest(MOST_LAYERS + 1).as_bytes(), "a:1").unwrap_err().to_string();
        assert!(refused.contains("501 layers"), "{refused}");
        let long =
            serde_json::json!({"config": format!("\u{1b}{}", "x".repeat(9999)), "layers": []}).to_string();
        let refused = Manifest::parse(long.as_bytes(), "a:1").unwrap_err().to_string();
        assert!(refused.len() < 300 && !refused.contains('\u{1b}'), "{refused}");
    }

    #[test]
    fn a_record_is_of_one_version() {
        let image = Image {
            reference: "a:1".into(),
            chain_id: "sha256:c".into(),
            process: Process::default(),
            layers: Vec::new(),
            diff_ids: Vec::new(),
            config_digest: String::new(),
        };
        let records = Records::default();
        records.put("n", "sha256:1", &image);
        assert!(records.get("n", "a:1", "sha256:1").is_some());
        assert!(records.get("n", "a:1", "sha256:2").is_none());
        assert!(records.get("m", "a:1", "sha256:1").is_none());
        records.forget("n", "a:1");
        assert!(records.get("n", "a:1", "sha256:1").is_none());
    }
}

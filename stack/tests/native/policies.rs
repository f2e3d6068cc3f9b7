//! Pull policies: when a registry is asked, and what happens where it is not there.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::namespaces::inside;
use super::pull::{
    PLAIN, answers, blobs, comes_back, delete, deploy, insecure, own, refused, restart_with, start, update,
};
use super::registry::{self, Registry, push};
use super::{Lab, PATIENCE, image, ready};

#[test]
fn policies_and_absent_registries() {
    inside("policies::policies_and_absent_registries", async |mut lab| {
        image(&lab, "one", "here\n");
        let mut plain = Some(Registry::start(&lab.folder, PLAIN, ""));
        let address = plain.as_ref().unwrap().address.clone();
        let one = own(&lab, "first", "first\n", "amd64");
        let two = own(&lab, "second", "second\n", "amd64");
        let broken = broken(&lab, &two);
        push(&address, &one, "farm/f", "latest").await;
        let image = "127.0.0.1:5000/farm/f";
        let with = |policy: &str| format!("[registries]\npull_policy = \"{policy}\"\n{}", insecure(&[PLAIN]));

        start(&mut lab, &with("Never")).await;
        refused(&lab, image, &["is not on this machine", "\"Never\""]).await;
        refused(
            &lab,
            "localhost/nothing",
            &["localhost/nothing:latest is not on this machine", "built into"],
        )
        .await;
        restart_with(&mut lab, &with("IfNotPresent")).await;
        deploy(&lab, 200, "f", image).await;
        answers(&lab, "f", "first\n").await;
        // A newer one is not asked for, with either policy that says so.
        push(&address, &two, "farm/f", "latest").await;
        update(&lab, 200, "f", image).await;
        answers(&lab, "f", "first\n").await;
        restart_with(&mut lab, &with("Never")).await;
        update(&lab, 200, "f", image).await;
        answers(&lab, "f", "first\n").await;
        // The default asks: at deployments, not at starts.
        restart_with(&mut lab, &insecure(&[PLAIN])).await;
        comes_back(&lab, "f", "first\n").await;
        update(&lab, 200, "f", image).await;
        answers(&lab, "f", "second\n").await;
        // A newer one that does not run changes nothing, for the next start either.
        push(&address, &broken, "farm/f", "latest").await;
        let failed = update(&lab, 400, "f", image).await;
        assert!(failed.text.contains("ended with status"), "{}", failed.text);
        comes_back(&lab, "f", "second\n").await;

        // Without the registry: what is here starts, at once and after everything was down.
        drop(plain.take());
        comes_back(&lab, "f", "second\n").await;
        lab.kill_gateway();
        lab.kill_containerd();
        lab.start_containerd();
        lab.start_gateway();
        ready(&lab).await;
        comes_back(&lab, "f", "second\n").await;
        let answer = update(&lab, 500, "f", image).await;
        for words in ["registry 127.0.0.1:5000", "cannot connect", "pull_policy = \"IfNotPresent\""] {
            assert!(answer.text.contains(words), "{words}: {}", answer.text);
        }
        answers(&lab, "f", "second\n").await;
        deploy(&lab, 200, "brought", "localhost/one").await;
        delete(&lab, "brought").await;

        // And when what is here is damaged, as after a power cut, it is fetched again as soon as the registry is back.
        push_after_return(&mut plain, &lab, &two).await;
        lab.kill_gateway();
        lab.kill_containerd();
        for blob in blobs(&lab) {
            let size = usize::try_from(blob.metadata().unwrap().len()).unwrap();
            fs::set_permissions(&blob, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
            fs::write(&blob, vec![0; size]).unwrap();
        }
        for pid in lab.processes("/watchdog") {
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL)
                .unwrap();
        }
        lab.start_containerd();
        lab.start_gateway();
        lab.until("/function/f", "second\n", PATIENCE).await;
        delete(&lab, "f").await;
        assert_eq!(lab.leftovers().await, Vec::<String>::new());
    });
}

async fn push_after_return(plain: &mut Option<Registry>, lab: &Lab, layout: &Path) {
    let registry = plain.insert(Registry::start(&lab.folder, PLAIN, ""));
    push(&registry.address, layout, "farm/f", "latest").await;
}

/// An image like another, whose program does not start.
fn broken(lab: &Lab, like: &Path) -> PathBuf {
    let folder = lab.folder.join("own/broken");
    let blobs = folder.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let source = |digest: &str| like.join("blobs/sha256").join(digest.trim_start_matches("sha256:"));
    let keep = |bytes: &[u8]| {
        let digest = registry::digest(bytes);
        fs::write(blobs.join(digest.trim_start_matches("sha256:")), bytes).unwrap();
        digest
    };
    let mut manifest: Value = serde_json::from_slice(&registry::manifest(like)).unwrap();
    keep(&fs::read(source(manifest["layers"][0]["digest"].as_str().unwrap())).unwrap());
    let text = fs::read(source(manifest["config"]["digest"].as_str().unwrap())).unwrap();
    let mut config: Value = serde_json::from_slice(&text).unwrap();
    config["config"]["Env"] = json!(["mode=none"]);
    let config = config.to_string();
    manifest["config"]["digest"] = json!(keep(config.as_bytes()));
    manifest["config"]["size"] = json!(config.len());
    let digest = keep(manifest.to_string().as_bytes());
    fs::write(folder.join("index.json"), json!({"manifests": [{"digest": digest}]}).to_string()).unwrap();
    folder
}

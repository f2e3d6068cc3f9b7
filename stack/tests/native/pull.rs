//! Images of registries, against a real one.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper::Method;
use serde_json::{Value, json};
use stack::base64;

use super::lab::{Answer, Lab};
use super::namespaces::inside;
use super::registry::{self, PASSWORDS, Registry, push};
use super::wire::{Fault, Wire};
use super::{PATIENCE, deployment, layout, ready, tokens};

/// The plain registry of each test, and an image of it.
pub const PLAIN: u16 = 5000;
const FIGLET: &str = "127.0.0.1:5000/farm/figlet:1";

/// The image that every appliance brings.
pub fn figlet() -> PathBuf {
    let root = std::env::var_os("BOTHY_ROOTFS").expect("BOTHY_ROOTFS is not set: use `cargo bothy test`");
    PathBuf::from(root).join("usr/share/bothy/images/figlet")
}

pub fn configure(lab: &Lab, text: &str) {
    fs::write(lab.folder.join("bothy.toml"), format!("version = 1\n{text}")).unwrap();
}

pub fn insecure(ports: &[u16]) -> String {
    ports.iter().map(|port| format!("[registries.\"127.0.0.1:{port}\"]\ninsecure = true\n")).collect()
}

/// A machine with that configuration.
pub async fn start(lab: &mut Lab, text: &str) {
    configure(lab, text);
    lab.arguments = ["--registry-patience", "1s"].map(str::to_owned).to_vec();
    lab.start_containerd();
    lab.start_gateway();
    ready(lab).await;
}

pub async fn restart_with(lab: &mut Lab, text: &str) {
    lab.stop_gateway();
    configure(lab, text);
    lab.start_gateway();
    ready(lab).await;
}

pub async fn deploy(lab: &Lab, status: u16, name: &str, image: &str) -> Answer {
    lab.expect(status, Method::POST, "/system/functions", &deployment(name, image)).await
}

pub async fn update(lab: &Lab, status: u16, name: &str, image: &str) -> Answer {
    lab.expect(status, Method::PUT, "/system/functions", &deployment(name, image)).await
}

pub async fn delete(lab: &Lab, name: &str) {
    lab.expect(200, Method::DELETE, "/system/functions", &json!({"functionName": name}).to_string()).await;
}

/// A deployment that is refused with all of these words.
pub async fn refused(lab: &Lab, image: &str, words: &[&str]) {
    let answer = deploy(lab, 400, "refused", image).await;
    let begins = format!("unable to pull image {image}: cannot pull: ");
    for word in [&begins[..]].iter().chain(words) {
        assert!(answer.text.contains(word), "{word}: {}", answer.text);
    }
}

pub async fn answers(lab: &Lab, name: &str, words: &str) {
    let answer = lab.expect(200, Method::POST, &format!("/function/{name}"), "moo").await;
    assert!(answer.text.contains(words), "{}", answer.text);
}

/// Kills a function's process, and waits for the next one.
pub async fn comes_back(lab: &Lab, name: &str, words: &str) {
    for pid in lab.processes("/watchdog") {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
        lab.until_ended(pid, PATIENCE).await;
    }
    // Held back for a moment where that was not its first end.
    lab.until(&format!("/function/{name}"), words, PATIENCE).await;
}

/// An image of the test's own: what it answers, and for which machine it says to be made.
pub fn own(lab: &Lab, name: &str, answer: &str, architecture: &str) -> PathBuf {
    let folder = lab.folder.join("own").join(name);
    layout::write(&folder, name, answer, architecture);
    folder
}

/// Files of blobs in containerd.
pub fn blobs(lab: &Lab) -> Vec<PathBuf> {
    let folder = lab.folder.join("containerd/io.containerd.content.v1.content/blobs/sha256");
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

#[test]
fn a_function_from_a_registry_answers() {
    inside("pull::a_function_from_a_registry_answers", async |mut lab| {
        let plain = Registry::start(&lab.folder, PLAIN, "");
        let digest = push(&plain.address, &figlet(), "farm/figlet", "1").await;
        start(&mut lab, "").await;
        refused(&lab, FIGLET, &["registry 127.0.0.1:5000", "plain HTTP", "`insecure = true`"]).await;
        // A mirror that is down, then the registry; and the other way round, with a path there.
        let text = format!(
            "{}mirrors = [\"127.0.0.1:5999\"]\n[registries.\"ghcr.example\"]\nmirrors = [\"127.0.0.1:5000/farm\"]\n",
            insecure(&[PLAIN])
        );
        restart_with(&mut lab, &text).await;
        deploy(&lab, 200, "figlet", FIGLET).await;
        answers(&lab, "figlet", "_ __").await;
        let log = lab.gateway_log();
        for words in [
            "registry 127.0.0.1:5999: ask for farm/figlet:1: cannot connect to 127.0.0.1:5999: ",
            "pull of 127.0.0.1:5000/farm/figlet:1 from 127.0.0.1:5000: 1 of 1 layers, ",
            " MiB in ",
        ] {
            assert!(log.contains(words), "{words}");
        }
        deploy(&lab, 200, "mirrored", "ghcr.example/figlet:1").await;
        answers(&lab, "mirrored", "_ __").await;
        deploy(&lab, 200, "pinned", &format!("127.0.0.1:5000/farm/figlet@{digest}")).await;
        answers(&lab, "pinned", "_ __").await;
        refused(&lab, "127.0.0.1:5000/farm/figlet:2", &["it has none (manifest unknown)"]).await;
        let pinned = format!("127.0.0.1:5000/farm/figlet@sha256:{}", "0".repeat(64));
        refused(&lab, &pinned, &["it has none"]).await;
        for name in ["figlet", "mirrored", "pinned"] {
            delete(&lab, name).await;
        }
        assert_eq!(lab.leftovers().await, Vec::<String>::new());
    });
}

#[test]
fn passwords_tokens_and_certificates() {
    inside("pull::passwords_tokens_and_certificates", async |mut lab| {
        let folder = lab.folder.clone();
        tokens::make_certificates(&folder);
        tokens::serve(6000, folder.clone()).await;
        let (path, place) = (folder.join("htpasswd"), folder.display());
        fs::write(&path, PASSWORDS).unwrap();
        let plain = Registry::start(&folder, PLAIN, "");
        let _password = Registry::start(
            &folder,
            5001,
            &format!("auth: {{htpasswd: {{realm: farm, path: {}}}}}", path.display()),
        );
        let token = "realm: \"http://127.0.0.1:6000/token\", service: test, issuer: test";
        let _token = Registry::start(
            &folder,
            5002,
            &format!("auth: {{token: {{{token}, rootcertbundle: {place}/ca.pem}}}}"),
        );
        let _tls = Registry::start(
            &folder,
            5003,
            &format!("  tls: {{certificate: {place}/server.pem, key: {place}/server.key}}"),
        );
        push(&plain.address, &figlet(), "secret/figlet", "1").await;
        let (password, token, tls) = (
            "127.0.0.1:5001/secret/figlet:1",
            "127.0.0.1:5002/secret/figlet:1",
            "127.0.0.1:5003/secret/figlet:1",
        );
        start(&mut lab, &insecure(&[PLAIN, 5001, 5002])).await;
        let config = lab.folder.join("state/docker/config.json");
        fs::create_dir_all(config.parent().unwrap()).unwrap();
        let know = |auths: Value| fs::write(&config, json!({"auths": auths}).to_string()).unwrap();
        let basic = |text: &str| json!({"auth": base64::encode(text.as_bytes())});

        refused(
            &lab,
            password,
            &[
                "registry 127.0.0.1:5001",
                "wants a user and a password",
                "docker/config.json has none",
                "or there is no such image",
            ],
        )
        .await;
        refused(
            &lab,
            token,
            &[
                "registry 127.0.0.1:5002",
                "wants a user and a password",
                "docker/config.json has none",
                "or there is no such image",
            ],
        )
        .await;
        let wrong = basic("farmer:swordfish");
        know(json!({"127.0.0.1:5001": wrong, "http://127.0.0.1:5002/v2/": wrong}));
        refused(&lab, password, &["does not take the user \"farmer\""]).await;
        refused(&lab, token, &["does not take the user \"farmer\""]).await;
        fs::write(&config, "{\"auths\": \"swordfish\"}").unwrap();
        refused(&lab, password, &["docker/config.json", "line 1"]).await;
        // The file is read anew each time.
        let right = basic("farmer:s3cret");
        know(json!({"127.0.0.1:5001": right, "http://127.0.0.1:5002/v2/": right}));
        deploy(&lab, 200, "password", password).await;
        answers(&lab, "password", "_ __").await;
        deploy(&lab, 200, "token", token).await;
        know(json!({"127.0.0.1:5002": {"identitytoken": "refresh"}}));
        update(&lab, 200, "token", token).await;
        answers(&lab, "token", "_ __").await;

        refused(
            &lab,
            tls,
            &["registry 127.0.0.1:5003", "UnknownIssuer", "`ca` in [registries.\"127.0.0.1:5003\"]"],
        )
        .await;
        let text = format!("[registries.\"127.0.0.1:5003\"]\nca = \"{place}/ca.pem\"\n");
        restart_with(&mut lab, &text).await;
        deploy(&lab, 200, "tls", tls).await;
        answers(&lab, "tls", "_ __").await;
        let log = lab.gateway_log();
        for secret in ["swordfish", "s3cret", &base64::encode(b"farmer:s3cret"), "Bearer ey", "refresh_token"]
        {
            assert!(!log.contains(secret), "{secret}");
        }
    });
}

#[test]
fn what_breaks_on_the_way_is_taken_up_again_and_what_is_wrong_is_refused() {
    inside("pull::what_breaks_on_the_way_is_taken_up_again_and_what_is_wrong_is_refused", async |mut lab| {
        let plain = Registry::start(&lab.folder, PLAIN, "");
        let wire = Wire::open(5100, &plain.address).await;
        for name in ["a", "b", "c"] {
            let folder = own(&lab, name, &format!("{name}\n"), "amd64");
            push(&plain.address, &folder, &format!("farm/{name}"), "1").await;
        }
        start(&mut lab, &insecure(&[5100])).await;
        let image = |name: &str| format!("127.0.0.1:5100/farm/{name}:1");
        let layer = |name: &str| registry::layer(&lab.folder.join("own").join(name));

        // The first connection is for the configuration: small, and not touched by these.
        wire.set(&[Fault::Cut(1 << 20), Fault::Cut(1 << 20), Fault::Cut(1 << 20)], Fault::None, false);
        deploy(&lab, 200, "a", &image("a")).await;
        answers(&lab, "a", "a\n").await;
        let asked = wire.seen(&layer("a"));
        assert!(
            asked.len() >= 3 && asked[1..].iter().all(|line| line.contains("range: bytes=")),
            "{asked:?}"
        );

        // A registry that begins at the start each time.
        wire.set(&[Fault::Cut(1 << 20), Fault::Cut(2 << 20)], Fault::None, true);
        deploy(&lab, 200, "b", &image("b")).await;
        answers(&lab, "b", "b\n").await;

        // One that says nothing any more, before a try was worth it.
        wire.set(&[], Fault::Stall(100_000), false);
        let held_up = image("c");
        let waits = deploy(&lab, 400, "c", &held_up);
        // Meanwhile others start, and one that runs goes on.
        let meanwhile = async {
            while wire.seen(&layer("c")).is_empty() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            comes_back(&lab, "a", "a\n").await;
            assert!(wire.seen(&layer("c")).len() < 4, "the pull had ended");
        };
        let (answer, ()) = tokio::join!(waits, meanwhile);
        for words in ["registry 127.0.0.1:5100", "fetch the blob sha256:", "nothing came for 1 s"] {
            assert!(answer.text.contains(words), "{words}: {}", answer.text);
        }

        // Bytes that changed in the registry's storage, and bytes that are lost there.
        wire.set(&[], Fault::None, false);
        let stored = registry::stored(&lab.folder, &layer("c"));
        let good = fs::read(&stored).unwrap();
        let mut bad = good.clone();
        bad[good.len() / 2] ^= 1;
        fs::write(&stored, &bad).unwrap();
        refused(&lab, &image("c"), &["fetch the blob sha256:", "another digest"]).await;
        fs::write(&stored, &good[..good.len() / 2]).unwrap();
        refused(&lab, &image("c"), &["is not the rest of"]).await;
        fs::write(&stored, &good).unwrap();
        deploy(&lab, 200, "c", &image("c")).await;
        answers(&lab, "c", "c\n").await;
        assert_eq!(ingests(&lab), Vec::<PathBuf>::new());
    });
}

/// What interrupted writes left in containerd.
fn ingests(lab: &Lab) -> Vec<PathBuf> {
    let folder = lab.folder.join("containerd/io.containerd.content.v1.content/ingest");
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

#[test]
fn images_are_for_this_machine() {
    inside("pull::images_are_for_this_machine", async |mut lab| {
        let plain = Registry::start(&lab.folder, PLAIN, "");
        let wire = Wire::open(5100, &plain.address).await;
        let (far, near) = (own(&lab, "far", "far\n", "s390x"), own(&lab, "near", "near\n", "amd64"));
        push(&plain.address, &far, "farm/far", "1").await;
        for folder in [&far, &near] {
            push(&plain.address, folder, "farm/both", "part").await;
        }
        let media_type = "application/vnd.oci.image.index.v1+json";
        let entry = |folder: &Path, architecture: &str| {
            let bytes = registry::manifest(folder);
            json!({"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": registry::digest(&bytes),
                   "size": bytes.len(), "platform": {"os": "linux", "architecture": architecture}})
        };
        for (tag, entries) in [
            ("1", vec![entry(&far, "s390x"), entry(&near, "amd64")]),
            ("far", vec![entry(&far, "s390x"), entry(&far, "riscv64")]),
        ] {
            let index = json!({"schemaVersion": 2, "mediaType": media_type, "manifests": entries});
            registry::push_manifest(
                &plain.address,
                "farm/both",
                tag,
                media_type,
                index.to_string().into_bytes(),
            )
            .await;
        }
        start(&mut lab, &insecure(&[5100])).await;
        wire.set(&[], Fault::None, false);
        let here = "this machine is linux/amd64";
        refused(&lab, "127.0.0.1:5100/farm/far:1", &["made for linux/s390x", here]).await;
        refused(&lab, "127.0.0.1:5100/farm/both:far", &["made for linux/s390x, linux/riscv64", here]).await;
        assert_eq!(wire.seen(&registry::layer(&far)), Vec::<String>::new());
        deploy(&lab, 200, "both", "127.0.0.1:5100/farm/both:1").await;
        answers(&lab, "both", "near\n").await;
        // Unpacked from the same index again.
        lab.stop_gateway();
        lab.start_gateway();
        ready(&lab).await;
        comes_back(&lab, "both", "near\n").await;
    });
}

#[test]
fn who_wants_the_same_shares_the_work() {
    inside("pull::who_wants_the_same_shares_the_work", async |mut lab| {
        let plain = Registry::start(&lab.folder, PLAIN, "");
        let wire = Wire::open(5100, &plain.address).await;
        push(&plain.address, &figlet(), "farm/figlet", "1").await;
        push(&plain.address, &figlet(), "farm/other", "1").await;
        start(&mut lab, &insecure(&[5100])).await;
        wire.set(&[], Fault::None, false);
        let (figlet_image, other) = ("127.0.0.1:5100/farm/figlet:1", "127.0.0.1:5100/farm/other:1");
        // Twice the same image, and another one with the same layer.
        tokio::join!(
            deploy(&lab, 200, "a", figlet_image),
            deploy(&lab, 200, "b", figlet_image),
            deploy(&lab, 200, "c", other),
        );
        for name in ["a", "b", "c"] {
            answers(&lab, name, "_ __").await;
        }
        let fetched = wire.seen(&registry::layer(&figlet()));
        assert_eq!(fetched.len(), 1, "{fetched:?}");
        // A deployment of what is here asks for the manifest, and for nothing else.
        wire.set(&[], Fault::None, false);
        update(&lab, 200, "a", figlet_image).await;
        assert_eq!((wire.seen("/manifests/").len(), wire.seen("/blobs/").len()), (1, 0));
    });
}

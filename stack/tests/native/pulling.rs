//! What is told, what dies and what goes while images are pulled.

use std::fs;
use std::time::{Duration, Instant};

use hyper::Method;
use serde_json::json;

use super::lab::Lab;
use super::layout::{self, Layer};
use super::namespaces::inside;
use super::pull::{
    PLAIN, answers, comes_back, configure, delete, deploy, figlet, insecure, own, start, update,
};
use super::registry::{self, Registry, push};
use super::wire::{Fault, Wire};
use super::{PATIENCE, deployment, ready};

/// A bad line to the plain registry.
pub const LINE: u16 = 5100;
/// An image that no function is of any more goes at once.
pub const NONE_KEPT: &str = "[images]\ngc_high_threshold_percent = 0\ngc_low_threshold_percent = 0\n";

const FIGLET: &str = "127.0.0.1:5100/farm/figlet:1";

/// The references that containerd knows of registries.
pub async fn pulled(lab: &Lab) -> Vec<String> {
    let records = lab.containerd().image_records("openfaas-fn").await.unwrap();
    let names = records.into_iter().map(|record| record.reference);
    names.filter(|name| name.starts_with("127.0.0.1")).collect()
}

/// Waits until containerd knows these, and no others.
pub async fn until_pulled(lab: &Lab, wanted: &[&str]) {
    let end = Instant::now() + PATIENCE;
    while pulled(lab).await != wanted {
        assert!(Instant::now() < end, "{:?}, not {wanted:?}", pulled(lab).await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub async fn until_asked(wire: &Wire, word: &str) {
    let end = Instant::now() + PATIENCE;
    while wire.seen(word).is_empty() {
        assert!(Instant::now() < end, "nobody asks for {word}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A machine that waits for its registry as long as it takes.
async fn start_patient(lab: &mut Lab) {
    configure(lab, &format!("{NONE_KEPT}{}", insecure(&[LINE])));
    lab.arguments = ["--registry-patience", "10m"].map(str::to_owned).to_vec();
    lab.start_containerd();
    lab.start_gateway();
    ready(lab).await;
}

#[test]
fn an_image_of_three_layers_answers() {
    inside("pulling::an_image_of_three_layers_answers", async |mut lab| {
        let plain = Registry::start(&lab.folder, PLAIN, "");
        let folder = lab.folder.join("own/three");
        let (mut second, mut third) = (Layer::new(), Layer::new());
        second.add("answer", 0o644, b"second\n");
        third.add("answer", 0o644, b"third\n");
        let (second, third) = (second.finish(), third.finish());
        let below = layout::programs("first\n");
        layout::assemble(&folder, "three", "amd64", &layout::process("app"), &[&below, &second, &third]);
        push(&plain.address, &folder, "farm/three", "1").await;
        start(&mut lab, &insecure(&[PLAIN])).await;
        deploy(&lab, 200, "three", "127.0.0.1:5000/farm/three:1").await;
        answers(&lab, "three", "third\n").await;
        delete(&lab, "three").await;
        assert_eq!(lab.leftovers().await, Vec::<String>::new());
    });
}

#[test]
fn a_gateway_that_dies_in_a_pull_leaves_nothing() {
    inside("pulling::a_gateway_that_dies_in_a_pull_leaves_nothing", async |mut lab| {
        let plain = Registry::start(&lab.folder, PLAIN, "");
        let wire = Wire::open(LINE, &plain.address).await;
        push(&plain.address, &figlet(), "farm/figlet", "1").await;
        start_patient(&mut lab).await;
        wire.set(&[], Fault::Stall(100_000), false);
        let (text, layer) = (deployment("figlet", FIGLET), registry::layer(&figlet()));
        let waits = lab.ask(Method::POST, "/system/functions", &text);
        tokio::select! {
            answer = waits => panic!("{:?}", answer.map(|answer| answer.text)),
            () = until_asked(&wire, &layer) => {}
        }
        assert_ne!(lab.containerd().leases("openfaas-fn").await.unwrap(), Vec::<String>::new());
        lab.kill_gateway();
        wire.set(&[], Fault::None, false);
        lab.start_gateway();
        ready(&lab).await;
        assert_eq!(lab.leftovers().await, Vec::<String>::new());
        deploy(&lab, 200, "figlet", FIGLET).await;
        answers(&lab, "figlet", "_ __").await;
        delete(&lab, "figlet").await;
        until_pulled(&lab, &[]).await;
        assert_eq!(lab.leftovers().await, Vec::<String>::new());
    });
}

#[test]
fn a_function_whose_image_is_on_its_way_can_be_scaled_updated_and_deleted() {
    inside(
        "pulling::a_function_whose_image_is_on_its_way_can_be_scaled_updated_and_deleted",
        async |mut lab| {
            super::image(&lab, "one", "here\n");
            let plain = Registry::start(&lab.folder, PLAIN, "");
            let wire = Wire::open(LINE, &plain.address).await;
            let first = own(&lab, "first", "first\n", "amd64");
            push(&plain.address, &first, "farm/figlet", "1").await;
            start_patient(&mut lab).await;
            for name in ["scaled", "updated", "deleted"] {
                wire.set(&[], Fault::None, false);
                deploy(&lab, 200, name, FIGLET).await;
                answers(&lab, name, "first\n").await;
                // Its image is lost, and so is its process.
                lab.stop_gateway();
                lab.containerd().remove_name("openfaas-fn", FIGLET).await.unwrap();
                for pid in lab.processes("/watchdog") {
                    nix::sys::signal::kill(
                        nix::unistd::Pid::from_raw(pid),
                        nix::sys::signal::Signal::SIGKILL,
                    )
                    .unwrap();
                    lab.until_ended(pid, PATIENCE).await;
                }
                wire.set(&[], Fault::Stall(0), false);
                lab.start_gateway();
                ready(&lab).await;
                until_asked(&wire, "/blobs/").await;
                match name {
                    "scaled" => {
                        let wish = json!({"serviceName": name, "replicas": 0}).to_string();
                        lab.expect(200, Method::POST, &format!("/system/scale-function/{name}"), &wish).await;
                    }
                    "updated" => {
                        update(&lab, 200, name, "localhost/one").await;
                        answers(&lab, name, "here\n").await;
                    }
                    _ => {}
                }
                delete(&lab, name).await;
                assert_eq!(lab.leftovers().await, Vec::<String>::new(), "{name}");
            }
        },
    );
}

#[test]
fn images_that_nobody_names_go() {
    inside("pulling::images_that_nobody_names_go", async |mut lab| {
        let plain = Registry::start(&lab.folder, PLAIN, "");
        let one = own(&lab, "first", "first\n", "amd64");
        for tag in ["1", "2"] {
            push(&plain.address, &one, "farm/f", tag).await;
        }
        start(&mut lab, &format!("{NONE_KEPT}{}", insecure(&[PLAIN]))).await;
        let (first, second) = ("127.0.0.1:5000/farm/f:1", "127.0.0.1:5000/farm/f:2");
        deploy(&lab, 200, "f", first).await;
        deploy(&lab, 200, "g", first).await;
        update(&lab, 200, "f", second).await;
        until_pulled(&lab, &[first, second]).await;
        update(&lab, 200, "g", second).await;
        until_pulled(&lab, &[second]).await;
        delete(&lab, "f").await;
        answers(&lab, "g", "first\n").await;
        // One whose document went while nobody looked.
        lab.stop_gateway();
        fs::remove_file(lab.folder.join("state/functions/openfaas-fn/g.json")).unwrap();
        lab.start_gateway();
        ready(&lab).await;
        until_pulled(&lab, &[]).await;
    });
}

#[test]
fn a_disk_that_fills_meanwhile_ends_a_pull() {
    inside("pulling::a_disk_that_fills_meanwhile_ends_a_pull", async |mut lab| {
        let plain = Registry::start(&lab.folder, PLAIN, "");
        let wire = Wire::open(LINE, &plain.address).await;
        push(&plain.address, &figlet(), "farm/figlet", "1").await;
        let state = lab.folder.join("state");
        fs::create_dir(&state).unwrap();
        let (flags, size) = (nix::mount::MsFlags::empty(), Some("size=128m"));
        nix::mount::mount(Some("none"), &state, Some("tmpfs"), flags, size).unwrap();
        start_patient(&mut lab).await;
        wire.set(&[], Fault::Stall(100_000), false);
        let fill = async {
            until_asked(&wire, &registry::layer(&figlet())).await;
            fs::write(state.join("log"), vec![1; 80 << 20]).unwrap();
        };
        let (refused, ()) = tokio::join!(deploy(&lab, 400, "figlet", FIGLET), fill);
        assert!(refused.text.contains("MiB are free: remove functions"), "{}", refused.text);
        fs::remove_file(state.join("log")).unwrap();
        wire.set(&[], Fault::None, false);
        deploy(&lab, 200, "figlet", FIGLET).await;
        delete(&lab, "figlet").await;
        assert_eq!(lab.leftovers().await, Vec::<String>::new());
    });
}

#[test]
fn a_deployment_that_cannot_be_written_changes_no_tag() {
    inside("pulling::a_deployment_that_cannot_be_written_changes_no_tag", async |mut lab| {
        let plain = Registry::start(&lab.folder, PLAIN, "");
        let (one, two) = (own(&lab, "first", "first\n", "amd64"), own(&lab, "second", "second\n", "amd64"));
        let state = lab.folder.join("state");
        fs::create_dir(&state).unwrap();
        let mount =
            |flags| nix::mount::mount(Some("none"), &state, Some("tmpfs"), flags, None::<&str>).unwrap();
        mount(nix::mount::MsFlags::empty());
        start(&mut lab, &format!("{NONE_KEPT}{}", insecure(&[PLAIN]))).await;
        let image = "127.0.0.1:5000/farm/f:1";
        push(&plain.address, &one, "farm/f", "1").await;
        deploy(&lab, 200, "f", image).await;
        push(&plain.address, &two, "farm/f", "1").await;
        mount(nix::mount::MsFlags::MS_REMOUNT | nix::mount::MsFlags::MS_RDONLY);
        let refused = deploy(&lab, 400, "g", image).await;
        assert!(refused.text.contains("Read-only file system"), "{}", refused.text);
        comes_back(&lab, "f", "first\n").await;
        mount(nix::mount::MsFlags::MS_REMOUNT);
        update(&lab, 200, "f", image).await;
        answers(&lab, "f", "second\n").await;
        delete(&lab, "f").await;
        until_pulled(&lab, &[]).await;
        assert_eq!(lab.leftovers().await, Vec::<String>::new());
    });
}

//! Images that no function is of: how long they stay, and what they are good for meanwhile.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use hyper::Method;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use stack::containerd::Task;

use super::lab::{BASIC, Lab, ask};
use super::layout::{self, Layer};
use super::namespaces::inside;
use super::pull::{
    PLAIN, answers, comes_back, configure, delete, deploy, insecure, own, restart_with, start,
};
use super::pulling::{LINE, NONE_KEPT, pulled, until_asked, until_pulled};
use super::registry::{self, Registry, push};
use super::resting::until_frozen;
use super::small_disk::{self, fill, leave};
use super::wire::{Fault, Wire};
use super::{PATIENCE, ready};

/// What stays until a pull needs the room.
const ALL_KEPT: &str = "[images]\ngc_high_threshold_percent = 100\ngc_low_threshold_percent = 99\n";

fn image(name: &str) -> String {
    format!("127.0.0.1:{PLAIN}/farm/{name}:1")
}

/// Waits until containerd knows the images of these names, and no others of the registry.
async fn until_kept(lab: &Lab, names: &[&str]) {
    let images: Vec<_> = names.iter().map(|name| image(name)).collect();
    until_pulled(lab, &images.iter().map(String::as_str).collect::<Vec<_>>()).await;
}

/// An image that answers with its name, and takes so many MiB and once more beside what all of them share.
fn large(lab: &Lab, below: &[u8], name: &str, mebibytes: usize) -> PathBuf {
    let folder = lab.folder.join("own").join(name);
    let mut layer = Layer::new();
    layer.add("answer", 0o644, format!("{name}\n").as_bytes());
    layer.add("filling", 0o644, &vec![name.as_bytes()[0]; mebibytes << 20]);
    layout::assemble(&folder, name, "amd64", &layout::process("app"), &[below, &layer.finish()]);
    folder
}

/// The layer that an image has for itself.
fn upper(folder: &std::path::Path) -> String {
    let manifest: Value = serde_json::from_slice(&registry::manifest(folder)).unwrap();
    manifest["layers"][1]["digest"].as_str().unwrap().to_owned()
}

/// Waits until containerd's records say that the images were used in this order.
async fn until_used(lab: &Lab, names: &[&str]) {
    let wanted: Vec<_> = names.iter().map(|name| image(name)).collect();
    let end = Instant::now() + PATIENCE;
    loop {
        let mut records = lab.containerd().image_records("openfaas-fn").await.unwrap();
        records.retain(|record| record.reference.starts_with("127.0.0.1"));
        records.sort_by_key(|record| record.last_used);
        if records.iter().map(|record| &record.reference).eq(&wanted) {
            return;
        }
        assert!(Instant::now() < end, "{records:?}, not {wanted:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[test]
fn what_was_not_used_for_longest_goes_when_the_disk_is_too_full() {
    inside("collecting::what_was_not_used_for_longest_goes_when_the_disk_is_too_full", async |mut lab| {
        let mut plain = Some(Registry::start(&lab.folder, PLAIN, ""));
        let address = format!("127.0.0.1:{PLAIN}");
        let below = layout::programs("below\n");
        for name in ["a", "b", "c", "d"] {
            push(&address, &large(&lab, &below, name, 8), &format!("farm/{name}"), "1").await;
        }
        small_disk::make(&lab, 256);
        // One of these images is 6 percent.
        let limits = "[images]\ngc_high_threshold_percent = 60\ngc_low_threshold_percent = 57\n";
        let config = format!("{limits}{}", insecure(&[PLAIN]));
        start(&mut lab, &config).await;
        for name in ["a", "b", "c"] {
            deploy(&lab, 200, name, &image(name)).await;
        }
        for (name, order) in [("b", ["a", "c", "b"]), ("a", ["c", "b", "a"])] {
            delete(&lab, name).await;
            until_used(&lab, &order).await;
        }
        lab.kill_gateway();
        lab.start_gateway();
        ready(&lab).await;

        // What filled the disk while the gateway was away is seen at its start.
        lab.kill_gateway();
        fill(&lab, 61.5);
        lab.start_gateway();
        until_kept(&lab, &["a", "c"]).await;
        lab.until_said("farm/b:1 of openfaas-fn is removed, 16.").await;
        assert!(lab.gateway_log().contains(" MiB are freed: no function is of it since 20"));
        assert!(lab.gateway_log().contains("the disk was 62% full: above 60% they go until it is 57%"));
        ready(&lab).await;

        // A pull can be what makes it too full.
        fill(&lab, 57.5);
        deploy(&lab, 200, "d", &image("d")).await;
        until_kept(&lab, &["c", "d"]).await;

        // And everything else can, without anybody telling.
        delete(&lab, "d").await;
        lab.arguments = ["--disk-look", "1s"].map(str::to_owned).to_vec();
        restart_with(&mut lab, &config).await;
        until_used(&lab, &["c", "d"]).await;
        fill(&lab, 61.5);
        until_kept(&lab, &["c"]).await;

        // What a function is of stays, however full it is.
        drop(plain.take());
        leave(&lab, 1 << 20);
        answers(&lab, "c", "c\n").await;
        comes_back(&lab, "c", "c\n").await;
        until_kept(&lab, &["c"]).await;
    });
}

#[test]
fn what_functions_are_of_stays_whatever_they_do() {
    inside("collecting::what_functions_are_of_stays_whatever_they_do", async |mut lab| {
        let mut plain = Some(Registry::start(&lab.folder, PLAIN, ""));
        lab.groups = true;
        for name in ["absent", "frozen", "gone", "prepared", "running", "stopping"] {
            let folder = own(&lab, name, &format!("{name}\n"), "amd64");
            push(&format!("127.0.0.1:{PLAIN}"), &folder, &format!("farm/{name}"), "1").await;
        }
        configure(&lab, &format!("{NONE_KEPT}{}", insecure(&[PLAIN])));
        lab.arguments = ["--prepared", "1"].map(str::to_owned).to_vec();
        lab.start_containerd();
        lab.start_gateway();
        ready(&lab).await;
        for name in ["absent", "gone", "prepared", "running"] {
            deploy(&lab, 200, name, &image(name)).await;
        }
        let stopping = json!({"service": "stopping", "image": image("stopping"), "envProcess": "/bin/sh"});
        lab.expect(200, Method::POST, "/system/functions", &stopping.to_string()).await;
        let frozen = json!({"service": "frozen", "image": image("frozen"),
                            "labels": {"com.bothy.scale.zero-state": "frozen"}});
        lab.expect(200, Method::POST, "/system/functions", &frozen.to_string()).await;
        for name in ["frozen", "prepared", "absent"] {
            let none = json!({"serviceName": name, "replicas": 0}).to_string();
            lab.expect(200, Method::POST, &format!("/system/scale-function/{name}"), &none).await;
            match name {
                "frozen" => until_frozen(name).await,
                // It takes the one place for such.
                "prepared" => until_task(&lab, name, Task::Created).await,
                _ => {}
            }
        }
        drop(plain.take());

        // A call that ends when the test says so, and a deletion that waits for it.
        let address = lab.address();
        let call = tokio::spawn(async move {
            ask(address, Method::POST, "/function/stopping", "sleep 1000; cat /answer", &[]).await
        });
        let sleep = until_runs(&lab, "sleep").await;
        let deletion = tokio::spawn(async move {
            let headers = [("authorization", BASIC)];
            ask(address, Method::DELETE, "/system/functions", r#"{"functionName":"stopping"}"#, &headers)
                .await
        });
        let end = Instant::now() + PATIENCE;
        while lab.ask(Method::GET, "/system/function/stopping", "").await.unwrap().status != 404 {
            assert!(Instant::now() < end, "the function is there still");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        delete(&lab, "gone").await;
        until_kept(&lab, &["absent", "frozen", "prepared", "running", "stopping"]).await;
        assert_eq!(lab.containerd().containers_of("openfaas-fn", Some("absent")).await.unwrap().len(), 0);
        until_task(&lab, "prepared", Task::Created).await;
        kill(Pid::from_raw(sleep), Signal::SIGTERM).unwrap();
        let answered = call.await.unwrap().unwrap();
        assert!(answered.text.contains("stopping\n"), "{}", answered.text);
        assert_eq!(deletion.await.unwrap().unwrap().status, 200);
        until_kept(&lab, &["absent", "frozen", "prepared", "running"]).await;

        // Nobody could fetch them.
        for name in ["absent", "frozen", "prepared", "running"] {
            answers(&lab, name, &format!("{name}\n")).await;
        }
        for name in ["absent", "frozen", "prepared", "running"] {
            delete(&lab, name).await;
        }
        until_kept(&lab, &[]).await;
        assert_eq!(lab.leftovers().await, Vec::<String>::new());
    });
}

/// Waits until a function's only container has a task in that state.
async fn until_task(lab: &Lab, function: &str, wanted: Task) {
    let (containerd, end) = (lab.containerd(), Instant::now() + PATIENCE);
    loop {
        let containers = containerd.containers_of("openfaas-fn", Some(function)).await.unwrap();
        if let [one] = containers.as_slice()
            && containerd.task("openfaas-fn", &one.id).await.unwrap() == wanted
        {
            return;
        }
        assert!(Instant::now() < end, "{function}: {} containers, none {wanted:?}", containers.len());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn until_runs(lab: &Lab, program: &str) -> i32 {
    let end = Instant::now() + PATIENCE;
    loop {
        if let [pid] = lab.processes(program)[..] {
            return pid;
        }
        assert!(Instant::now() < end, "{program} does not run");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[test]
fn a_pull_that_does_not_fit_takes_the_room_of_what_nobody_names() {
    inside("collecting::a_pull_that_does_not_fit_takes_the_room_of_what_nobody_names", async |mut lab| {
        let plain = Registry::start(&lab.folder, PLAIN, "");
        let below = layout::programs("below\n");
        for (name, size) in [("running", 1), ("older", 4), ("old", 4), ("big", 8), ("wide", 10), ("huge", 37)]
        {
            push(&plain.address, &large(&lab, &below, name, size), &format!("farm/{name}"), "1").await;
        }
        small_disk::make(&lab, 136);
        start(&mut lab, &format!("{ALL_KEPT}{}", insecure(&[PLAIN]))).await;
        for name in ["running", "old", "older"] {
            deploy(&lab, 200, name, &image(name)).await;
        }
        for (name, order) in [("older", ["running", "old", "older"]), ("old", ["running", "older", "old"])] {
            delete(&lab, name).await;
            until_used(&lab, &order).await;
        }

        // 4 MiB are missing; 64 MiB are not for images.
        leave(&lab, (16 - 4 + 64) << 20);
        deploy(&lab, 200, "big", &image("big")).await;
        answers(&lab, "big", "big\n").await;
        until_kept(&lab, &["big", "old", "running"]).await;
        lab.until_said("farm/older:1 of openfaas-fn is removed, 8.").await;
        assert!(lab.gateway_log().contains("farm/big:1 needs 17 MiB or more"));

        // What would not fit on an empty disk takes nobody's room.
        let refused = deploy(&lab, 400, "huge", &image("huge")).await;
        assert!(refused.text.contains("farm/huge:1 needs 75 MiB or more, "), "{}", refused.text);
        assert!(refused.text.contains(" MiB are free: remove functions"), "{}", refused.text);
        until_kept(&lab, &["big", "old", "running"]).await;

        // What does not fit beside the others is refused when nothing can be removed any more.
        let refused = deploy(&lab, 400, "wide", &image("wide")).await;
        assert!(refused.text.contains("farm/wide:1 needs 21 MiB or more, "), "{}", refused.text);
        until_kept(&lab, &["big", "running"]).await;

        // The machine serves, and what ends starts again.
        leave(&lab, 1 << 20);
        for name in ["big", "running"] {
            answers(&lab, name, &format!("{name}\n")).await;
        }
        delete(&lab, "big").await;
        comes_back(&lab, "running", "running\n").await;
    });
}

#[test]
fn a_pull_goes_on_in_the_room_that_is_made_meanwhile() {
    inside("collecting::a_pull_goes_on_in_the_room_that_is_made_meanwhile", async |mut lab| {
        let plain = Registry::start(&lab.folder, PLAIN, "");
        let wire = Wire::open(LINE, &plain.address).await;
        let below = layout::programs("below\n");
        let (first, second) = (large(&lab, &below, "first", 4), large(&lab, &below, "second", 8));
        push(&plain.address, &first, "farm/same", "1").await;
        push(&plain.address, &large(&lab, &below, "old", 16), "farm/old", "1").await;
        small_disk::make(&lab, 192);
        configure(&lab, &format!("{ALL_KEPT}{}", insecure(&[PLAIN, LINE])));
        lab.arguments = ["--registry-patience", "10m"].map(str::to_owned).to_vec();
        lab.start_containerd();
        lab.start_gateway();
        ready(&lab).await;
        let same = format!("127.0.0.1:{LINE}/farm/same:1");
        deploy(&lab, 200, "same", &same).await;
        deploy(&lab, 200, "old", &image("old")).await;
        // The one that is pulled anew is the one that was not used for longest.
        delete(&lab, "same").await;
        delete(&lab, "old").await;
        until_pulled(&lab, &[&image("old"), &same]).await;

        push(&plain.address, &second, "farm/same", "1").await;
        wire.set(&[], Fault::Stall(100_000), false);
        let meanwhile = async {
            until_asked(&wire, &upper(&second)).await;
            leave(&lab, 60 << 20);
            until_pulled(&lab, &[&same]).await;
            lab.until_said("farm/same:1 needs 64 MiB or more").await;
            wire.go_on();
        };
        tokio::join!(deploy(&lab, 200, "same", &same), meanwhile);
        answers(&lab, "same", "second\n").await;
        delete(&lab, "same").await;
        assert_eq!(lab.leftovers().await, Vec::<String>::new());
    });
}

#[test]
fn what_is_kept_is_used_without_asking() {
    inside("collecting::what_is_kept_is_used_without_asking", async |mut lab| {
        let plain = Registry::start(&lab.folder, PLAIN, "");
        let wire = Wire::open(LINE, &plain.address).await;
        push(&plain.address, &own(&lab, "f", "f\n", "amd64"), "farm/f", "1").await;
        let policy = "[registries]\npull_policy = \"IfNotPresent\"\n";
        let config = format!("{ALL_KEPT}{policy}{}", insecure(&[LINE]));
        start(&mut lab, &config).await;
        let image = format!("127.0.0.1:{LINE}/farm/f:1");
        deploy(&lab, 200, "f", &image).await;
        delete(&lab, "f").await;
        assert_eq!(lab.leftovers().await, Vec::<String>::new());
        assert_eq!(pulled(&lab).await, [image.as_str()]);

        wire.set(&[], Fault::None, false);
        deploy(&lab, 200, "f", &image).await;
        answers(&lab, "f", "f\n").await;
        restart_with(&mut lab, &config).await;
        delete(&lab, "f").await;
        deploy(&lab, 200, "f", &image).await;
        assert_eq!(wire.seen(""), Vec::<String>::new());
        delete(&lab, "f").await;

        // One that is damaged is of no use.
        lab.kill_gateway();
        lab.kill_containerd();
        damage(&lab);
        lab.start_containerd();
        lab.start_gateway();
        ready(&lab).await;
        deploy(&lab, 200, "f", &image).await;
        answers(&lab, "f", "f\n").await;
        assert_ne!(wire.seen("/blobs/"), Vec::<String>::new());
    });
}

/// Leaves zeroes where containerd has blobs, as a power cut may.
fn damage(lab: &Lab) {
    let folder = lab.folder.join("containerd/io.containerd.content.v1.content/blobs/sha256");
    for blob in fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path()) {
        let size = usize::try_from(blob.metadata().unwrap().len()).unwrap();
        fs::set_permissions(&blob, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&blob, vec![0; size]).unwrap();
    }
}

#[test]
fn nothing_goes_that_a_closed_document_may_name_and_what_is_broken_goes_like_all_else() {
    let name =
        "collecting::nothing_goes_that_a_closed_document_may_name_and_what_is_broken_goes_like_all_else";
    inside(name, async |mut lab| {
        let plain = Registry::start(&lab.folder, PLAIN, "");
        for name in ["a", "b"] {
            push(&plain.address, &own(&lab, name, "here\n", "amd64"), &format!("farm/{name}"), "1").await;
        }
        start(&mut lab, &format!("{ALL_KEPT}{}", insecure(&[PLAIN]))).await;
        for name in ["a", "b"] {
            deploy(&lab, 200, name, &image(name)).await;
            delete(&lab, name).await;
        }
        lab.kill_gateway();
        lab.kill_containerd();
        damage(&lab);
        let closed = lab.folder.join("state/functions/openfaas-fn/newer.json");
        fs::write(&closed, r#"{"version": 99}"#).unwrap();
        configure(&lab, &format!("{NONE_KEPT}{}", insecure(&[PLAIN])));
        lab.arguments = ["--disk-look", "1s"].map(str::to_owned).to_vec();

        // A gateway that is here before containerd.
        lab.start_gateway();
        lab.until_listening().await;
        lab.start_containerd();
        ready(&lab).await;
        lab.until_said("newer.json is of version 99, this program knows 1").await;
        lab.until_said("no image is removed, because nobody knows what is needed: ").await;
        assert_eq!(pulled(&lab).await, [image("a"), image("b")]);

        // A look that finds no containerd is done again.
        lab.kill_containerd();
        lab.until_said("collecting garbage: ").await;
        fs::remove_file(&closed).unwrap();
        lab.start_containerd();
        ready(&lab).await;
        until_kept(&lab, &[]).await;
    });
}

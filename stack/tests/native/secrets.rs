//! Secrets: through the API onto the disk, and into the functions that ask for them and no others.

use std::os::unix::fs::PermissionsExt;

use hyper::Method;
use serde_json::{Value, json};

use super::namespaces::inside;
use super::{IMAGE, PATIENCE, image, ready};
use crate::lab::Lab;

const SECRETS: &str = "/system/secrets";

/// A function that runs the script that it is called with.
async fn deploy(lab: &Lab, name: &str, secrets: &[&str]) {
    let body = json!({"service": name, "image": IMAGE, "envProcess": "/bin/sh", "secrets": secrets});
    lab.expect(200, Method::POST, "/system/functions", &body.to_string()).await;
}

async fn run(lab: &Lab, name: &str, script: &str) -> String {
    lab.expect(200, Method::POST, &format!("/function/{name}"), script).await.text
}

async fn list(lab: &Lab, query: &str) -> Value {
    lab.expect(200, Method::GET, &format!("{SECRETS}{query}"), "").await.json()
}

#[test]
fn life_of_a_secret() {
    inside("secrets::life_of_a_secret", async |mut lab| {
        image(&lab, "one", "here\n");
        crate::layout::write_as(
            "root",
            &lab.folder.join("images/root"),
            "localhost/root:latest",
            "here\n",
            "amd64",
        );
        // What a power cut left of a write.
        let stored = lab.folder.join("state/secrets/openfaas-fn");
        std::fs::create_dir_all(&stored).unwrap();
        std::fs::write(stored.join("~new"), "torn").unwrap();
        lab.start_containerd();
        lab.start_gateway();
        ready(&lab).await;
        assert!(!stored.join("~new").exists());
        assert_eq!(list(&lab, "").await, json!([]));
        refusals(&lab).await;

        // Made once; listed without its value; for root alone on the disk.
        lab.expect(201, Method::POST, SECRETS, r#"{"name":"key","value":"hush-1"}"#).await;
        let again = lab.expect(409, Method::POST, SECRETS, r#"{"name":"key","value":"hush-2"}"#).await;
        assert_eq!(again.text, "secret key already exists");
        let listed = json!([{"name": "key", "namespace": "openfaas-fn"}]);
        for query in ["", "?namespace=", "?namespace=openfaas-fn"] {
            assert_eq!(list(&lab, query).await, listed);
        }
        let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode(&stored), mode(&stored.join("key"))), (0o700, 0o600));

        // Its function runs as another user, reads it, and cannot change it; another function has no way to it.
        deploy(&lab, "reader", &["key"]).await;
        deploy(&lab, "other", &[]).await;
        let script = "id -u; cat /var/openfaas/secrets/key; echo; echo /var/openfaas/secrets/*; \
                      echo x 2>&1 >/var/openfaas/secrets/x || echo closed";
        let seen = run(&lab, "reader", script).await;
        assert!(seen.starts_with("1000\nhush-1\n/var/openfaas/secrets/key\n"), "{seen}");
        assert!(seen.ends_with("closed\n"), "{seen}");
        let seen =
            run(&lab, "other", "cat /var/openfaas/secrets/key 2>&1 || echo /var/openfaas/secrets*").await;
        assert!(seen.ends_with("/var/openfaas/secrets*\n"), "{seen}");

        // Nor can root in it.
        let body = json!({"service": "root", "image": "localhost/root:latest", "envProcess": "/bin/sh", "secrets": ["key"]});
        lab.expect(200, Method::POST, "/system/functions", &body.to_string()).await;
        let script = "id -u; for file in key x; do echo x 2>&1 >/var/openfaas/secrets/$file || echo closed; done; \
                      cat /var/openfaas/secrets/key";
        let seen = run(&lab, "root", script).await;
        assert!(seen.starts_with("0\n") && seen.matches("closed").count() == 2, "{seen}");
        assert!(seen.matches("Read-only file system").count() == 2 && seen.ends_with("hush-1"), "{seen}");
        lab.expect(200, Method::DELETE, "/system/functions", r#"{"functionName":"root"}"#).await;

        // A new value is there at the next call, without a restart; rawValue wins.
        let process = lab.processes("/watchdog");
        let body = r#"{"name":"key","value":"cut","rawValue":"IGh1c2gtMiAK"}"#;
        lab.expect(200, Method::PUT, SECRETS, body).await;
        assert_eq!(run(&lab, "reader", "cat /var/openfaas/secrets/key").await, " hush-2 \n");
        assert_eq!(lab.processes("/watchdog"), process);

        // Removed while a function uses it: what runs keeps its copy, and a notice tells what will not start again.
        let log = || lab.gateway_log();
        let notice = "reader.openfaas-fn names secret key, which is not there: it cannot start again";
        assert!(!log().contains(notice));
        lab.expect(200, Method::DELETE, SECRETS, r#"{"name":"key"}"#).await;
        assert!(log().contains(notice), "nobody is told");
        assert_eq!(run(&lab, "reader", "cat /var/openfaas/secrets/key").await, " hush-2 \n");
        let body = json!({"service": "late", "image": IMAGE, "secrets": ["key"]}).to_string();
        let refused = lab.expect(400, Method::POST, "/system/functions", &body).await;
        assert_eq!(refused.text, "unable to find secret: key");
        // Made again it is theirs again.
        lab.expect(201, Method::POST, SECRETS, r#"{"name":"key","value":"hush-4"}"#).await;
        assert_eq!(run(&lab, "reader", "cat /var/openfaas/secrets/key").await, "hush-4");
        room_of_copies(&lab).await;

        // Stored just before the gateway died, and not told to anybody.
        lab.kill_gateway();
        std::fs::write(stored.join("key"), "hush-3").unwrap();
        lab.start_gateway();
        ready(&lab).await;
        lab.until("/function/other", "", PATIENCE).await;
        let wait = async || run(&lab, "reader", "cat /var/openfaas/secrets/key").await;
        assert_eq!(wait().await, "hush-3");
        assert_eq!(lab.processes("/watchdog"), process);

        // After a start of the machine: nothing runs, and what was in memory is gone.
        lab.kill_gateway();
        lab.kill_containerd();
        for program in ["/watchdog", crate::lab::SHIM] {
            for pid in lab.processes(program) {
                let pid = nix::unistd::Pid::from_raw(pid);
                let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
                lab.until_ended(pid.as_raw(), PATIENCE).await;
            }
        }
        nix::mount::umount(&lab.folder.join("copies")).unwrap();
        lab.start_containerd();
        lab.start_gateway();
        ready(&lab).await;
        lab.until("/function/other", "", PATIENCE).await;
        assert_eq!(run(&lab, "reader", "cat /var/openfaas/secrets/key").await, "hush-3");

        // An update that does without it frees it.
        let body = json!({"service": "reader", "image": IMAGE, "envProcess": "/bin/sh"}).to_string();
        lab.expect(200, Method::PUT, "/system/functions", &body).await;
        assert_eq!(lab.expect(200, Method::DELETE, SECRETS, r#"{"name":"key"}"#).await.text, "");
        let gone = lab.expect(404, Method::DELETE, SECRETS, r#"{"name":"key"}"#).await;
        assert_eq!(gone.text, "unable to find secret: key");
        assert_eq!(list(&lab, "").await, json!([]));
        for name in ["reader", "other"] {
            let body = json!({"functionName": name}).to_string();
            lab.expect(200, Method::DELETE, "/system/functions", &body).await;
        }
        assert_eq!(lab.leftovers().await, Vec::<String>::new());
        for log in ["gateway.log", "containerd.log"] {
            let text = std::fs::read_to_string(lab.folder.join(log)).unwrap();
            assert!(!text.contains("hush-"), "{log} tells a secret");
        }
    });
}

async fn refusals(lab: &Lab) {
    for (method, body, status, text) in [
        (Method::POST, "", 400, "error parsing request body: it is no secret in JSON (line 1, column 0)"),
        (
            Method::POST,
            r#"{"name":"a","value":987}"#,
            400,
            "error parsing request body: it is no secret in JSON",
        ),
        (Method::POST, r#"{"value":"x"}"#, 400, "non-empty name is required"),
        (Method::POST, r#"{"name":" ","value":"x"}"#, 400, "non-empty name is required"),
        (Method::POST, r#"{"name":"a/b","value":"x"}"#, 400, "directory traversal found in name"),
        (Method::PUT, r#"{"name":"..","value":"x"}"#, 400, "directory traversal found in name"),
        (Method::DELETE, r#"{"name":"../../passwd"}"#, 400, "directory traversal found in name"),
        (Method::DELETE, "", 400, "non-empty name is required"),
        (Method::POST, r#"{"name":"a b","value":"x"}"#, 400, "a secret's name has letters, digits"),
        (Method::POST, r#"{"name":"a","rawValue":"?"}"#, 400, "rawValue is not base64"),
        (Method::POST, r#"{"name":"a","value":"x","namespace":"nowhere"}"#, 400, "namespace not valid"),
        (Method::POST, r#"{"name":"a","value":"x","namespace":"../x"}"#, 400, "namespace not valid"),
        (Method::PUT, r#"{"name":"a","value":"x","namespace":"nowhere"}"#, 400, "namespace not valid"),
        (Method::DELETE, r#"{"name":"a","namespace":"nowhere"}"#, 400, "namespace not valid"),
        (Method::PUT, r#"{"name":"a","value":"x"}"#, 404, "unable to find secret: a"),
        (Method::DELETE, r#"{"name":"a"}"#, 404, "unable to find secret: a"),
        (Method::PATCH, "{}", 405, ""),
    ] {
        let refused = lab.expect(status, method.clone(), SECRETS, body).await;
        assert!(refused.text.starts_with(text), "{method} {body}: {}", refused.text);
        assert!(!refused.text.contains("987"), "{}", refused.text);
    }
    let refused = lab.expect(400, Method::GET, &format!("{SECRETS}?namespace=nowhere"), "").await;
    assert_eq!(refused.text, "namespace not valid");
    let path = format!("{SECRETS}?name=a&namespace=nowhere");
    let refused = lab.expect(400, Method::DELETE, &path, "").await;
    assert_eq!(refused.text, "namespace not valid");
    for method in [Method::GET, Method::POST, Method::PUT, Method::DELETE] {
        let body = r#"{"name":"a","value":"x"}"#;
        let refused = lab.ask_with(method, SECRETS, body, &[]).await.unwrap();
        assert_eq!((refused.status.as_u16(), refused.text.as_str()), (401, "invalid credentials"));
    }

    // The largest one, and one that is larger by a byte.
    let sized = |bytes: usize| json!({"name": "large", "value": "x".repeat(bytes)}).to_string();
    lab.expect(201, Method::POST, SECRETS, &sized(1 << 20)).await;
    let refused = lab.expect(413, Method::PUT, SECRETS, &sized((1 << 20) + 1)).await;
    assert_eq!(refused.text, "secret large has 1048577 bytes, at most 1048576 are kept");
    lab.expect(200, Method::DELETE, SECRETS, r#"{"name":"large"}"#).await;
}

/// The copies have memory of their own, and what does not fit there is refused and harms nobody else.
async fn room_of_copies(lab: &Lab) {
    let copies = lab.folder.join("copies");
    let found = rustix::fs::statvfs(&copies).unwrap();
    assert_eq!(found.f_blocks * found.f_frsize, 16 << 20);
    let halves = |name: &str| json!({"name": name, "value": "x".repeat(600 << 10)}).to_string();
    for name in ["left", "right"] {
        lab.expect(201, Method::POST, SECRETS, &halves(name)).await;
    }
    let with = |secrets: &[&str]| json!({"service": "large", "image": IMAGE, "secrets": secrets}).to_string();
    let refused = lab.expect(400, Method::POST, "/system/functions", &with(&["left", "right"])).await;
    assert!(refused.text.starts_with("secrets: they have 1228800 bytes together"), "{}", refused.text);
    std::fs::write(copies.join("filler"), vec![0; (16 << 20) - (64 << 10)]).unwrap();
    let refused = lab.expect(400, Method::POST, "/system/functions", &with(&["left"])).await;
    assert!(refused.text.contains("secret left does not fit into the 16 MiB of memory"), "{}", refused.text);
    assert!(!copies.join("openfaas-fn.large.0").exists());
    // Stored it is, whatever becomes of the copies.
    let body = json!({"name": "key", "value": format!("hush-5{}", "y".repeat(100 << 10))}).to_string();
    lab.expect(200, Method::PUT, SECRETS, &body).await;
    assert_eq!(run(lab, "reader", "cat /var/openfaas/secrets/key").await, "hush-4");
    std::fs::remove_file(copies.join("filler")).unwrap();
    lab.expect(200, Method::PUT, SECRETS, r#"{"name":"key","value":"hush-6"}"#).await;
    assert_eq!(run(lab, "reader", "cat /var/openfaas/secrets/key").await, "hush-6");
    for name in ["left", "right"] {
        lab.expect(200, Method::DELETE, SECRETS, &json!({"name": name}).to_string()).await;
    }
}

#[test]
fn a_full_disk_takes_no_secret_and_loses_none() {
    inside("secrets::a_full_disk_takes_no_secret_and_loses_none", async |mut lab| {
        let state = lab.folder.join("state");
        std::fs::create_dir(&state).unwrap();
        let (flags, size) = (nix::mount::MsFlags::empty(), Some("size=64k"));
        nix::mount::mount(Some("none"), &state, Some("tmpfs"), flags, size).unwrap();
        lab.start_containerd();
        lab.start_gateway();
        ready(&lab).await;
        lab.expect(201, Method::POST, SECRETS, r#"{"name":"key","value":"old"}"#).await;
        let large = json!({"name": "key", "value": "x".repeat(1 << 17)}).to_string();
        let refused = lab.expect(500, Method::PUT, SECRETS, &large).await;
        assert!(refused.text.starts_with("secret key needs 132 KiB of the disk, "), "{}", refused.text);
        assert!(refused.text.contains(" free: remove functions"), "{}", refused.text);
        let stored = state.join("secrets/openfaas-fn");
        assert_eq!(std::fs::read_to_string(stored.join("key")).unwrap(), "old");
        assert_eq!(std::fs::read_dir(&stored).unwrap().count(), 1);
        let namespace = json!({"name": "dev", "labels": {"openfaas": "1", "note": "x".repeat(1 << 17)}});
        lab.expect(500, Method::POST, "/system/namespace/", &namespace.to_string()).await;
        let names = lab.expect(200, Method::GET, "/system/namespaces", "").await.json();
        assert_eq!(names, json!(["openfaas-fn"]), "half a namespace was made");
    });
}

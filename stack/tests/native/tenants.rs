//! Namespaces of functions: through the API onto the disk and into containerd, and out of both.

use std::time::{Duration, Instant};

use hyper::Method;
use serde_json::{Value, json};

use super::namespaces::inside;
use super::{IMAGE, PATIENCE, image, ready};
use crate::lab::Lab;

const NAMESPACE: &str = "/system/namespace/";

fn marked(name: &str) -> String {
    json!({"name": name, "labels": {"openfaas": "1"}}).to_string()
}

async fn names(lab: &Lab) -> Value {
    lab.expect(200, Method::GET, "/system/namespaces", "").await.json()
}

#[test]
fn life_of_a_namespace() {
    inside("tenants::life_of_a_namespace", async |mut lab| {
        image(&lab, "one", "here\n");
        lab.start_containerd();
        lab.start_gateway();
        ready(&lab).await;
        refusals(&lab).await;

        let note = "ä\"\n\u{1}\u{1f980}".repeat(5000);
        let made = json!({"name": "dev", "labels": {"openfaas": "1", "team": "farm"},
                          "annotations": {"openfaas": "1", "note": note}});
        lab.expect(201, Method::POST, NAMESPACE, &made.to_string()).await;
        assert_eq!(names(&lab).await, json!(["openfaas-fn", "dev"]));
        let shown = lab.expect(200, Method::GET, "/system/namespace/dev", "").await.json();
        assert_eq!(shown, made, "byte for byte");
        let refused = lab.expect(409, Method::POST, NAMESPACE, &marked("dev")).await;
        assert_eq!(refused.text, "namespace dev already exists");

        // The labels are replaced; a mark among the annotations is as good.
        let changed = json!({"name": "dev", "annotations": {"openfaas": "1"}, "labels": {"team": "barn"}});
        lab.expect(202, Method::PUT, "/system/namespace/dev", &changed.to_string()).await;
        let shown = lab.expect(200, Method::GET, "/system/namespace/dev", "").await.json();
        assert_eq!(shown["labels"], json!({"openfaas": "1", "team": "barn"}));
        lab.expect(202, Method::PUT, "/system/namespaces/dev", &made.to_string()).await;

        // Functions and secrets in it, and nobody takes them away by accident.
        let secret = json!({"name": "key", "namespace": "dev", "value": "hush"}).to_string();
        lab.expect(201, Method::POST, "/system/secrets", &secret).await;
        let body = json!({"service": "f", "image": IMAGE, "namespace": "dev", "secrets": ["key"],
                          "envProcess": "/bin/cat /var/openfaas/secrets/key"});
        lab.expect(200, Method::POST, "/system/functions", &body.to_string()).await;
        assert_eq!(lab.expect(200, Method::GET, "/function/f.dev", "").await.text, "hush");
        lab.expect(404, Method::GET, "/function/f", "").await;
        let refused = lab.expect(409, Method::DELETE, "/system/namespace/dev", &marked("dev")).await;
        assert_eq!(refused.text, "namespace dev has 1 function (f.dev): remove them first");

        // After a start without anything of containerd's: as it was.
        lab.kill_gateway();
        lab.kill_containerd();
        for program in ["/watchdog", crate::lab::SHIM] {
            for pid in lab.processes(program) {
                let pid = nix::unistd::Pid::from_raw(pid);
                let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
                lab.until_ended(pid.as_raw(), PATIENCE).await;
            }
        }
        std::fs::remove_dir_all(lab.folder.join("containerd")).unwrap();
        lab.start_containerd();
        lab.start_gateway();
        ready(&lab).await;
        lab.until("/function/f.dev", "hush", PATIENCE).await;
        assert_eq!(lab.expect(200, Method::GET, "/system/namespace/dev", "").await.json(), made);
        let known = lab.containerd().namespaces().await.unwrap();
        assert!(known.iter().any(|namespace| namespace.name == "dev" && namespace.labels["openfaas"] == "1"));

        // Empty it goes, with its secrets and all that containerd has of it.
        let body = json!({"functionName": "f", "namespace": "dev"}).to_string();
        lab.expect(200, Method::DELETE, "/system/functions", &body).await;
        lab.expect(202, Method::DELETE, "/system/namespaces/dev", r#"{"name":"dev"}"#).await;
        assert_eq!(names(&lab).await, json!(["openfaas-fn"]));
        let known = lab.containerd().namespaces().await.unwrap();
        assert!(!known.iter().any(|namespace| namespace.name == "dev"), "{known:?}");
        assert!(!lab.folder.join("state/secrets/dev").exists());
        assert!(!lab.folder.join("state/namespaces/dev.json").exists());
        assert!(!lab.folder.join("state/functions/dev").exists());
        let gone = lab.expect(404, Method::DELETE, "/system/namespace/dev", "").await;
        assert_eq!(gone.text, "namespace dev not found");
        let refused =
            lab.expect(400, Method::POST, "/system/functions", &deployment_in("dev").to_string()).await;
        assert_eq!(refused.text, "namespace not valid");

        // A new one of its name is empty, works, and stays away once it is removed.
        lab.expect(201, Method::POST, NAMESPACE, &marked("dev")).await;
        let secrets = lab.expect(200, Method::GET, "/system/secrets?namespace=dev", "").await.json();
        assert_eq!(secrets, json!([]));
        lab.expect(200, Method::POST, "/system/functions", &deployment_in("dev").to_string()).await;
        assert_eq!(lab.expect(200, Method::GET, "/function/g.dev", "").await.text, "here\n");
        let body = json!({"functionName": "g", "namespace": "dev"}).to_string();
        lab.expect(200, Method::DELETE, "/system/functions", &body).await;
        lab.expect(202, Method::DELETE, "/system/namespace/dev", "").await;
        // Of files only the layer of the default namespace.
        let folder = lab.folder.join("containerd/io.containerd.snapshotter.v1.overlayfs/snapshots");
        let end = Instant::now() + PATIENCE;
        while std::fs::read_dir(&folder).unwrap().count() != 1 {
            assert!(Instant::now() < end, "in {}: {:?}", folder.display(), std::fs::read_dir(&folder));
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        lab.stop_gateway();
        lab.start_gateway();
        ready(&lab).await;
        assert_eq!(names(&lab).await, json!(["openfaas-fn"]));
        assert_eq!(lab.leftovers().await, Vec::<String>::new());
    });
}

#[test]
fn a_namespace_that_was_just_removed_is_made_again() {
    inside("tenants::a_namespace_that_was_just_removed_is_made_again", async |mut lab| {
        image(&lab, "one", "here\n");
        lab.start_containerd();
        lab.start_gateway();
        ready(&lab).await;
        let body = json!({"functionName": "g", "namespace": "dev"}).to_string();
        for _ in 0..5 {
            lab.expect(201, Method::POST, NAMESPACE, &marked("dev")).await;
            lab.expect(200, Method::POST, "/system/functions", &deployment_in("dev").to_string()).await;
            assert_eq!(lab.expect(200, Method::GET, "/function/g.dev", "").await.text, "here\n");
            lab.expect(200, Method::DELETE, "/system/functions", &body).await;
            lab.expect(202, Method::DELETE, "/system/namespace/dev", "").await;
        }
    });
}

#[test]
fn a_deployment_under_way_counts() {
    inside("tenants::a_deployment_under_way_counts", async |mut lab| {
        image(&lab, "one", "here\n");
        lab.start_containerd();
        lab.start_gateway();
        ready(&lab).await;
        lab.expect(201, Method::POST, NAMESPACE, &marked("dev")).await;
        let secret = json!({"name": "key", "namespace": "dev", "value": "hush"}).to_string();
        lab.expect(201, Method::POST, "/system/secrets", &secret).await;
        let mut slow = deployment_in("dev");
        slow["secrets"] = json!(["key"]);
        slow["annotations"] =
            json!({"com.openfaas.ready.http.path": "/", "com.openfaas.ready.http.initialDelaySeconds": "5"});
        let slow = slow.to_string();
        let deploying = lab.expect(200, Method::POST, "/system/functions", &slow);
        let meanwhile = async {
            // Its process runs, and it is not deployed yet.
            let end = Instant::now() + PATIENCE;
            while lab.processes("/watchdog").is_empty() {
                assert!(Instant::now() < end, "the function does not start");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            let refused = lab.expect(409, Method::DELETE, "/system/namespace/dev", "").await;
            assert_eq!(refused.text, "namespace dev has 1 function (g.dev): remove them first");
            let refused = lab.expect(409, Method::DELETE, "/system/secrets", &secret).await;
            assert_eq!(refused.text, "secret key is needed by what is being deployed (g.dev): try again");
        };
        tokio::join!(deploying, meanwhile);
        assert_eq!(lab.expect(200, Method::GET, "/function/g.dev", "").await.text, "here\n");
        let body = json!({"functionName": "g", "namespace": "dev"}).to_string();
        lab.expect(200, Method::DELETE, "/system/functions", &body).await;
        lab.expect(202, Method::DELETE, "/system/namespace/dev", "").await;
        assert_eq!(lab.leftovers().await, Vec::<String>::new());
    });
}

fn deployment_in(namespace: &str) -> Value {
    json!({"service": "g", "image": IMAGE, "namespace": namespace})
}

async fn refusals(lab: &Lab) {
    // Of others: one that carries the mark is for functions, one that does not is not.
    let containerd = lab.containerd();
    containerd.ensure_namespace("shared").await.unwrap();
    containerd.ensure_namespace("default").await.unwrap();
    containerd.collect("foreign").await.unwrap();
    assert_eq!(names(lab).await, json!(["openfaas-fn", "shared"]));
    let shown = lab.expect(200, Method::GET, "/system/namespace/shared", "").await.json();
    assert_eq!(shown, json!({"name": "shared", "labels": {"openfaas": "1"}}));
    let shown = lab.expect(200, Method::GET, "/system/namespace/openfaas-fn", "").await.json();
    assert_eq!(shown, json!({"name": "openfaas-fn", "labels": {"openfaas": "1"}}));

    let (dev, absent) = (marked("dev"), "namespace absent not found");
    for (method, path, body, status, text) in [
        (Method::GET, "", "", 400, "namespace not specified in URL"),
        (Method::PUT, "", dev.as_str(), 400, "namespace not specified in URL"),
        (Method::DELETE, "", &dev, 400, "namespace not specified in URL"),
        (Method::POST, "", "{", 400, "error parsing request body: EOF"),
        (Method::POST, "", r#"{"labels":{"openfaas":"1"}}"#, 400, "namespace not specified in request body"),
        (Method::POST, "", r#"{"name":"dev"}"#, 400, "request does not have openfaas=1 label"),
        (Method::POST, "other", &dev, 400, "namespace in request body does not match namespace in URL"),
        (Method::POST, "", &marked("A"), 400, "namespace \"A\" is not a name"),
        (Method::POST, "", &marked("../x"), 400, "namespace \"../x\" is not a name"),
        (Method::POST, "", &marked("openfaas"), 400, "namespace \"openfaas\" is reserved"),
        (Method::POST, "", &marked("default"), 400, "namespace \"default\" is reserved"),
        (Method::POST, "", &marked("shims"), 400, "namespace \"shims\" is reserved"),
        (
            Method::POST,
            "",
            &marked("basic-auth-password"),
            400,
            "namespace \"basic-auth-password\" is reserved",
        ),
        (Method::POST, "", &marked("openfaas-fn"), 409, "namespace openfaas-fn already exists"),
        (Method::POST, "", &marked("shared"), 409, "namespace shared already exists"),
        (Method::POST, "", &marked("foreign"), 409, "namespace foreign already exists"),
        (Method::GET, "absent", "", 404, absent),
        (Method::PUT, "absent", &marked("absent"), 404, absent),
        (Method::DELETE, "absent", &marked("absent"), 404, absent),
        (Method::PUT, "dev", &marked("x"), 400, "namespace in request body does not match namespace in URL"),
        (Method::PUT, "dev", "{}", 400, "namespace not specified in request body"),
        (Method::PUT, "dev", r#"{"name":"dev"}"#, 400, "request does not have openfaas=1 label"),
        (Method::DELETE, "dev", "{}", 400, "namespace not specified in request body"),
        (Method::GET, "foreign", "", 400, "namespace foreign is not an openfaas namespace"),
        (Method::PUT, "foreign", &marked("foreign"), 400, "namespace foreign is not an openfaas namespace"),
        (Method::DELETE, "foreign", "", 400, "namespace foreign is not an openfaas namespace"),
        (Method::GET, "default", "", 400, "namespace default is not an openfaas namespace"),
        (
            Method::DELETE,
            "openfaas-fn",
            "",
            400,
            "namespace openfaas-fn is where functions are that name none",
        ),
        (Method::PATCH, "dev", "", 405, ""),
    ] {
        let refused = lab.expect(status, method.clone(), &format!("{NAMESPACE}{path}"), body).await;
        assert!(refused.text.starts_with(text), "{method} {path} {body}: {}", refused.text);
    }
    let refused = lab.expect(400, Method::GET, "/system/functions?namespace=absent", "").await;
    assert_eq!(refused.text, "namespace not valid");
    for (method, path) in [(Method::POST, NAMESPACE), (Method::DELETE, "/system/namespaces/dev")] {
        let refused = lab.ask_with(method, path, &dev, &[]).await.unwrap();
        assert_eq!(refused.status.as_u16(), 401);
    }
    // One of containerd's alone is known to us once it was changed, and can be removed.
    lab.expect(202, Method::PUT, "/system/namespace/shared", &marked("shared")).await;
    lab.expect(202, Method::DELETE, "/system/namespace/shared", &marked("shared")).await;
    assert_eq!(names(lab).await, json!(["openfaas-fn"]));
}

//! What instances leave: nothing, and what could not be cleared away is in nobody's way.

use std::time::{Duration, Instant};

use hyper::Method;
use serde_json::json;

use super::namespaces::inside;
use super::{IMAGE, PATIENCE, deployment, image, ready};

#[test]
fn keeps_no_instance_from_starting() {
    inside("leftover::keeps_no_instance_from_starting", async |mut lab| {
        image(&lab, "one", "here\n");
        lab.start_containerd();
        lab.start_gateway();
        ready(&lab).await;
        // What a cleanup of containerd's leaves that was cut off.
        let bundles = lab.folder.join("run/io.containerd.runtime.v2.task/openfaas-fn");
        std::fs::create_dir_all(bundles.join("f.0")).unwrap();
        lab.expect(200, Method::POST, "/system/functions", &deployment("f", IMAGE)).await;
        assert_eq!(lab.expect(200, Method::GET, "/function/f", "").await.text, "here\n");
        assert!(bundles.join("f.1/config.json").is_file());
        lab.expect(200, Method::DELETE, "/system/functions", r#"{"functionName":"f"}"#).await;
        // Nobody's but containerd's, which looks at its next start.
        std::fs::remove_dir(bundles.join("f.0")).unwrap();
        assert_eq!(lab.leftovers().await, Vec::<String>::new());
    });
}

#[test]
fn nothing_is_left_after_many_lives() {
    inside("leftover::nothing_is_left_after_many_lives", async |mut lab| {
        image(&lab, "one", "here\n");
        lab.start_containerd();
        lab.start_gateway();
        ready(&lab).await;
        let names: Vec<String> = (0..4).map(|number| format!("f{number}")).collect();
        for _ in 0..3 {
            for method in [Method::POST, Method::PUT] {
                let bodies: Vec<_> = names.iter().map(|name| deployment(name, IMAGE)).collect();
                let all =
                    bodies.iter().map(|body| lab.expect(200, method.clone(), "/system/functions", body));
                futures_util::future::join_all(all).await;
            }
            for name in &names {
                lab.expect(200, Method::GET, &format!("/function/{name}"), "").await;
                let body = json!({"functionName": name}).to_string();
                lab.expect(200, Method::DELETE, "/system/functions", &body).await;
            }
            assert_eq!(lab.leftovers().await, Vec::<String>::new());
        }
        // Of files only the image's layer.
        let folder = lab.folder.join("containerd/io.containerd.snapshotter.v1.overlayfs/snapshots");
        let end = Instant::now() + PATIENCE;
        while std::fs::read_dir(&folder).unwrap().count() != 1 {
            assert!(Instant::now() < end, "in {}: {:?}", folder.display(), std::fs::read_dir(&folder));
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
}

//! What an instance left that could not be cleared away.

use hyper::Method;

use super::namespaces::inside;
use super::{IMAGE, deployment, image, ready};

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

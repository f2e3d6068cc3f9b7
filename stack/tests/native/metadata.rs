//! What a deployment says about a function: kept as it came, or refused.

use hyper::Method;
use serde_json::json;

use super::namespaces::inside;
use super::{IMAGE, PATIENCE, image, ready};

#[test]
fn kept_byte_for_byte_or_refused() {
    inside("metadata::kept_byte_for_byte_or_refused", async |mut lab| {
        image(&lab, "one", "here\n");
        lab.start_containerd();
        lab.start_gateway();
        ready(&lab).await;

        let functions = "/system/functions";
        let arch = std::env::consts::ARCH;
        for (constraints, text) in [
            (json!(["node.platform.arch == pdp11"]), "constraints: \"node.platform.arch == pdp11\" not met"),
            (json!(["node.platform.os == linux", "a=b", "gpu"]), "constraints: \"a=b\", \"gpu\" not met"),
            (json!(["node.platform.os != linux"]), "constraints: \"node.platform.os != linux\" not met"),
        ] {
            let body = json!({"service": "f", "image": IMAGE, "constraints": constraints}).to_string();
            let refused = lab.expect(400, Method::POST, functions, &body).await;
            assert!(refused.text.starts_with(text), "{}", refused.text);
        }

        // Every character that JSON knows and some that it writes in two ways; 200 KiB; a key with all that labels of
        // other platforms may not have.
        let odd: String = ('\0'..'\u{3000}').chain(['\u{2028}', '\u{fffd}', '\u{1f980}']).collect();
        let long = "0123456789abcdef".repeat(200 << 6);
        let annotations = json!({"odd": odd, "long": long, odd.clone(): "key", "": "empty", "topic": "a,b"});
        let labels = json!({"odd": odd, "com.openfaas.scale.zero": "true", "long": long});
        let constraints = json!([format!("kubernetes.io/arch={arch}"), "node.platform.os == linux"]);
        let body = json!({"service": "f", "image": IMAGE, "annotations": annotations, "labels": labels,
                          "constraints": constraints, "envVars": {"A": "b=c=d"}});
        lab.expect(200, Method::POST, functions, &body.to_string()).await;
        let mut shown_labels = labels.clone();
        shown_labels["faas_function"] = json!("f");
        for life in 0..2 {
            let list = lab.expect(200, Method::GET, functions, "").await.json();
            let one = lab.expect(200, Method::GET, "/system/function/f", "").await.json();
            for shown in [&list[0], &one] {
                assert!(shown["annotations"] == annotations, "annotations in life {life}");
                assert!(shown["labels"] == shown_labels, "labels in life {life}");
                assert_eq!(shown["constraints"], constraints);
                assert_eq!(shown["envVars"], json!({"A": "b=c=d"}));
            }
            lab.stop_gateway();
            lab.start_gateway();
            ready(&lab).await;
            lab.until("/function/f", "here\n", PATIENCE).await;
        }
        let body = body.to_string();
        lab.expect(200, Method::PUT, functions, &body).await;

        // What was deployed before this machine was asked, or under another hostname, runs on.
        lab.stop_gateway();
        let path = lab.folder.join("state/functions/openfaas-fn/f.json");
        let mut kept: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        kept["constraints"] = json!(["node.platform.arch == pdp11"]);
        std::fs::write(&path, kept.to_string()).unwrap();
        lab.start_gateway();
        ready(&lab).await;
        lab.until("/function/f", "here\n", PATIENCE).await;
        let shown = lab.expect(200, Method::GET, "/system/function/f", "").await.json();
        assert_eq!(shown["constraints"], kept["constraints"]);
        lab.expect(200, Method::DELETE, functions, r#"{"functionName":"f"}"#).await;

        // What the configuration declares is asked the same.
        lab.stop_gateway();
        let text = format!(
            "version = 1\n[functions.here]\nimage = \"{IMAGE}\"\nconstraints = [\"node.platform.arch=={arch}\"]\n\
             [functions.there]\nimage = \"{IMAGE}\"\nconstraints = [\"node.platform.arch == pdp11\"]\n"
        );
        std::fs::write(lab.folder.join("bothy.toml"), text).unwrap();
        lab.start_gateway();
        lab.until("/function/here", "here\n", PATIENCE).await;
        let refused = lab.ask(Method::GET, "/function/there", "").await.unwrap();
        assert_eq!(refused.status.as_u16(), 503, "{}", refused.text);
        for name in ["here", "there"] {
            let body = json!({"functionName": name}).to_string();
            lab.expect(200, Method::DELETE, functions, &body).await;
        }
    });
}

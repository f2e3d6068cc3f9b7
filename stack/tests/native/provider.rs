//! How the provider introduces itself, and what it does when it is told of a load.

use hyper::Method;
use serde_json::json;

use super::namespaces::inside;
use super::{IMAGE, deployment, image, ready};

#[test]
fn alerts_and_names() {
    inside("provider::alerts_and_names", async |mut lab| {
        image(&lab, "one", "here\n");
        lab.start_containerd();
        lab.start_gateway();
        ready(&lab).await;
        lab.expect(200, Method::POST, "/system/functions", &deployment("f", IMAGE)).await;
        let alert = "/system/alert";
        let about = |status: &str, names: &[&str]| {
            let alerts: Vec<_> = names
                .iter()
                .map(|name| json!({"status": status, "labels": {"alertname": "APIHighInvocationRate", "function_name": name}}))
                .collect();
            json!({"status": status, "receiver": "scale-up", "alerts": alerts}).to_string()
        };
        let replicas = async || {
            let shown = lab.expect(200, Method::GET, "/system/function/f", "").await.json();
            shown["replicas"].as_u64().unwrap_or_default()
        };
        // Two alerts about one function are two steps up, and one way down.
        for (status, wanted) in [("firing", 3), ("resolved", 1)] {
            let answer = lab.expect(200, Method::POST, alert, &about(status, &["f", "f.openfaas-fn"])).await;
            assert_eq!((answer.text.as_str(), replicas().await), ("", wanted));
        }
        lab.expect(200, Method::POST, "/system/scale-function/f", r#"{"replicas":0}"#).await;
        assert_eq!(replicas().await, 0);
        lab.expect(200, Method::POST, alert, &about("firing", &["f"])).await;
        assert_eq!(replicas().await, 1);
        assert_eq!(lab.expect(200, Method::GET, "/function/f", "").await.text, "here\n");
        let least = json!({"service": "f", "image": IMAGE, "labels": {"com.openfaas.scale.min": "0"}});
        lab.expect(200, Method::PUT, "/system/functions", &least.to_string()).await;
        lab.expect(200, Method::POST, alert, &about("resolved", &["f"])).await;
        assert_eq!(replicas().await, 0);

        let refused = lab.expect(500, Method::POST, alert, &about("firing", &["gone", "f", "A b", ""])).await;
        let expected = "[0] function gone.openfaas-fn not found\n[2] function_name \"A b\" names no function\n\
                        [3] function_name \"\" names no function";
        assert_eq!((refused.text.as_str(), replicas().await), (expected, 1));
        lab.expect(200, Method::POST, alert, r#"{"status":"firing","receiver":"x","alerts":null}"#).await;
        for bad in ["", "{", "7", r#"{"alerts":{}}"#] {
            let refused = lab.expect(400, Method::POST, alert, bad).await;
            assert_eq!(refused.text, "Unable to parse alert, bad format.", "{bad}");
        }
        let refused = lab.ask_with(Method::POST, alert, &about("firing", &["f"]), &[]).await.unwrap();
        assert_eq!(refused.status.as_u16(), 401);
        lab.expect(405, Method::GET, alert, "").await;
        lab.expect(200, Method::DELETE, "/system/functions", r#"{"functionName":"f"}"#).await;

        lab.expect(404, Method::GET, "/system/telemetry", "").await;
        let info = lab.expect(200, Method::GET, "/system/info", "").await.json();
        assert_eq!(info["provider"]["provider"], "bothy");

        // Under the other's name a secret may be made twice, as there.
        lab.stop_gateway();
        let text = "version = 1\n[gateway]\nprovider_name = \"faasd\"\n";
        std::fs::write(lab.folder.join("bothy.toml"), text).unwrap();
        lab.start_gateway();
        ready(&lab).await;
        let info = lab.expect(200, Method::GET, "/system/info", "").await.json();
        assert_eq!(info["provider"]["provider"], "faasd");
        assert_eq!(info["provider"]["orchestration"], "containerd");
        for (status, method, body) in [
            (201, Method::POST, r#"{"name":"key","value":"1"}"#),
            (200, Method::POST, r#"{"name":"key","value":"2"}"#),
            (200, Method::PUT, r#"{"name":"key","value":"3"}"#),
            (200, Method::DELETE, r#"{"name":"key"}"#),
            (200, Method::PUT, r#"{"name":"key","value":"4"}"#),
            (200, Method::DELETE, r#"{"name":"key"}"#),
        ] {
            lab.expect(status, method, "/system/secrets", body).await;
        }
        assert_eq!(lab.leftovers().await, Vec::<String>::new());
    });
}

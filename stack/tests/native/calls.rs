//! Calls, and what functions say.

use hyper::Method;
use serde_json::json;

use super::namespaces::inside;
use super::{IMAGE, PATIENCE, image, ready};

#[test]
fn calls_and_output() {
    inside("calls::calls_and_output", async |mut lab| {
        image(&lab, "one", "here\n");
        let journal = std::os::unix::net::UnixDatagram::bind(lab.folder.join("journal")).unwrap();
        journal.set_read_timeout(Some(PATIENCE)).unwrap();
        lab.start_containerd();
        lab.start_gateway();
        ready(&lab).await;
        // Started without a log service: its first lines wait for one.
        let body = json!({"service": "talk", "image": IMAGE, "envProcess": "/bin/sh", "envVars": {"prefix_logs": "false"}});
        lab.expect(200, Method::POST, "/system/functions", &body.to_string()).await;
        lab.expect(200, Method::POST, "/function/talk", "echo some words >&2; echo answer").await;
        lab.start_log();
        let mut bytes = vec![0; 1 << 16];
        // In their order: what the watchdog says as it starts, then what the program said.
        for words in ["process /bin/sh\n", "some words\n"] {
            let n = journal.recv(&mut bytes).unwrap();
            let entry = String::from_utf8_lossy(&bytes[..n]).into_owned();
            for part in [words, "SYSLOG_IDENTIFIER=openfaas-fn:talk\n", "BOTHY_STREAM=err\n", "PRIORITY=3\n"]
            {
                assert!(entry.contains(part), "{part}: {entry}");
            }
        }

        let body = json!({"service": "echo", "image": IMAGE, "envProcess": "/bin/cat"}).to_string();
        lab.expect(200, Method::POST, "/system/functions", &body).await;
        let large = "0123456789abcdef".repeat(1 << 20);
        let answer = lab.expect(200, Method::POST, "/function/echo", &large).await;
        assert!(answer.text == large, "{} of {} bytes came back", answer.text.len(), large.len());
        let env = json!({"service": "env", "image": IMAGE, "envProcess": "/usr/bin/env"}).to_string();
        lab.expect(200, Method::POST, "/system/functions", &env).await;
        let headers =
            [("x-call-id", "mine"), ("connection", "x-hop"), ("x-hop", "1"), ("authorization", "Bearer t")];
        let answer = lab.ask_with(Method::GET, "/function/env", "", &headers).await.unwrap();
        assert_eq!(answer.headers["x-call-id"], "mine");
        for line in ["Http_X_Call_Id=mine", "Http_X_Forwarded_Host=bothy", "Http_Authorization=Bearer t"] {
            assert!(answer.text.lines().any(|l| l == line), "{line}: {}", answer.text);
        }
        assert!(answer.text.contains("Http_X_Forwarded_For=127.0.0.1:"), "{}", answer.text);
        assert!(!answer.text.contains("Http_X_Hop"), "{}", answer.text);
        for (method, path, status) in [
            (Method::TRACE, "/function/env", 405),
            (Method::GET, "/nothing", 404),
            (Method::POST, "/healthz", 405),
            (Method::GET, "/system//info", 301),
            (Method::GET, "/", 307),
        ] {
            lab.expect(status, method, path, "").await;
        }
        // The page for people, and what a page of somebody else's gets.
        let page = lab.expect(200, Method::GET, "/ui/", "").await;
        assert_eq!(page.headers["content-type"], "text/html; charset=utf-8");
        assert!(page.text.contains(">env.openfaas-fn</a></td>"), "{}", page.text);
        let stranger = lab.ask_with(Method::GET, "/ui/", "", &[]).await.unwrap();
        assert_eq!(stranger.status, 401);
        assert_eq!(stranger.headers["www-authenticate"], "Basic realm=\"Functions\"");
        let scale = "/system/scale-function/env";
        let basic = ("authorization", crate::lab::BASIC);
        for (mark, status) in [
            (("origin", "http://evil.example"), 403),
            (("origin", "null"), 403),
            (("sec-fetch-site", "same-origin"), 403),
            (("user-agent", "curl"), 200),
        ] {
            let answer =
                lab.ask_with(Method::POST, scale, r#"{"replicas":1}"#, &[basic, mark]).await.unwrap();
            assert_eq!(answer.status.as_u16(), status, "{mark:?}: {}", answer.text);
            lab.ask_with(Method::GET, "/system/functions", "", &[basic, mark]).await.unwrap().json();
        }
        // The administrator's password stays here.
        let answer = lab.ask_with(Method::GET, "/function/env", "", &[basic]).await.unwrap();
        assert_eq!(answer.status, 200);
        assert!(!answer.text.contains("Authorization"), "{}", answer.text);
        let info = lab.expect(200, Method::GET, "/system/info", "").await.json();
        assert_eq!(
            (&info["provider"]["provider"], &info["provider"]["orchestration"]),
            (&json!("bothy"), &json!("containerd"))
        );
        assert_eq!(
            lab.expect(200, Method::GET, "/system/namespaces", "").await.json(),
            json!(["openfaas-fn"])
        );
        for name in ["talk", "echo", "env"] {
            let body = json!({"functionName": name}).to_string();
            lab.expect(200, Method::DELETE, "/system/functions", &body).await;
        }
        assert_eq!(lab.leftovers().await, Vec::<String>::new());
    });
}

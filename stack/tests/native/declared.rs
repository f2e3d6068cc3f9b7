//! Functions that the configuration declares.

use std::fs;

use hyper::Method;
use serde_json::json;

use crate::namespaces::inside;
use crate::{IMAGE, PATIENCE, image};

#[test]
fn labels_of_the_configuration_count() {
    inside("declared::labels_of_the_configuration_count", async |mut lab| {
        image(&lab, "one", "here\n");
        let path = lab.folder.join("notify");
        let notices = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
        notices.set_read_timeout(Some(PATIENCE)).unwrap();
        lab.notify = Some(path);
        let text = format!(
            "version = 1\n[functions.f]\nimage = \"{IMAGE}\"\n[functions.f.labels]\n\
             \"com.openfaas.scale.min\" = \"2\"\n[functions.wrong]\nimage = \"{IMAGE}\"\n[functions.wrong.labels]\n\
             \"com.openfaas.scale.max\" = \"many\"\n"
        );
        fs::write(lab.folder.join("bothy.toml"), text).unwrap();
        lab.start_containerd();
        lab.start_gateway();
        lab.until_listening().await;
        lab.until_available("f", 2).await;
        lab.until("/function/wrong", "here\n", PATIENCE).await;
        let wrong =
            "label com.openfaas.scale.max: \"many\" is not a number from 0 to 1000: it runs without that";
        let mut bytes = vec![0; 4096];
        loop {
            let count = notices.recv(&mut bytes).expect("a notice");
            if String::from_utf8_lossy(&bytes[..count])
                .contains(&format!("function wrong.openfaas-fn: {wrong}"))
            {
                break;
            }
        }
        assert!(lab.gateway_log().contains(&format!("wrong.openfaas-fn: {wrong}")));
        // A version that is right takes the notice back.
        let body = json!({"service": "wrong", "image": IMAGE}).to_string();
        lab.expect(200, Method::PUT, "/system/functions", &body).await;
        loop {
            let count = notices.recv(&mut bytes).expect("it is taken back");
            let told = String::from_utf8_lossy(&bytes[..count]).into_owned();
            if told.starts_with("X_NOTICE=") && !told.contains("many") {
                break;
            }
        }
        for name in ["f", "wrong"] {
            let body = json!({"functionName": name}).to_string();
            lab.expect(200, Method::DELETE, "/system/functions", &body).await;
        }
    });
}

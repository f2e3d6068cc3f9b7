//! What a function sees of the machine, and what it may not do there, as its own processes find it.

use hyper::Method;
use serde_json::json;

use super::namespaces::inside;
use super::{IMAGE, image, layout, ready};

#[test]
fn functions_are_kept_apart() {
    inside("isolation::functions_are_kept_apart", async |mut lab| {
        image(&lab, "one", "here\n");
        layout::write_as("root", &lab.folder.join("images/root"), "localhost/root:latest", "here\n", "amd64");
        lab.start_containerd();
        lab.start_gateway();
        ready(&lab).await;
        for (name, image, user) in [("plain", IMAGE, "1000"), ("root", "localhost/root:latest", "0")] {
            let body = json!({"service": name, "image": image, "envProcess": "/bin/sh",
                              "envVars": {"combine_output": "true", "mode": "classic"}});
            lab.expect(200, Method::POST, "/system/functions", &body.to_string()).await;
            let path = format!("/function/{name}");
            let run = async |script: &str| {
                let answer = lab.ask(Method::POST, &path, &format!("exec 2>&1; {script}; true")).await;
                answer.unwrap().text
            };
            let status = run("cat /proc/self/status").await;
            let field = |name: &str| {
                let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
                line.unwrap_or_else(|| panic!("no {name}: {status}")).split_whitespace().next().unwrap_or("")
            };
            assert_eq!(field("Uid"), user);
            for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
                assert_eq!(field(set), "0000000000000000", "{name}: {set}");
            }
            assert_eq!((field("NoNewPrivs"), field("Seccomp")), ("1", "2"), "{name}");
            // Its own processes, and nobody else's.
            let processes = run("cd /proc; echo [0-9]*; cat /proc/1/comm").await;
            let words: Vec<_> = processes.split_whitespace().collect();
            assert!(words.len() <= 5 && words.last() == Some(&"watchdog"), "{name}: {processes}");
            // What everybody may ask the kernel for outside.
            for (script, refused) in [
                ("unshare --user /bin/cat /answer", "Operation not permitted"),
                ("unshare --net /bin/cat /answer", "Operation not permitted"),
                ("echo x > /proc/sys/kernel/hostname", "Read-only file system"),
                ("echo x > /proc/sys/kernel/core_pattern", "Read-only file system"),
                ("echo x > /sys/kernel/uevent_seqnum", "Read-only file system"),
            ] {
                let said = run(script).await;
                assert!(said.contains(refused) && !said.contains("here"), "{name}: {script}: {said}");
            }
            for masked in ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware/*"] {
                let script = format!("cat {masked} | (read -r word; echo \"[$word]\")");
                let said = run(&script).await;
                // Empty, or a folder without anything in it.
                assert!(said.ends_with("[]\n") && !said.contains("denied"), "{name}: {masked}: {said}");
            }
            let links = run("cat /proc/net/dev").await;
            let links: Vec<_> =
                links.lines().filter_map(|line| Some(line.split_once(':')?.0.trim())).collect();
            assert_eq!(links, ["lo", "eth0"], "{name}");
            lab.expect(200, Method::DELETE, "/system/functions", &json!({"functionName": name}).to_string())
                .await;
        }
        // Read-only, with a place for what is in between.
        let body = json!({"service": "fixed", "image": IMAGE, "envProcess": "/bin/sh", "readOnlyRootFilesystem": true,
                          "envVars": {"mode": "classic"}});
        lab.expect(200, Method::POST, "/system/functions", &body.to_string()).await;
        let script = "exec 2>&1; echo x > /tmp/x && cat /tmp/x; echo y > /answer; true";
        let said = lab.expect(200, Method::POST, "/function/fixed", script).await.text;
        assert!(said.starts_with("x\n") && said.contains("Read-only file system"), "{said}");
        lab.expect(200, Method::DELETE, "/system/functions", r#"{"functionName":"fixed"}"#).await;
        assert_eq!(lab.leftovers().await, Vec::<String>::new());
    });
}

//! The whole stack against a real containerd, as root, in network, mount and process namespaces of its own: nothing
//! of the host is changed, and everything ends with the test.

mod answer;
mod calls;
mod chaos;
mod client;
mod cluster;
mod collecting;
mod crowd;
mod cycles;
mod daemons;
mod declared;
mod ear;
mod exits;
mod faults;
mod health;
mod invocation;
mod isolation;
mod lab;
mod layout;
mod leftover;
mod line;
mod logs;
mod long;
mod losses;
mod metadata;
mod metrics;
mod names;
mod namespaces;
mod peer;
mod policies;
mod provider;
mod pull;
mod pulling;
mod queue;
mod reach;
mod refusals;
mod registry;
mod remains;
mod resting;
mod said;
mod scaler;
mod scaling;
mod secrets;
mod small_disk;
mod sockets;
mod stand_in;
mod states;
mod tenants;
mod tls;
mod tokens;
mod wire;

use std::path::Path;
use std::time::Duration;

use hyper::Method;
use lab::{Lab, SHIM};
use namespaces::inside;
use serde_json::json;

const IMAGE: &str = "localhost/one:latest";
const PATIENCE: Duration = Duration::from_secs(30);

fn image(lab: &Lab, name: &str, answer: &str) {
    layout::write(
        &lab.folder.join("images").join(name),
        &format!("localhost/{name}:latest"),
        answer,
        "amd64",
    );
}

fn deployment(name: &str, image: &str) -> String {
    json!({"service": name, "image": image}).to_string()
}

async fn ready(lab: &Lab) {
    lab.until("/healthz", "", PATIENCE).await;
}

#[test]
fn life_of_a_function() {
    inside("life_of_a_function", async |mut lab| {
        image(&lab, "one", "first\n");
        image(&lab, "two", "second\n");
        lab.start_gateway();
        lab.start_containerd();
        ready(&lab).await;

        lab.expect(404, Method::POST, "/function/figlet", "").await;
        lab.expect(200, Method::POST, "/system/functions", &deployment("figlet", IMAGE)).await;
        let answer = lab.expect(200, Method::POST, "/function/figlet", "x").await;
        assert_eq!(answer.text, "first\n");
        for header in ["x-call-id", "x-start-time", "x-served-by", "x-duration-seconds"] {
            assert!(answer.headers.contains_key(header), "{header}");
        }
        let list = lab.expect(200, Method::GET, "/system/functions", "").await.json();
        assert_eq!(list[0]["name"], "figlet");
        assert_eq!(list[0]["image"], IMAGE);
        assert_eq!(list[0]["availableReplicas"], 1);
        assert_eq!(list[0]["invocationCount"], 1);
        lab.expect(400, Method::POST, "/system/functions", &deployment("figlet", IMAGE)).await;
        lab.expect(200, Method::GET, "/system/function/figlet", "").await;

        lab.expect(404, Method::PUT, "/system/functions", &deployment("other", IMAGE)).await;
        lab.expect(200, Method::PUT, "/system/functions", &deployment("figlet", "localhost/two")).await;
        assert_eq!(lab.expect(200, Method::GET, "/function/figlet.openfaas-fn", "").await.text, "second\n");
        // An update that cannot be done changes nothing.
        let broken = json!({"service": "figlet", "image": IMAGE, "envProcess": "/bin/cat", "envVars": {"mode": "none"}});
        let refused = lab.expect(400, Method::PUT, "/system/functions", &broken.to_string()).await;
        assert!(refused.text.contains("ended with status 2"), "{}", refused.text);
        assert_eq!(lab.expect(200, Method::GET, "/function/figlet", "").await.text, "second\n");

        lab.expect(200, Method::POST, "/system/scale-function/figlet", r#"{"replicas":0}"#).await;
        assert_eq!(lab.processes("/watchdog"), Vec::<i32>::new());
        assert_eq!(lab.expect(200, Method::GET, "/function/figlet", "").await.text, "second\n");

        lab.expect(200, Method::DELETE, "/system/functions", r#"{"functionName":"figlet"}"#).await;
        lab.expect(404, Method::DELETE, "/system/functions", r#"{"functionName":"figlet"}"#).await;
        lab.expect(404, Method::GET, "/function/figlet", "").await;
        assert_eq!(lab.leftovers().await, Vec::<String>::new());
        let (status, taken) = lab.stop_gateway();
        assert_eq!(status, Some(0));
        assert!(taken < Duration::from_secs(3), "{taken:?}");
    });
}

#[test]
fn what_dies_comes_back() {
    inside("what_dies_comes_back", async |mut lab| {
        image(&lab, "one", "here\n");
        lab.start_containerd();
        lab.start_gateway();
        ready(&lab).await;
        lab.expect(200, Method::POST, "/system/functions", &deployment("f", IMAGE)).await;
        let process = lab.processes("/watchdog");
        assert_eq!(process.len(), 1);

        // The function: a new process, and calls that wait for it instead of failing.
        let pid = nix::unistd::Pid::from_raw(process[0]);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
        lab.until("/function/f", "here\n", PATIENCE).await;
        let process = lab.processes("/watchdog");
        assert!(process.len() == 1 && process[0] != pid.as_raw(), "{process:?}");

        // The gateway: the next one adopts what runs.
        let began = std::time::Instant::now();
        lab.kill_gateway();
        lab.start_gateway();
        lab.until("/function/f", "here\n", PATIENCE).await;
        println!("gateway killed: the function answers again after {:?}", began.elapsed());
        assert_eq!(lab.processes("/watchdog"), process);

        // containerd: calls go on meanwhile, and the function is the same afterwards.
        lab.kill_containerd();
        lab.expect(200, Method::GET, "/function/f", "").await;
        lab.expect(502, Method::GET, "/healthz", "").await;
        lab.start_containerd();
        ready(&lab).await;
        lab.expect(200, Method::GET, "/function/f", "").await;
        assert_eq!(lab.processes("/watchdog"), process);

        // The shim: nothing of its function stays, and the next one has a shim of its own.
        let shim = lab::parent(process[0]).unwrap();
        assert!(lab.processes(SHIM).contains(&shim));
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(shim), nix::sys::signal::Signal::SIGKILL).unwrap();
        lab.until_ended(process[0], PATIENCE).await;
        lab.until("/function/f", "here\n", PATIENCE).await;
        let process = lab.processes("/watchdog");
        assert_eq!(process.len(), 1);
        assert!(lab.processes(SHIM).contains(&lab::parent(process[0]).unwrap()));

        // Both, and the function with them, as after a power cut that also took what was in the disk's memory.
        lab.kill_gateway();
        lab.kill_containerd();
        let blobs = lab.folder.join("containerd/io.containerd.content.v1.content/blobs/sha256");
        for (number, blob) in std::fs::read_dir(blobs).unwrap().flatten().enumerate() {
            match number {
                0 => std::fs::remove_file(blob.path()).unwrap(),
                _ => {
                    let zeroes = vec![0; usize::try_from(blob.metadata().unwrap().len()).unwrap()];
                    std::fs::set_permissions(
                        blob.path(),
                        std::os::unix::fs::PermissionsExt::from_mode(0o600),
                    )
                    .unwrap();
                    std::fs::write(blob.path(), zeroes).unwrap();
                }
            }
        }
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(process[0]), nix::sys::signal::Signal::SIGKILL)
            .unwrap();
        lab.start_containerd();
        lab.start_gateway();
        lab.until("/function/f", "here\n", PATIENCE).await;
        lab.expect(200, Method::DELETE, "/system/functions", r#"{"functionName":"f"}"#).await;
        assert_eq!(lab.leftovers().await, Vec::<String>::new());
    });
}

#[test]
fn declared_functions_and_former_lives() {
    inside("declared_functions_and_former_lives", async |mut lab| {
        image(&lab, "one", "here\n");
        let declare = |lab: &Lab, extra: &str| {
            let text = format!("version = 1\n[functions.f]\nimage = \"{IMAGE}\"\n{extra}");
            std::fs::write(lab.folder.join("bothy.toml"), text).unwrap();
        };
        declare(&lab, "");
        // Left by somebody who was killed at the worst moment.
        std::fs::create_dir_all(lab.folder.join("netns")).unwrap();
        std::fs::create_dir_all(lab.folder.join("fifo")).unwrap();
        for path in ["netns/openfaas-fn.gone.0", "fifo/openfaas-fn.gone.0.out"] {
            std::fs::write(lab.folder.join(path), "").unwrap();
        }
        // And what nobody can remove so: it must not be in anybody's way.
        for path in ["netns/openfaas-fn.stuck.0", "fifo/openfaas-fn.stuck.0.out"] {
            std::fs::create_dir_all(lab.folder.join(path)).unwrap();
        }
        lab.start_containerd();
        lab.start_gateway();
        lab.until("/function/f", "here\n", PATIENCE).await;
        assert!(!lab.folder.join("netns/openfaas-fn.gone.0").exists());
        assert!(!lab.folder.join("fifo/openfaas-fn.gone.0.out").exists());

        // Deleted through the API it stays deleted, until its entry changes.
        lab.expect(200, Method::DELETE, "/system/functions", r#"{"functionName":"f"}"#).await;
        lab.stop_gateway();
        lab.start_gateway();
        ready(&lab).await;
        lab.expect(404, Method::GET, "/function/f", "").await;
        lab.stop_gateway();
        declare(&lab, "env_process = \"/bin/cat /etc/hostname\"\n");
        lab.start_gateway();
        lab.until("/healthz", "", PATIENCE).await;
        let answer = lab.ask(Method::GET, "/function/f", "").await.unwrap();
        assert_eq!(answer.status, 500, "no such file: the function's own failure ({})", answer.text);
        lab.expect(200, Method::DELETE, "/system/functions", r#"{"functionName":"f"}"#).await;
    });
}

#[test]
fn refusals_and_surroundings() {
    inside("refusals_and_surroundings", async |mut lab| {
        image(&lab, "one", "here\n");
        layout::write(&lab.folder.join("images/far"), "localhost/far:latest", "", "s390x");
        std::fs::create_dir_all(lab.folder.join("state/secrets/openfaas-fn")).unwrap();
        std::fs::write(lab.folder.join("state/secrets/openfaas-fn/key"), "hush").unwrap();
        lab.start_containerd();
        lab.start_gateway();
        ready(&lab).await;
        for (body, part) in [
            ("{", "EOF"),
            (r#"{"service":"A b","image":"a"}"#, "no function name"),
            (r#"{"service":"a","image":"a","namespace":"nowhere"}"#, "namespace not valid"),
            (
                r#"{"service":"a","image":"localhost/one","secrets":["absent"]}"#,
                "unable to find secret: absent",
            ),
            (r#"{"service":"a","image":"localhost/one","limits":{"memory":"much"}}"#, "memory"),
            (r#"{"service":"a","image":"not an image"}"#, "no image reference"),
            (
                r#"{"service":"a","image":"nobody/knows:1"}"#,
                "cannot pull: registry docker.io: ask for nobody/knows:1: cannot connect to registry-1.docker.io",
            ),
            (r#"{"service":"a","image":"localhost/far"}"#, "linux/s390x"),
            (
                r#"{"service":"a","image":"localhost/far"}"#,
                &format!("linux/{}", if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }),
            ),
        ] {
            let refused = lab.expect(400, Method::POST, "/system/functions", body).await;
            assert!(refused.text.contains(part), "{body}: {}", refused.text);
        }
        for headers in [&[][..], &[("authorization", "Basic eDp5")]] {
            let refused = lab.ask_with(Method::GET, "/system/functions", "", headers).await.unwrap();
            assert_eq!((refused.status.as_u16(), refused.text.as_str()), (401, "invalid credentials"));
            assert_eq!(refused.headers["www-authenticate"], "Basic realm=\"Restricted\"");
        }
        // The machine's own business: not without the password, not from a stranger's web page, and here is no
        // supervisor.
        let (basic, typed) = (("authorization", lab::BASIC), ("content-type", "application/json"));
        for (headers, status) in [(&[typed][..], 401), (&[basic], 415), (&[basic, typed], 503)] {
            let body = r#"{"command":"status"}"#;
            let refused = lab.ask_with(Method::POST, "/system/machine", body, headers).await.unwrap();
            assert_eq!(refused.status.as_u16(), status, "{headers:?}: {}", refused.text);
        }
        assert_eq!(lab.leftovers().await, Vec::<String>::new());

        let body = json!({"service": "env", "image": IMAGE, "envProcess": "/bin/sh -c", "secrets": ["key"],
                          "readOnlyRootFilesystem": true, "envVars": {"FROM_REQUEST": "a=b", "fprocess": "/bin/sh"}});
        lab.expect(200, Method::POST, "/system/functions", &body.to_string()).await;
        let script = "id -u; echo $FROM_IMAGE $FROM_REQUEST $Http_Method $Http_Query; cat /var/openfaas/secrets/key; \
                      echo; cat /etc/hosts; echo x >/tmp/x && cat /tmp/x; echo y >/y; echo end";
        let answer = lab.expect(200, Method::PUT, "/function/env/a%2Fb?q=1", script).await;
        assert!(
            answer.text.starts_with("1000\n1 a=b PUT q=1\nhush\n127.0.0.1 localhost\n"),
            "{}",
            answer.text
        );
        for names in ["gateway gateway.openfaas", "nats nats.openfaas", "prometheus prometheus.openfaas"] {
            assert!(answer.text.contains(&format!("10.62.0.1 {names}\n")), "{}", answer.text);
        }
        assert!(answer.text.ends_with("x\nend\n"), "the root is read-only, /tmp is not: {}", answer.text);
        // The network comes later than the function.
        std::fs::write(lab.folder.join("resolv.conf"), "nameserver 192.0.2.53\n").unwrap();
        tokio::time::sleep(Duration::from_secs(3)).await;
        let answer = lab.expect(200, Method::POST, "/function/env", "cat /etc/resolv.conf").await;
        assert_eq!(answer.text, "nameserver 192.0.2.53\n");
        lab.expect(200, Method::DELETE, "/system/functions", r#"{"functionName":"env"}"#).await;
        assert_eq!(lab.leftovers().await, Vec::<String>::new());
    });
}

#[test]
fn what_does_not_fit_is_refused() {
    inside("what_does_not_fit_is_refused", async |mut lab| {
        image(&lab, "one", "here\n");
        let state = lab.folder.join("state");
        std::fs::create_dir(&state).unwrap();
        let sized = |flags, size| nix::mount::mount(Some("none"), &state, Some("tmpfs"), flags, Some(size));
        sized(nix::mount::MsFlags::empty(), "size=64k").unwrap();
        lab.start_containerd();
        lab.start_gateway();
        ready(&lab).await;
        let refused = lab.expect(400, Method::POST, "/system/functions", &deployment("f", IMAGE)).await;
        assert!(refused.text.contains("0 MiB are free: remove functions"), "{}", refused.text);
        assert_eq!(lab.leftovers().await, Vec::<String>::new());
        let blobs = lab.folder.join("containerd/io.containerd.content.v1.content/blobs/sha256");
        assert!(!blobs.exists(), "something of the image was stored");
        sized(nix::mount::MsFlags::MS_REMOUNT, "size=1g").unwrap();
        lab.expect(200, Method::POST, "/system/functions", &deployment("f", IMAGE)).await;
        lab.expect(200, Method::DELETE, "/system/functions", r#"{"functionName":"f"}"#).await;
    });
}

#[test]
fn functions_reach_the_gateway_and_nothing_else_of_the_machine() {
    inside("functions_reach_the_gateway_and_nothing_else_of_the_machine", async |mut lab| {
        // The appliance's bridge does not ask the firewall; the host's may. Seen by this network namespace alone.
        let asks = Path::new("/proc/sys/net/bridge/bridge-nf-call-iptables");
        if asks.exists() {
            std::fs::write(asks, "0").unwrap();
        }
        image(&lab, "one", "here\n");
        lab.start_containerd();
        lab.start_gateway();
        ready(&lab).await;
        // The first address of a fresh machine: 10.62.0.2.
        lab.expect(200, Method::POST, "/system/functions", &deployment("neighbour", IMAGE)).await;
        let machine = tokio::net::TcpListener::bind("10.62.0.1:9999").await.unwrap();
        // A watchdog that passes calls on to an address is ready when it gets through.
        let through = |name: &str, address: &str| {
            let variables = json!({"mode": "http", "upstream_url": format!("http://{address}")});
            json!({"service": name, "image": IMAGE, "envProcess": "/bin/sleep 1000", "envVars": variables})
                .to_string()
        };
        let gateway = through("gateway", "10.62.0.1:8080");
        lab.expect(200, Method::POST, "/system/functions", &gateway).await;
        lab.expect(200, Method::GET, "/function/gateway/healthz", "").await;
        let (machine_body, neighbour_body) =
            (through("machine", "10.62.0.1:9999"), through("other", "10.62.0.2:8080"));
        let (one, two) = tokio::join!(
            lab.expect(400, Method::POST, "/system/functions", &machine_body),
            lab.expect(400, Method::POST, "/system/functions", &neighbour_body),
        );
        for refused in [one, two] {
            assert!(refused.text.contains("not ready after"), "{}", refused.text);
        }
        drop(machine);
    });
}

/// Fails with the reason, instead of passing over the tests above, where the programs are missing.
#[test]
fn the_programs_are_there() {
    let root = std::env::var_os("BOTHY_ROOTFS").expect("BOTHY_ROOTFS is not set: use `cargo bothy test`");
    for program in [
        "usr/bin/containerd",
        "usr/bin/crun",
        "usr/sbin/nats-server",
        "usr/sbin/nft",
        "usr/bin/journalctl",
        "usr/lib/systemd/systemd-journald",
    ] {
        let path = Path::new(&root).join(program);
        assert!(path.exists(), "{} is missing", path.display());
    }
}

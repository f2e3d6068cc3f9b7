//! What only root may do: `bothy test` starts tests of a module of this name through sudo.

use super::*;
use crate::service::capability::Capability;

async fn status(scene: &Scene, runner: Runner) -> String {
    let name = runner.declaration.name;
    let task = tokio::task::spawn_local(runner.run(scene.stop.subscribe()));
    scene.until(name, State::Ready).await;
    let pid = scene.of(name).pid.unwrap();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    scene.stop.send_replace(true);
    task.await.unwrap();
    status
}

#[test]
fn root_keeps_what_is_listed() {
    local(async {
        let scene = Scene::new();
        let (_listener, ready) = port();
        let mut runner = scene.runner("meek", TCP_COMMAND, ready);
        runner.declaration.rights = Rights::Only(&[Capability::Chown, Capability::Syslog]);
        let status = status(&scene, runner).await;
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert!(status.contains(&format!("{set}:\t0000000400000001\n")), "{status}");
        }
        assert!(status.contains("NoNewPrivs:\t1"), "{status}");
    });
}

#[test]
fn a_user_has_nothing_but_what_is_listed() {
    for (rights, bits) in [(&[][..], "0000000000000000"), (&[Capability::NetRaw], "0000000000002000")] {
        local(async {
            let scene = Scene::new();
            let (_listener, ready) = port();
            let mut runner = scene.runner("user", TCP_COMMAND, ready);
            (runner.declaration.user, runner.declaration.group) = (900, 901);
            runner.declaration.rights = Rights::Only(rights);
            let status = status(&scene, runner).await;
            for line in ["Uid:\t900\t900\t900\t900", "Gid:\t901\t901\t901\t901", "Groups:\t \n"] {
                assert!(status.contains(line), "{line}: {status}");
            }
            for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
                assert!(status.contains(&format!("{set}:\t{bits}\n")), "{status}");
            }
        });
    }
}

#[test]
fn a_sandbox_hides_and_protects() {
    local(async {
        let scene = Scene::new();
        let folder = scene.folder.path();
        let at = |name: &str| folder.join(name).display().to_string();
        for name in ["open", "shut", "secret"] {
            std::fs::create_dir_all(at(name)).unwrap();
            std::fs::write(at(&format!("{name}/file")), "text").unwrap();
        }
        // Writes where it may and tries where it may not; says what it sees.
        let script = format!(
            "cd {}; echo new > open/new; echo no > shut/new; ls secret > open/secret 2>&1; ls /tmp > open/tmp; \
             echo mine > /tmp/mine; exec sleep 600",
            folder.display()
        );
        let script: &'static str = script.leak();
        let (open, secret): (&'static str, &'static str) = (at("open").leak(), at("secret").leak());
        let (_listener, ready) = port();
        let command: &'static [&'static str] = vec!["/bin/sh", "-c", script].leak();
        let mut runner = scene.runner("boxed", command, ready);
        runner.declaration.rights = Rights::Only(&[]);
        runner.declaration.sandbox = Sandbox::Folders {
            writable: vec![open].leak(),
            hidden: vec![secret, "/nonexistent/folder"].leak(),
            private_tmp: false,
        };
        let task = tokio::task::spawn_local(runner.run(scene.stop.subscribe()));
        let pid = async {
            scene.until("boxed", State::Ready).await;
            let pid = scene.of("boxed").pid.unwrap();
            let line = format!("/proc/{pid}/cmdline");
            while !std::fs::read(&line).unwrap().starts_with(b"sleep") {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            pid
        };
        let pid = tokio::time::timeout(SHORT, pid).await.unwrap();
        assert!(Path::new(&at("open/new")).exists() && !Path::new(&at("shut/new")).exists());
        let seen = std::fs::read_to_string(at("open/secret")).unwrap();
        assert!(seen.contains("Permission denied"), "{seen}");
        assert_eq!(std::fs::read_to_string(at("secret/file")).unwrap(), "text");
        let mounts = std::fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
        let root = mounts.lines().find(|line| line.split(' ').nth(4) == Some("/")).unwrap();
        assert!(root.split(' ').nth(5).unwrap().starts_with("ro"), "{root}");
        scene.stop.send_replace(true);
        task.await.unwrap();
    });
}

#[test]
fn a_private_tmp_is_empty_and_goes_with_it() {
    local(async {
        let scene = Scene::new();
        // Somewhere else than in the folder that it does not see.
        let folder = tempfile::tempdir_in("/var/tmp").unwrap();
        let open: &'static str = folder.path().join("open").display().to_string().leak();
        let mark = format!("bothy-private-{}", std::process::id());
        let script: &'static str =
            format!("ls -A /tmp > {open}/seen; touch /tmp/{mark}; exec sleep 600").leak();
        let (_listener, ready) = port();
        let mut runner = scene.runner("tmp", vec!["/bin/sh", "-c", script].leak(), ready);
        runner.declaration.sandbox =
            Sandbox::Folders { writable: vec![open].leak(), hidden: &[], private_tmp: true };
        let task = tokio::task::spawn_local(runner.run(scene.stop.subscribe()));
        let seen = Path::new(open).join("seen");
        let inside = async {
            scene.until("tmp", State::Ready).await;
            let inside = format!("/proc/{}/root/tmp/{mark}", scene.of("tmp").pid.unwrap());
            while !Path::new(&inside).exists() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(SHORT, inside).await.unwrap();
        assert_eq!(std::fs::read_to_string(seen).unwrap(), "");
        assert!(!Path::new("/tmp").join(&mark).exists());
        scene.stop.send_replace(true);
        task.await.unwrap();
    });
}

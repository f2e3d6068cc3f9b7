//! The client itself, every command of it that talks to a gateway, where there is one: its program is no part of this
//! repository, and these tests are not run unless somebody asks for them (see README.md).

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::lab::Lab;
use crate::logs::start_journal;
use crate::namespaces::again;
use crate::tokens::make_certificates;
use crate::{image, ready};

/// Names its program.
const PROGRAM: &str = "BOTHY_FAAS_CLI";

const STACK: &str = "\
version: 1.0
provider:
  name: openfaas
functions:
  first:
    lang: dockerfile
    handler: ./first
    image: localhost/one:latest
    skip_build: true
    fprocess: /bin/cat
    environment:
      A: b=c
    environment_file: [more.yml]
    secrets: [key]
    labels:
      canary: \"true\"
    annotations:
      topic: a,b
    constraints:
      - node.platform.os == linux
    limits:
      memory: 64Mi
      cpu: 100m
    requests:
      memory: 16Mi
    readonly_root_filesystem: true
";

/// The program, with folders of its own.
struct Client {
    program: PathBuf,
    /// Where it works, and keeps what it knows.
    folder: PathBuf,
    gateway: &'static str,
    /// Whose certificates it takes.
    authority: PathBuf,
}

impl Client {
    fn new(lab: &Lab, gateway: &'static str) -> Self {
        let program = std::env::var_os(PROGRAM);
        let program =
            program.unwrap_or_else(|| panic!("{PROGRAM} is not set: it names OpenFaaS's client, faas-cli"));
        let folder = lab.folder.join("client");
        std::fs::create_dir_all(folder.join(".secrets")).unwrap();
        Self { program: program.into(), folder, gateway, authority: lab.folder.join("ca.pem") }
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.folder.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(words).current_dir(&self.folder).env_clear().env("HOME", &self.folder);
        command.env("OPENFAAS_CONFIG", &self.folder).env("OPENFAAS_URL", self.gateway);
        command.env("SSL_CERT_FILE", &self.authority);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs a command with that input; gives whether it ended well, and all that it printed.
    fn run(&self, line: &str, input: &str) -> (bool, String) {
        let words: Vec<_> = line.split(' ').collect();
        let mut child =
            self.command(&words).spawn().unwrap_or_else(|e| panic!("{}: {e}", self.program.display()));
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let printed = [output.stdout, output.stderr].concat();
        let printed = String::from_utf8_lossy(&printed).into_owned();
        println!("$ faas-cli {line}\n{printed}[{}]\n", output.status);
        (output.status.success(), printed)
    }

    /// One that must end well, and print that.
    fn does(&self, line: &str, input: &str, part: &str) -> String {
        let (good, printed) = self.run(line, input);
        assert!(good && printed.contains(part), "faas-cli {line}: expected {part:?}, got\n{printed}");
        printed
    }

    /// One that must fail, and print that.
    fn refuses(&self, line: &str, part: &str) {
        let (good, printed) = self.run(line, "");
        assert!(
            !good && printed.contains(part),
            "faas-cli {line}: expected failure and {part:?}, got\n{printed}"
        );
    }

    /// One that prints JSON.
    fn json(&self, line: &str) -> Value {
        let printed = self.does(line, "", "");
        serde_json::from_str(&printed).unwrap_or_else(|e| panic!("faas-cli {line}: {e}"))
    }
}

#[test]
#[ignore = "runs OpenFaaS's own client, which is not here: BOTHY_FAAS_CLI names its program"]
fn the_client_itself() {
    let name = "client::program::the_client_itself";
    again(name, &["--exact", name, "--ignored", "--nocapture"], async |mut lab| {
        image(&lab, "one", "here\n");
        let client = Client::new(&lab, "http://127.0.0.1:8080/");
        start_journal(&mut lab);
        lab.start_containerd();
        lab.start_gateway();
        ready(&lab).await;
        client.does("ready", "", "gateway is ready");
        client.refuses("list", "run \"faas-cli login\"");
        client.does("login -u admin --password-stdin", "secret\n", "credentials saved for admin");
        for provider in ["bothy", "faasd"] {
            lab.stop_gateway();
            lab.arguments = ["--provider-name", provider].map(str::to_owned).into();
            lab.start_gateway();
            ready(&lab).await;
            let version = client.json("version --json");
            assert_eq!(version["provider"]["name"], provider);
            client.does("version --warn-update=false", "", "orchestration: containerd");
            namespaces(&client);
            for namespace in ["", " --namespace dev"] {
                secrets(&client, namespace, provider);
                functions(&client, namespace);
                stack(&client, namespace);
            }
            store(&client);
            logs(&client);
            client.does("namespace remove dev", "", "Namespace Removed: dev");
            client.refuses("namespace remove dev", "not found");
            assert_eq!(lab.leftovers().await, Vec::<String>::new());
        }
        client.does("logout", "", "credentials removed");
    });
}

/// Some of its commands speak HTTP/2 there (`logs`), and the others do not.
#[test]
#[ignore = "runs OpenFaaS's own client, which is not here: BOTHY_FAAS_CLI names its program"]
fn the_client_itself_over_tls() {
    let name = "client::program::the_client_itself_over_tls";
    again(name, &["--exact", name, "--ignored", "--nocapture"], async |mut lab| {
        image(&lab, "one", "here\n");
        make_certificates(&lab.folder);
        let folder = lab.folder.display();
        let text = format!(
            "version = 1\n[gateway]\ntls_certificate = \"{folder}/server.pem\"\ntls_key = \"{folder}/server.key\"\n"
        );
        std::fs::write(lab.folder.join("bothy.toml"), text).unwrap();
        let mut client = Client::new(&lab, "https://127.0.0.1");
        start_journal(&mut lab);
        lab.start_containerd();
        lab.start_gateway();
        ready(&lab).await;
        client.does("ready", "", "gateway is ready");
        client.does("login --password-stdin", "secret", "credentials saved for admin");
        client.does("namespace list", "", "openfaas-fn");
        client.does("secret create key --from-literal=one", "", "Created: 201");
        logs(&client);
        // Of a certificate that it does not know it takes what it is told to take.
        client.authority = "/dev/null".into();
        client.refuses("list", "annot connect to OpenFaaS");
        client.does("list --tls-no-verify", "", "Function");
        client.does("secret remove key --tls-no-verify", "", "OK");
        assert_eq!(lab.leftovers().await, Vec::<String>::new());
    });
}

fn namespaces(client: &Client) {
    client.does("namespace create dev --label demo=true --annotation who=me", "", "Namespace Created: dev");
    client.refuses("namespace create dev", "namespace dev already exists");
    assert_eq!(client.json("namespace list --json"), json!(["openfaas-fn", "dev"]));
    client.does("namespaces", "", " - dev");
    let shown = client.does("namespace get dev", "", "demo: true");
    assert!(shown.contains("who: me"), "{shown}");
    client.does("namespace update dev --label demo=false", "", "Namespace Updated: dev");
    client.does("namespace get dev", "", "demo: false");
    for act in ["get", "update", "remove"] {
        client.refuses(&format!("namespace {act} absent"), "amespace absent not found");
    }
}

fn secrets(client: &Client, namespace: &str, provider: &str) {
    client.does(&format!("secret list{namespace}"), "", "No secrets found");
    client.does(&format!("secret create key --from-literal=one{namespace}"), "", "Created: 201");
    // There it is the same as an update.
    let again = if provider == "faasd" { "Created: 200" } else { "already exists" };
    client.does(&format!("secret create key{namespace}"), "two", again);
    client.does(&format!("secret create key --replace{namespace}"), "two", "200 OK");
    client.does(&format!("secret update key --from-literal=three{namespace}"), "", "Updated: 200 OK");
    let absent = if provider == "faasd" { "Updated: 200" } else { "unable to find secret: other" };
    client.does(&format!("secret update other --from-literal=x{namespace}"), "", absent);
    if provider == "faasd" {
        client.does(&format!("secret remove other{namespace}"), "", "OK");
    }
    client.refuses(&format!("secret remove other{namespace}"), "nable to find secret: other");
    client.write(".secrets/applied", "a\n");
    client.write(".secrets/key", "b");
    for _ in 0..2 {
        let printed = client.does(&format!("secret apply{namespace}"), "", "Creating secret: applied");
        assert!(!printed.contains("unexpected") && !printed.contains("Failed"), "{printed}");
    }
    let listed = client.json(&format!("secret list --json{namespace}"));
    let names: Vec<_> = listed.as_array().unwrap().iter().map(|secret| secret["name"].clone()).collect();
    assert_eq!(names, ["applied", "key"]);
    client.does(&format!("secret remove applied{namespace}"), "", "OK");
}

fn functions(client: &Client, namespace: &str) {
    let deploy = format!("deploy --image localhost/one:latest --name one{namespace}");
    client.does(&deploy, "", "Deployed. 200 OK.");
    client.does(&deploy, "", "attempting rolling-update");
    client.refuses(&format!("{deploy} --update=false"), "exists already; update it with PUT");
    client.does(&format!("{deploy} --update=false --replace"), "", "Removing old function.");
    client.refuses(&format!("{deploy} --secret absent"), "unable to find secret: absent");
    client.refuses(&format!("{deploy} --constraint gpu=yes"), "\"gpu=yes\" not met by this machine");
    let all = "--fprocess env --env A=b=c --label canary=true --annotation topic=a,b --secret key --readonly \
               --constraint node.platform.os==linux --memory-limit 64Mi --cpu-limit 100m --memory-request 16Mi \
               --cpu-request 10m";
    client.does(&format!("{deploy} {all}"), "", "Deployed. 200 OK.");
    client.does(&format!("ready one{namespace}"), "", "Function one is ready");
    client
        .refuses(&format!("ready absent --attempts 1 --interval 1ms{namespace}"), "no such function: absent");

    let invoke =
        format!("invoke one{namespace} --query a=1 -H X-Foo:bar -m PUT --content-type application/json");
    let printed = client.does(&invoke, "hello", "Http_Query=a=1\n");
    for line in
        ["Http_Method=PUT", "Http_X_Foo=bar", "Http_Content_Type=application/json", "Http_Content_Length=5"]
    {
        assert!(printed.contains(line), "{printed}");
    }
    client.does(&format!("invoke one{namespace} --sign X-Hub --key k"), "hello", "Http_X_Hub=sha256=");
    client.refuses(&format!("invoke absent{namespace}"), "404 - error finding function absent.");

    client.does(&format!("list --verbose{namespace}"), "", "localhost/one:latest");
    client.does(&format!("list --quiet --sort invocations{namespace}"), "", "one\n");
    let described = client.json(&format!("describe one --json{namespace}"));
    let listed = client.json(&format!("list --json --sort creation{namespace}"));
    assert_eq!((&described["Status"], &described["InvocationCount"]), (&json!("Ready"), &json!(2)));
    for shown in [&described, &listed[0]] {
        assert_eq!(
            (&shown["labels"], &shown["secrets"]),
            (&json!({"canary": "true", "faas_function": "one"}), &json!(["key"]))
        );
        assert_eq!(shown["limits"], json!({"memory": "64Mi", "cpu": "100m"}));
        assert_eq!(shown["requests"], json!({"memory": "16Mi", "cpu": "10m"}));
        assert_eq!((&shown["envProcess"], &shown["readOnlyRootFilesystem"]), (&json!("env"), &json!(true)));
    }
    client.does(&format!("describe one --verbose{namespace}"), "", "Available Replicas: 1");
    client.refuses(&format!("describe absent{namespace}"), "o such function: absent");
    client.refuses("list --namespace gone", "namespace not valid");
    client.does(&format!("remove one{namespace}"), "", "Removing old function.");
    client.refuses(&format!("remove one{namespace}"), "o existing function to remove");
}

/// What stack.yaml says. (`diff` finds that the label `faas_function` was added, and fails for it.)
fn stack(client: &Client, namespace: &str) {
    client.write("functions.yml", STACK);
    client.write("more.yml", "environment:\n  MORE: \"yes\"\n");
    client.write("first/Dockerfile", "FROM scratch\n");
    client.write("template/dockerfile/template.yml", "language: dockerfile\n");
    client.refuses(&format!("diff -f functions.yml{namespace}"), "not deployed");
    client.does(&format!("up -f functions.yml --skip-push{namespace}"), "", "Deployed. 200 OK.");
    client.does(
        &format!("deploy -f functions.yml --filter first{namespace}"),
        "",
        "attempting rolling-update",
    );
    let replace = format!("deploy -f functions.yml --replace --update=false{namespace}");
    client.does(&replace, "", "Removing old function.");
    client.refuses(&format!("diff -f functions.yml{namespace}"), "faas_function");
    client.does(&format!("invoke first{namespace}"), "echo", "echo");
    client.does(&format!("remove -f functions.yml{namespace}"), "", "Removing old function.");
    client.does(&format!("secret remove key{namespace}"), "", "OK");
}

fn store(client: &Client) {
    let store = json!({"version": "0.2.0", "functions": [{
        "title": "One", "name": "one", "description": "Says here.", "fprocess": "/bin/cat", "repo_url": "",
        "images": {"x86_64": "localhost/one:latest", "arm64": "localhost/one:latest"},
        "labels": {"faas_function": "stored", "from": "store"}, "environment": {"E": "1"}, "readOnlyRootFilesystem": true,
    }]});
    let url = serve(store.to_string());
    client.does(&format!("store list --url {url}"), "", "one");
    client.does(&format!("store describe one --url {url}"), "", "Says here.");
    let deploy =
        format!("store deploy one --url {url} --name stored --namespace dev --env X=2 --memory-limit 32Mi");
    client.does(&deploy, "", "/function/stored.dev");
    client.does("invoke stored --namespace dev", "text", "text");
    let described = client.json("describe stored --json --namespace dev");
    assert_eq!(
        (&described["envVars"], &described["labels"]),
        (&json!({"E": "1", "X": "2"}), &json!({"faas_function": "stored", "from": "store"}))
    );
    client.does("remove stored --namespace dev", "", "Removing old function.");
}

/// Answers everybody with that, as long as the test lasts; gives where.
fn serve(text: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/store.json", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            // A request without a body comes in one piece.
            let _ = stream.read(&mut [0; 4096]);
            let head =
                format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", text.len());
            let _ = stream.write_all(format!("{head}{text}").as_bytes());
        }
    });
    url
}

fn logs(client: &Client) {
    client.does("deploy --image localhost/one:latest --name sh --fprocess /bin/sh", "", "Deployed. 200 OK.");
    // It follows until it is told to end (Ctrl-C).
    let mut following =
        client.command(&["logs", "sh", "--since", "1s", "--name", "--instance"]).spawn().unwrap();
    let mut lines = BufReader::new(following.stdout.take().unwrap()).lines().map(Result::unwrap);
    client.does("invoke sh", "echo said >&2", "");
    let line = lines.find(|line| line.ends_with("stderr: said"));
    assert!(line.as_deref().is_some_and(|line| line.contains(" sh (sh.0) ")), "{line:?}");
    kill(Pid::from_raw(following.id().cast_signed()), Signal::SIGINT).unwrap();
    following.wait().unwrap();

    // What it was told is in the journal.
    for flags in ["--since 1h", "--since-time 2020-01-01T00:00:00Z", "--lines 100"] {
        client.does(&format!("logs sh --tail=false {flags}"), "", "stderr: said\n");
    }
    let one = client.json("logs sh --tail=false --lines 1 -o json");
    assert_eq!((&one["name"], &one["instance"]), (&json!("sh"), &json!("sh.0")));
    client.does("logs sh --tail=false -o keyvalue", "", "text=\"stderr: said\"");
    let none = client.does("logs sh --tail=false --since-time 2999-01-01T00:00:00Z", "", "");
    assert_eq!(none, "");
    client.does("remove sh", "", "Removing old function.");
}

use serde_json::Value;

use super::super::configuration;
use super::*;
use crate::board::State;

/// A socket with a supervisor's answers behind it.
struct Lab {
    folder: tempfile::TempDir,
    board: Board,
    wish: watch::Sender<Option<Ending>>,
}

impl Lab {
    async fn start() -> Self {
        let lab =
            Lab { folder: tempfile::tempdir().unwrap(), board: Board::new(), wish: watch::Sender::new(None) };
        let boot = lab.folder.path().to_owned();
        let text = "version = 1\nhostname = \"barn\"\n[gateway]\npassword = \"hay\"\n\
                    [functions.f]\nimage = \"localhost/f\"\nenvironment = { KEY = \"straw\" }\n";
        fs::write(boot.join("bothy.toml"), text).unwrap();
        let effective = configuration::choose(Ok(boot), &lab.folder.path().join("none"));
        assert_eq!(effective.problem, None);
        let desk = Desk {
            board: lab.board.clone(),
            wish: lab.wish.clone(),
            effective: Rc::new(RefCell::new(Some(effective))),
            made: Made::default(),
        };
        spawn_local(serve(lab.path(), desk));
        while !lab.path().exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        lab
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("control")
    }

    async fn connect(&self) -> UnixStream {
        UnixStream::connect(self.path()).await.unwrap()
    }

    async fn ask(&self, line: &str) -> Vec<Value> {
        let mut stream = self.connect().await;
        stream.write_all(format!("{line}\n").as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The one object of an answer.
    async fn one(&self, line: &str) -> Value {
        let mut lines = self.ask(line).await;
        assert_eq!(lines.pop().unwrap(), json!({ "done": true }));
        assert_eq!(lines.len(), 1, "{lines:?}");
        lines.pop().unwrap()
    }
}

fn run(test: impl AsyncFnOnce(Lab)) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async { test(Lab::start().await).await });
}

#[test]
fn answers_end_with_done_or_an_error() {
    run(async |lab: Lab| {
        lab.board.service("nats", |service| (service.state, service.pid) = (State::Ready, Some(7)));
        assert_eq!(lab.one(r#"{"command":"status"}"#).await["services"][0]["name"], "nats");
        let service = lab.one(r#"{"command":"services","name":"nats"}"#).await;
        assert_eq!((&service["state"], &service["pid"]), (&json!("ready"), &json!(7)));
        assert_eq!((&service["state"], &service["ends"]), (&json!("ready"), &json!([])));
        assert!(service["since_ms"].as_u64().unwrap() > 1_600_000_000_000);
        let unknown = lab.ask(r#"{"command":"services","name":"x"}"#).await;
        assert!(unknown[0]["error"].as_str().unwrap().contains("there are: nats"), "{unknown:?}");
        let error = lab.ask(r#"{"command":"dance"}"#).await;
        assert!(error.len() == 1 && error[0]["error"].as_str().unwrap().contains("poweroff"), "{error:?}");
        assert!(lab.ask("hello").await[0]["error"].is_string());
        let plan = lab.ask(r#"{"command":"plan"}"#).await;
        assert!(plan.len() > 3 && plan[0]["phases"][0]["name"].is_string(), "{plan:?}");
        let top = lab.one(r#"{"command":"top","interval_ms":100}"#).await;
        assert!(top["groups"].is_array() && top["memory_total"].as_u64() > Some(0), "{top}");
    });
}

#[test]
fn secrets_are_shown_only_when_asked_for() {
    run(async |lab: Lab| {
        let hidden = lab.one(r#"{"command":"config"}"#).await;
        assert!(!hidden.to_string().contains("hay") && !hidden.to_string().contains("straw"), "{hidden}");
        let value = |report: &Value, key: &str| {
            let values = report["values"].as_array().unwrap();
            values.iter().find(|value| value["key"] == key).cloned().unwrap_or_default()
        };
        let shown = lab.one(r#"{"command":"config","reveal":true}"#).await;
        assert_eq!(value(&shown, "gateway.password")["value"], "hay");
        assert_eq!(value(&shown, "functions.f.environment.KEY")["value"], "straw");
        assert_eq!(value(&shown, "gateway.user")["from"], "default");
        assert_eq!(value(&shown, "stack.queue.ack_wait")["value"], "60s");
        assert_eq!(value(&shown, "hostname")["from"], "bothy.toml on the boot partition");
        let credentials = lab.one(r#"{"command":"credentials"}"#).await;
        assert_eq!((&credentials["user"], &credentials["password"]), (&json!("admin"), &json!("hay")));
    });
}

#[test]
fn the_end_is_answered_before_it_comes() {
    run(async |lab: Lab| {
        let mut seen = lab.wish.subscribe();
        assert_eq!(lab.ask(r#"{"command":"reboot"}"#).await, [json!({ "done": true })]);
        seen.wait_for(|wish| *wish == Some(Ending::Reboot)).await.unwrap();
    });
}

#[test]
fn clients_do_not_wait_for_each_other() {
    run(async |lab: Lab| {
        // One says nothing, one asks for ever and does not read, one is too many words.
        let silent = lab.connect().await;
        let mut greedy = lab.connect().await;
        greedy.write_all(b"{\"command\":\"top\",\"interval_ms\":100,\"count\":0}\n").await.unwrap();
        let mut long = lab.connect().await;
        long.write_all(&vec![b'x'; LONGEST_BYTES + 2048]).await.unwrap();
        let mut text = String::new();
        long.read_to_string(&mut text).await.unwrap();
        assert!(text.contains("at most"), "{text}");
        assert_eq!(lab.ask(r#"{"command":"status"}"#).await.len(), 2);
        // More than there is room for are told so; who leaves makes room.
        let mut waiting = Vec::new();
        for _ in 0..CLIENTS {
            waiting.push(lab.connect().await);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(lab.ask(r#"{"command":"status"}"#).await[0]["error"].as_str().unwrap().contains("try again"));
        drop((waiting, greedy, silent));
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(lab.ask(r#"{"command":"status"}"#).await.len(), 2);
    });
}

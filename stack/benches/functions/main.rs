//! What functions and asynchronous calls cost: `cargo bothy bench functions`, `queue`
//! and `scale`. A real containerd, the gateway and its shim, natively and as root,
//! in namespaces of their own; each figure beside the least that this host can do, measured in the same run.

#[allow(dead_code, reason = "the tests use more of it")]
#[path = "../../tests/native/answer.rs"]
mod answer;
#[allow(dead_code, reason = "the tests use more of it")]
#[path = "../../tests/native/chaos.rs"]
mod chaos;
#[allow(dead_code, reason = "the tests use more of it")]
#[path = "../../tests/native/daemons.rs"]
mod daemons;
#[allow(dead_code, reason = "the tests use more of it")]
#[path = "../../tests/native/ear.rs"]
mod ear;
#[allow(dead_code, reason = "the tests use more of it")]
#[path = "../../tests/native/lab.rs"]
mod lab;
#[allow(dead_code, reason = "the tests use more of it")]
#[path = "../../tests/native/layout.rs"]
mod layout;
#[allow(dead_code, reason = "the tests use more of it")]
#[path = "../../tests/native/namespaces.rs"]
mod namespaces;
#[allow(dead_code, reason = "the tests use more of it")]
#[path = "../../tests/native/stand_in.rs"]
mod stand_in;

mod cold;
mod cost;
mod echo;
mod figure;
mod floor;
mod load;
mod output;
mod queue;

use std::time::Duration;

use figure::Figure;
use hyper::Method;
use lab::Lab;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use serde_json::{Value, json};

/// What the tests' functions are of, and how long things may take.
const IMAGE: &str = "localhost/one:latest";
const PATIENCE: Duration = Duration::from_secs(60);

/// The image of the echo function: this program.
const ECHO: &str = "localhost/echo:latest";

/// Its path in the image.
const PROGRAM: &str = "/program";

/// How often each thing is done that a median is taken of.
const ROUNDS: usize = 50;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("echo") => echo::serve(arguments.get(1).and_then(|port| port.parse().ok()).unwrap_or(8080)),
        _ => {
            share_two_processors();
            let words: Vec<_> = arguments.iter().map(String::as_str).collect();
            namespaces::again("functions", &words, async |lab| measure(lab, &arguments).await);
        }
    }
}

async fn measure(mut lab: Lab, arguments: &[String]) {
    let number = |name: &str| {
        let at = arguments.iter().position(|word| word == name)?;
        arguments.get(at + 1)?.parse().ok()
    };
    let rounds = number("--rounds").unwrap_or(ROUNDS);
    let first_calls = number("--first-calls").unwrap_or(1_000);
    let process = json!({"Entrypoint": [PROGRAM, "echo"], "User": "1000:1000"});
    layout::assemble(&lab.folder.join("images/echo"), ECHO, architecture(), &process, &[&layer()]);
    stand_in::bare_image(&lab);
    lab.groups = true;
    lab.arguments.extend(["--reconcile-interval", "1s"].map(str::to_owned));
    lab.start_nats();
    lab.start_containerd();
    lab.start_gateway();
    lab.until("/healthz", "", Duration::from_secs(60)).await;
    // The image is unpacked by the first deployment, which is not what the figures are of.
    deploy(&lab, "warm").await;
    delete(&lab, "warm").await;

    // Those of asynchronous calls only where they are named.
    let at = arguments.iter().position(|word| word == "--part");
    let named = at.and_then(|at| arguments.get(at + 1));
    let asked = |part: &str| named.is_some_and(|only| only.split(',').any(|only| only == part));
    let wanted = |part: &str| named.is_none() || asked(part);
    let mut figures = Vec::new();
    if wanted("starts") {
        figures.extend(starts(&lab, rounds, first_calls).await);
    }
    if wanted("load") {
        figures.extend(load::figures(&lab).await);
    }
    if wanted("cost") {
        figures.extend(cost::figures(&lab).await);
    }
    if wanted("output") {
        figures.extend(output::figures(&mut lab).await);
    }
    let turns = number("--turns").unwrap_or(queue::TURNS);
    if asked("accepted") || asked("completed") || asked("kills") {
        lab.until_queues_answer().await;
    }
    if asked("accepted") {
        figures.extend(queue::accepted(&lab, turns).await);
    }
    if asked("completed") {
        let calls = number("--calls").unwrap_or(queue::CALLS);
        figures.extend(queue::completed(&mut lab, turns, calls).await);
    }
    if asked("zero") {
        let floor = floor::of_starts(&lab, rounds).await;
        let zeroed = cold::zeroed(&lab, rounds).await;
        figures.push(Figure::with_floor("zero_to_reply_p50", zeroed, "ms", floor.start_ms).of("scale"));
    }
    if asked("kills") {
        figures.extend(queue::kills(&mut lab, queue::KILLS).await);
    }
    figure::print(&figures);
    // A call that fails is no figure.
    assert!(
        !figures
            .iter()
            .any(|figure| (figure.is("failed_first_calls") || figure.is("lost")) && figure.value() > 0.0)
    );
}

/// From now on this process, and all that it starts, share two of the host's processors.
fn share_two_processors() {
    let own = Pid::from_raw(0);
    let allowed = sched_getaffinity(own).unwrap();
    let mut two = CpuSet::new();
    let free = (0..CpuSet::count()).filter(|cpu| allowed.is_set(*cpu).unwrap_or(false));
    for cpu in free.take(2) {
        two.set(cpu).unwrap();
    }
    sched_setaffinity(own, &two).unwrap();
}

/// How long a function takes to its first answer, from where it may be.
async fn starts(lab: &Lab, rounds: usize, first_calls: usize) -> [Figure; 6] {
    let floor = floor::of_starts(lab, rounds).await;
    let stopped = cold::stopped(lab, rounds).await;
    let frozen = cold::frozen(lab, rounds).await;
    let deployed = cold::deployed(lab, rounds).await;
    let at_once = cold::at_once(lab, first_calls).await;
    [
        Figure::alone("crun_run_p50", floor.run_ms, "ms"),
        Figure::with_floor("stopped_to_reply_p50", stopped, "ms", floor.start_ms),
        Figure::with_floor("stopping_to_reply_p50", at_once.taken, "ms", floor.start_ms),
        Figure::with_floor("frozen_to_reply_p50", frozen, "ms", floor.thaw_ms),
        Figure::with_floor("first_deploy_p50", deployed, "ms", floor.start_ms),
        Figure::alone("failed_first_calls", at_once.failed, "calls"),
    ]
}

/// This program, as the function's.
fn layer() -> Vec<u8> {
    let mut layer = layout::Layer::new();
    layer.add_program(&std::env::current_exe().unwrap(), PROGRAM.trim_start_matches('/'));
    layer.finish()
}

/// This machine's architecture as images name it.
fn architecture() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}

async fn deploy(lab: &Lab, name: &str) {
    deploy_with(lab, name, json!({})).await;
}

/// With more fields of the request.
async fn deploy_with(lab: &Lab, name: &str, mut body: Value) {
    body["service"] = json!(name);
    body["image"] = json!(ECHO);
    lab.expect(200, Method::POST, "/system/functions", &body.to_string()).await;
}

async fn delete(lab: &Lab, name: &str) {
    let body = json!({"functionName": name}).to_string();
    lab.expect(200, Method::DELETE, "/system/functions", &body).await;
}

async fn scale(lab: &Lab, name: &str, replicas: u64) {
    let body = json!({"replicas": replicas}).to_string();
    lab.expect(200, Method::POST, &format!("/system/scale-function/{name}"), &body).await;
}

//! What functions write: from one's standard output through the log service into the journal.

use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::figure::Figure;
use crate::lab::Lab;
use crate::{delete, deploy};
use hyper::Method;

/// Lines that a function writes, as fast as it is let.
const LINES: usize = 100_000;

/// How long the journal may take for them.
const PATIENCE: Duration = Duration::from_secs(120);

/// How many lines of a hundred bytes a second one function is let write, how many the journal takes meanwhile, and how
/// many did not get there.
pub async fn figures(lab: &mut Lab) -> [Figure; 3] {
    lab.start_journald();
    lab.start_log_to(Path::new("/run/systemd/journal/socket"));
    deploy(lab, "talk").await;
    let began = Instant::now();
    let answer = lab.ask(Method::POST, &format!("/function/talk/lines/{LINES}"), "").await.unwrap();
    let written = answer.text.parse::<f64>().expect("the function says how many seconds it took");
    let lost = loop {
        let told = lab.journalctl(&["-q", "-o", "cat", "BOTHY_FUNCTION=talk"]);
        let text = String::from_utf8_lossy(&told.stdout).into_owned();
        let lost: usize = text.lines().filter_map(dropped).sum();
        let kept = text.lines().filter(|line| line.starts_with("line ")).count();
        if kept + lost >= LINES {
            break lost;
        }
        assert!(began.elapsed() < PATIENCE, "{kept} lines are kept and {lost} told as lost");
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    let taken = began.elapsed().as_secs_f64();
    delete(lab, "talk").await;
    [
        Figure::alone("log_lines_written", LINES as f64 / written, "lines/s"),
        Figure::alone("log_lines_kept", (LINES - lost) as f64 / taken, "lines/s"),
        Figure::alone("log_lines_lost", lost as f64, "lines"),
    ]
}

/// The number in the line that takes the place of lost ones.
fn dropped(line: &str) -> Option<usize> {
    line.split_once(" lines of this function's output were dropped")?.0.parse().ok()
}

/// The function: writes so many lines, and says how many seconds that took.
pub fn write(lines: usize) -> String {
    let (began, padding) = (Instant::now(), ".".repeat(84));
    let mut out = std::io::stdout().lock();
    for number in 0..lines {
        // Each by itself, as programs write.
        writeln!(out, "line {number:9} {padding}").unwrap();
    }
    began.elapsed().as_secs_f64().to_string()
}

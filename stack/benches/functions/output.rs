//! What functions write: from one's standard output through the log service into the journal.

use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::figure::Figure;
use crate::lab::Lab;
use crate::{delete, deploy};
use hyper::Method;

/// Lines that a function writes as fast as it is let, and those that it writes at a rate.
const LINES: usize = 100_000;
const PACED: usize = 50_000;

/// That rate, lines a second, and how many it writes at once.
const RATE: usize = 10_000;
const AT_ONCE: usize = 100;

/// How long the journal may take for them.
const PATIENCE: Duration = Duration::from_secs(120);

/// How many lines of a hundred bytes a second one function is let write, how many the journal takes meanwhile, how many did
/// not get there, and how many of those that come at a rate.
pub async fn figures(lab: &mut Lab) -> [Figure; 4] {
    lab.start_journald();
    lab.start_log_to(Path::new("/run/systemd/journal/socket"));
    let began = Instant::now();
    let (written, lost) = said(lab, "talk", LINES, 0).await;
    let taken = began.elapsed().as_secs_f64();
    let (_, lost_of_paced) = said(lab, "paced", PACED, RATE).await;
    [
        Figure::alone("log_lines_written", LINES as f64 / written, "lines/s"),
        Figure::alone("log_lines_kept", (LINES - lost) as f64 / taken, "lines/s"),
        Figure::alone("log_lines_lost", lost as f64, "lines"),
        Figure::alone("log_lines_lost_at_10000", lost_of_paced as f64, "lines"),
    ]
}

/// Lets a function write, and waits until all of it is in the journal or told as lost. Gives how many seconds it wrote, and how
/// many lines are lost.
async fn said(lab: &Lab, function: &str, lines: usize, rate: usize) -> (f64, usize) {
    deploy(lab, function).await;
    let began = Instant::now();
    let path = format!("/function/{function}/lines/{lines}/{rate}");
    let answer = lab.ask(Method::POST, &path, "").await.unwrap();
    let written = answer.text.parse().expect("the function says how many seconds it took");
    let lost = loop {
        let told = lab.journalctl(&["-q", "-o", "cat", &format!("BOTHY_FUNCTION={function}")]);
        let text = String::from_utf8_lossy(&told.stdout).into_owned();
        let lost: usize = text.lines().filter_map(dropped).sum();
        let kept = text.lines().filter(|line| line.starts_with("line ")).count();
        if kept + lost >= lines {
            break lost;
        }
        assert!(began.elapsed() < PATIENCE, "{kept} lines are kept and {lost} told as lost");
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    delete(lab, function).await;
    (written, lost)
}

/// The number in the line that takes the place of lost ones.
fn dropped(line: &str) -> Option<usize> {
    line.split_once(" lines of this function's output were dropped")?.0.parse().ok()
}

/// The function's answer to `/lines/NUMBER/RATE`: nothing where that is another path.
pub fn asked(path: &str) -> Option<String> {
    let (lines, rate) = path.strip_prefix("/lines/")?.split_once('/')?;
    Some(write(lines.parse().ok()?, rate.parse().ok()?))
}

/// Writes so many lines, at so many a second or (0) as fast as it can. Gives how many seconds that took.
fn write(lines: usize, rate: usize) -> String {
    let (began, padding) = (Instant::now(), ".".repeat(84));
    let mut out = std::io::stdout().lock();
    for number in 0..lines {
        if rate > 0 && number % AT_ONCE == 0 {
            let due = Duration::from_secs_f64(number as f64 / rate as f64);
            std::thread::sleep(due.saturating_sub(began.elapsed()));
        }
        // Each by itself, as programs write.
        writeln!(out, "line {number:9} {padding}").unwrap();
    }
    began.elapsed().as_secs_f64().to_string()
}

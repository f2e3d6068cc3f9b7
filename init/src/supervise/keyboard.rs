//! What is typed at the console: Enter shows the status, a user's name begins a login.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use rustix::termios::{QueueSelector, tcflush};
use tokio::io::unix::AsyncFd;
use tokio::task::spawn_blocking;

use super::memory::Memory;
use super::screen::Made;
use super::session::{self, Outcome};
use super::text;
use crate::board::Board;
use crate::console::say;
use crate::descriptor::readable;

/// Longest name that is looked at.
const LONGEST_BYTES: usize = 256;
/// Pause after the first refused login; each further one doubles it.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// A serial line that hung up comes back: look again after a while.
const HUNG_UP: Duration = Duration::from_secs(5);

/// Answers, as long as the supervisor lives. A console that cannot be read is left alone.
pub(super) async fn answer(board: Board, made: Made) {
    // Two readers would get half of the letters each.
    session::outlive_earlier().await;
    let Some(mut console) = open() else { return };
    let mut refused = 0_u32;
    loop {
        let Some(line) = line(&console).await else { return };
        let name = line.trim();
        if name.is_empty() {
            let memory = spawn_blocking(Memory::now).await.unwrap_or_default();
            say(&text::screen(&board.status(), made.borrow().as_ref()));
            say(&text::memory(&memory));
            continue;
        }
        let outcome = session::run(name).await;
        // The end of a session hangs its terminal up (vhangup(2)), and no event comes any more from what was opened
        // before.
        match open() {
            Some(fresh) => console = fresh,
            None => return,
        }
        match outcome {
            Outcome::Ended => refused = 0,
            Outcome::Failed(why) => say(&text::problem(&format!("console login: {why}"))),
            Outcome::Refused => {
                let pause = pause(refused);
                refused = refused.saturating_add(1);
                tracing::warn!("a login at the console was refused, {refused} in a row");
                say(&format!("bothy: login refused, the next one is possible in {} s", pause.as_secs()));
                tokio::time::sleep(pause).await;
                // What was typed meanwhile was not meant for what comes now.
                let _ = tcflush(console.get_ref(), QueueSelector::IFlush);
                say("bothy: type a user name to log in");
            }
        }
    }
}

fn pause(refused: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(refused.min(16))).min(LONGEST_PAUSE)
}

/// The next line. Its end is dropped where it is longer than a name can be.
async fn line(console: &AsyncFd<File>) -> Option<String> {
    let mut line = Vec::new();
    loop {
        let mut ready = console.readable().await.ok()?;
        let mut part = [0_u8; LONGEST_BYTES];
        match ready.try_io(|console| console.get_ref().read(&mut part)) {
            Ok(Ok(length)) if length > 0 => {
                let room = LONGEST_BYTES.saturating_sub(line.len()).min(length);
                line.extend_from_slice(part.get(..room).unwrap_or_default());
                if part.get(..length).unwrap_or_default().ends_with(b"\n") {
                    return Some(String::from_utf8_lossy(&line).into_owned());
                }
            }
            Ok(_) => tokio::time::sleep(HUNG_UP).await,
            Err(_would_block) => {}
        }
    }
}

fn open() -> Option<AsyncFd<File>> {
    let flags = libc::O_NOCTTY | libc::O_NONBLOCK;
    let console = OpenOptions::new().read(true).custom_flags(flags).open("/dev/console").ok()?;
    // epoll refuses what cannot be waited for (a console that is a file or nothing).
    readable(console).ok()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn guesses_get_slower() {
        let pauses: Vec<_> = (0..8).map(|refused| pause(refused).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(pause(u32::MAX), LONGEST_PAUSE);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn lines_come_in_pieces_and_are_cut() {
        let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::NONBLOCK).unwrap();
        let console = readable(File::from(reader)).unwrap();
        let mut writer = File::from(writer);
        writer.write_all(b"adm").unwrap();
        let (line, ()) = tokio::join!(super::line(&console), async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            writer.write_all(b"in\n").unwrap();
        });
        assert_eq!(line.as_deref(), Some("admin\n"));
        writer.write_all(&[b'x'; 1000]).unwrap();
        writer.write_all(b"\n").unwrap();
        assert_eq!(super::line(&console).await.unwrap().len(), LONGEST_BYTES);
    }
}

//! `stack log` as a process, between FIFOs and a socket in journald's place.

use std::fs::File;
use std::io::Write;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::stat::Mode;

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// Longest part of a line in one entry.
const PART: usize = 48 << 10;

struct Service {
    folder: tempfile::TempDir,
    child: Child,
}

impl Service {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_stack"));
        command.arg("log").arg("--fifo-dir").arg(folder.path().join("fifo"));
        command.arg("--journal").arg(folder.path().join("journal"));
        let child = command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        Self { folder, child }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// A function's output, which lasts as long as this is open.
    fn fifo(&self, name: &str) -> File {
        let path = self.path().join("fifo").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        nix::unistd::mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
        File::options().read(true).write(true).open(path).unwrap()
    }

    fn journal(&self) -> Journal {
        let socket = UnixDatagram::bind(self.path().join("journal")).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Journal { socket, buffer: vec![0; 1 << 17] }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Journal {
    socket: UnixDatagram,
    buffer: Vec<u8>,
}

impl Journal {
    /// The next entry: its message, and its other fields as they were written.
    fn next(&mut self) -> (Vec<u8>, String) {
        let length = self.socket.recv(&mut self.buffer).expect("nothing more comes");
        let rest = self.buffer[..length].strip_prefix(b"MESSAGE\n").unwrap();
        let (size, rest) = rest.split_at(8);
        let (message, fields) = rest.split_at(u64::from_le_bytes(size.try_into().unwrap()) as usize);
        (message.to_vec(), String::from_utf8(fields.to_vec()).unwrap())
    }

    /// Takes the lines `0` to `lines - 1`; what is missing must have been told, and where it is missing.
    fn count(&mut self, lines: u64) {
        let (mut next, mut missing) = (0, 0);
        while next + missing < lines {
            let (message, _) = self.next();
            let message = String::from_utf8(message).unwrap();
            if let Some((count, _)) = message.split_once(" lines of this function's output were dropped") {
                missing += count.parse::<u64>().unwrap();
            } else {
                let number: u64 = message.parse().unwrap();
                assert_eq!(number, next + missing, "{missing} lines were said to be missing here");
                (next, missing) = (number + 1, 0);
            }
        }
    }
}

/// Writes lines of their numbers, each on its own, as a program does that says much.
fn write(mut fifo: &File, lines: u64) {
    for number in 0..lines {
        fifo.write_all(format!("{number}\n").as_bytes()).unwrap();
    }
}

#[test]
fn a_hundred_thousand_lines_keep_their_order() {
    let service = Service::start();
    let (mut journal, fifo) = (service.journal(), service.fifo("openfaas-fn.talk.0.out"));
    let writer = std::thread::spawn(move || {
        write(&fifo, 100_000);
        fifo
    });
    journal.count(100_000);
    // It was never held up for good, and what comes afterwards comes.
    let mut fifo = writer.join().unwrap();
    fifo.write_all(b"end\n").unwrap();
    assert_eq!(journal.next().0, b"end");
}

#[test]
fn no_journal_holds_up_no_function_and_what_is_lost_is_counted() {
    let service = Service::start();
    let (fifo, other) = (service.fifo("openfaas-fn.talk.0.out"), service.fifo("openfaas-fn.quiet.0.err"));
    // More than the service keeps: it returns all the same.
    write(&fifo, 100_000);
    write(&other, 1);
    let mut journal = service.journal();
    let mut lines = Vec::new();
    let mut lost = 0;
    while (lines.len() as u64) + lost < 100_001 {
        let (message, fields) = journal.next();
        let message = String::from_utf8(message).unwrap();
        match message.split_once(" lines of this function's output were dropped") {
            Some((count, _)) => {
                assert!(fields.contains("PRIORITY=4\n"), "{fields}");
                lost += count.parse::<u64>().unwrap();
            }
            None => lines.push((fields.contains("BOTHY_FUNCTION=talk\n"), message.parse::<u64>().unwrap())),
        }
    }
    assert!(lost > 0, "everything was kept, in what memory?");
    let talk: Vec<_> = lines.iter().filter(|(talk, _)| *talk).map(|(_, number)| *number).collect();
    assert!(talk.is_sorted_by(|a, b| a < b));
    assert_eq!(talk.first(), Some(&0));
    // Once told, it is over.
    (&fifo).write_all(b"7\n").unwrap();
    assert_eq!(journal.next().0, b"7");
}

#[test]
fn what_the_platform_says_stands_behind_the_last_words() {
    let service = Service::start();
    let (mut journal, mut fifo) = (service.journal(), service.fifo("openfaas-fn.talk.0.err"));
    fifo.write_all(b"ended\nnot ended").unwrap();
    fifo.write_all(&stack::log::remark::write("its process ended with status 3")).unwrap();
    for (message, priority) in [("ended", 3), ("not ended", 3), ("bothy: its process ended with status 3", 4)]
    {
        let (text, fields) = journal.next();
        assert_eq!(String::from_utf8_lossy(&text), message);
        assert!(fields.contains(&format!("PRIORITY={priority}\n")), "{fields}");
    }
}

#[test]
fn lines_of_any_length_and_of_any_bytes() {
    let service = Service::start();
    let (mut journal, mut fifo) = (service.journal(), service.fifo("dev.odd.3.err"));
    let bytes = (0..=u8::MAX).filter(|byte| *byte != b'\n');
    let line: Vec<u8> = bytes.cycle().take(1 << 20).collect();
    let writer = std::thread::spawn({
        let line = line.clone();
        move || {
            fifo.write_all(&[&line[..], b"\n\nafter\n"].concat()).unwrap();
            fifo
        }
    });
    let mut whole = Vec::new();
    loop {
        let (part, fields) = journal.next();
        assert!(part.len() <= PART);
        for field in ["SYSLOG_IDENTIFIER=dev:odd\n", "BOTHY_REPLICA=3\n", "PRIORITY=3\n"] {
            assert!(fields.contains(field), "{field}: {fields}");
        }
        whole.extend(part);
        if !fields.contains("BOTHY_CONTINUED=1\n") {
            break;
        }
    }
    assert!(whole == line, "{} of {} bytes, or others", whole.len(), line.len());
    assert_eq!(journal.next().0, b"");
    assert_eq!(journal.next().0, b"after");
    drop(writer.join().unwrap());
}

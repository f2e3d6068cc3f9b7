//! The program's own lines on their way to the container's output.

use std::io::Write;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};

/// Longest piece of a line that is held, in bytes; a longer line goes on in the next piece.
const LONGEST: u64 = 64 << 10;

/// Copies lines until the program closes its end.
pub async fn copy(from: impl AsyncRead + Unpin, prefix: &'static str, mut to: impl Write) {
    let mut reader = BufReader::new(from);
    let mut line = Vec::new();
    let mut fresh = true;
    loop {
        line.clear();
        match (&mut reader).take(LONGEST).read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let head = if fresh { prefix } else { "" };
        // Nobody reads our output any more: the function goes on without.
        let _ = to.write_all(head.as_bytes()).and_then(|()| to.write_all(&line)).and_then(|()| to.flush());
        fresh = line.ends_with(b"\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn prefixes_lines_and_not_their_parts() {
        let long = [vec![b'x'; LONGEST as usize + 10], b"\nb\xff".to_vec()].concat();
        let mut out = Vec::new();
        copy(long.as_slice(), "p: ", &mut out).await;
        let wanted = [b"p: ".to_vec(), vec![b'x'; LONGEST as usize + 10], b"\np: b\xff".to_vec()].concat();
        assert_eq!(out, wanted);
    }
}

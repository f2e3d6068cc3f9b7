//! What the platform says between a function's own lines: how its process ended. It comes through the function's FIFO,
//! so that it stands behind the last words, and waits there with them while the log service is away.
//!
//! A remark is marked: what stands before it on its line is the function's own, which did not come to end it. A function
//! can write such a mark too, and deceives nobody but who reads its own log.

/// Before a remark. The first byte separates records (ASCII), and is in no text.
const MARK: &[u8] = b"\x1ebothy: ";

/// Before a remark where people read it.
const SPEAKER: &[u8] = b"bothy: ";

/// Longest text, in bytes: what is no longer than `PIPE_BUF` with its mark is never mixed with others' (pipe(7)).
const LONGEST: usize = 3 << 10;

/// The bytes of a remark, to be written at once.
pub fn write(text: &str) -> Vec<u8> {
    let mut bytes = MARK.to_vec();
    let one_line = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    for c in one_line {
        if bytes.len() + c.len_utf8() > LONGEST {
            break;
        }
        bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
    }
    bytes.push(b'\n');
    bytes
}

/// Splits a line into what the function wrote, if it did, and the remark, if there is one.
pub fn split(line: &[u8]) -> (Option<&[u8]>, Option<&[u8]>) {
    let marked = line.iter().rposition(|byte| Some(byte) == MARK.first());
    let parts = marked.and_then(|at| line.split_at_checked(at)).filter(|(_, rest)| rest.starts_with(MARK));
    match parts {
        Some((own, remark)) => {
            let text = remark.get(MARK.len() - SPEAKER.len()..);
            (Some(own).filter(|own| !own.is_empty()), text)
        }
        None => (Some(line), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn it_stands_behind_what_was_not_ended() {
        let remark = write("its process\nended");
        assert_eq!(remark, b"\x1ebothy: its process ended\n");
        let remark = &remark[..remark.len() - 1];
        assert_eq!(split(remark), (None, Some(&b"bothy: its process ended"[..])));
        let line = [b"last \x1e words", remark].concat();
        assert_eq!(split(&line), (Some(&b"last \x1e words"[..]), Some(&b"bothy: its process ended"[..])));
        for own in [&b""[..], b"words", b"\x1e", b"\x1ebothy", b"a \x1ebothy:"] {
            assert_eq!(split(own), (Some(own), None));
        }
        assert!(write(&"é".repeat(4096)).len() < 4096);
    }

    proptest! {
        #[test]
        fn whatever_was_written_is_read(text in "[^\\p{Cc}]{0,100}", own in prop::collection::vec(any::<u8>(), 1..50)) {
            let line = [&own[..], &write(&text)].concat();
            let remark = format!("bothy: {text}");
            prop_assert_eq!(split(&line[..line.len() - 1]), (Some(&own[..]), Some(remark.as_bytes())));
        }
    }
}

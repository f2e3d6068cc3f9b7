//! One entry of the journal in its native protocol (systemd's docs, JOURNAL_NATIVE_PROTOCOL.md).

use crate::key::Key;

/// Which output it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// Whose output a FIFO carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// `NAMESPACE:FUNCTION`, the journal's identifier.
    pub identifier: String,
    stream: Stream,
    fields: Vec<u8>,
}

impl Source {
    /// Reads a FIFO's name: `NAMESPACE.FUNCTION.NUMBER.out` or `.err`.
    pub fn parse(name: &str) -> Option<Self> {
        let parts: Vec<&str> = name.split('.').collect();
        let [namespace, function, replica, stream] = parts.as_slice() else { return None };
        let key = Key::new(function, namespace)?;
        let replica: u32 = replica.parse().ok()?;
        let (stream, word) = match *stream {
            "out" => (Stream::Out, "out"),
            "err" => (Stream::Err, "err"),
            _ => return None,
        };
        let identifier = format!("{}:{}", key.namespace, key.name);
        let fields = format!(
            "SYSLOG_IDENTIFIER={identifier}\nBOTHY_NAMESPACE={}\nBOTHY_FUNCTION={}\nBOTHY_REPLICA={replica}\n\
             BOTHY_STREAM={word}\n",
            key.namespace, key.name
        );
        Some(Self { identifier, stream, fields: fields.into_bytes() })
    }

    /// The entry of a line. The message always has the binary form, so that no byte in it means anything.
    /// `continued`: the line was too long, and its next part follows in the next entry.
    pub fn entry(&self, line: &[u8], continued: bool) -> Vec<u8> {
        let priority = match self.stream {
            Stream::Out => '6',
            Stream::Err => '3',
        };
        self.write(priority, line, continued)
    }

    /// The entry of what the platform says.
    pub fn remark(&self, text: &[u8]) -> Vec<u8> {
        self.write('4', text, false)
    }

    /// The entry that tells about lines which were lost.
    pub fn loss(&self, lines: u64) -> Vec<u8> {
        let text = format!(
            "{lines} lines of this function's output were dropped: the journal did not take them in time"
        );
        self.write('4', text.as_bytes(), false)
    }

    fn write(&self, priority: char, message: &[u8], continued: bool) -> Vec<u8> {
        let mut entry = Vec::with_capacity(self.fields.len() + message.len() + 64);
        entry.extend_from_slice(b"MESSAGE\n");
        entry.extend_from_slice(&(message.len() as u64).to_le_bytes());
        entry.extend_from_slice(message);
        entry.extend_from_slice(format!("\nPRIORITY={priority}\n").as_bytes());
        entry.extend_from_slice(&self.fields);
        if continued {
            entry.extend_from_slice(b"BOTHY_CONTINUED=1\n");
        }
        entry
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let source = Source::parse("openfaas-fn.figlet.0.err").unwrap();
        assert_eq!(source.identifier, "openfaas-fn:figlet");
        for bad in ["", "figlet.0.out", "a.b.0.log", "a.b.x.out", "a.b.0.out.1", "a\n.b.0.out"] {
            assert_eq!(Source::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn bytes() {
        let source = Source::parse("n.f.2.out").unwrap();
        let wanted =
            b"MESSAGE\n\x03\0\0\0\0\0\0\0a\nb\nPRIORITY=6\nSYSLOG_IDENTIFIER=n:f\nBOTHY_NAMESPACE=n\n\
            BOTHY_FUNCTION=f\nBOTHY_REPLICA=2\nBOTHY_STREAM=out\nBOTHY_CONTINUED=1\n";
        assert_eq!(source.entry(b"a\nb", true), wanted);
    }
}

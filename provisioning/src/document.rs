//! The file as a whole: its bytes, its size, its syntax, and the one that every image carries.

use toml::de::DeTable;

use crate::report::Report;
use crate::{Config, Diagnostics, resolve};

/// Largest file that is read, in bytes. A machine has little memory; a configuration of this size is a mistake.
pub const SIZE_LIMIT_BYTES: usize = 1 << 20;

/// The document that lies on the boot partition of a new image: every key explained, and nothing set but the version.
pub fn default_document() -> &'static str {
    include_str!("bothy.toml")
}

/// Reads a configuration as it comes from a disk. `origin` names it in messages.
///
/// # Errors
/// Those of [`parse`], and bytes that are no UTF-8 text.
pub fn parse_bytes(bytes: &[u8], origin: &str) -> Result<Config, Diagnostics> {
    if bytes.len() > SIZE_LIMIT_BYTES {
        return Err(too_large(bytes.len(), origin));
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => parse(text, origin),
        Err(error) => {
            let good = error.valid_up_to();
            let text = String::from_utf8_lossy(bytes);
            let mut report = Report::new(&text, origin);
            let utf16 = bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]);
            let (message, hint) = match utf16 {
                true => ("the file is UTF-16, expected UTF-8", "save it again with the encoding \"UTF-8\""),
                false => ("this is not UTF-8 text", "save the file again with the encoding \"UTF-8\""),
            };
            report.problem(good..good, message, Some(hint.to_owned()));
            report.finish().map(|()| Config::default())
        }
    }
}

/// Reads a configuration. `origin` names it in messages.
///
/// # Errors
/// Every problem of the text: its syntax, unknown keys, wrong values, a version that is missing or too high.
pub fn parse(text: &str, origin: &str) -> Result<Config, Diagnostics> {
    if text.len() > SIZE_LIMIT_BYTES {
        return Err(too_large(text.len(), origin));
    }
    // Windows editors put a byte order mark first.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let (root, errors) = DeTable::parse_recoverable(text);
    let mut report = Report::new(text, origin);
    for error in &errors {
        let place = error.span().unwrap_or(0..0);
        report.problem(place, error.message(), None);
    }
    let config = resolve::config(root.get_ref(), &mut report);
    if !errors.is_empty() {
        report.drop_consequences(errors.len());
    }
    report.finish().map(|()| config)
}

fn too_large(size: usize, origin: &str) -> Diagnostics {
    Diagnostics::whole(origin, format!("the file has {size} bytes, expected at most {SIZE_LIMIT_BYTES}"))
}

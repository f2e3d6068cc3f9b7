//! The text of bothy.toml.

use provisioning::{Diagnostics, parse, parse_bytes};

/// A password that no message may show, in a file that is cut off behind it.
const BEFORE: &str = "version = 1\n[gateway]\npassword = \"swordfish\"\n";
const SECRET: &str = "swordfish";

pub fn check(data: &[u8]) {
    match parse_bytes(data, "f") {
        Ok(config) => {
            let text = str::from_utf8(data).expect("it was read");
            // What says nothing changes nothing: a mark before it, a remark and blanks behind it.
            assert_eq!(
                parse(&format!("\u{feff}{}", text.trim_start_matches('\u{feff}')), "f").as_ref(),
                Ok(&config)
            );
            assert_eq!(parse(&format!("{text}\n \t# ä\r\n"), "f").as_ref(), Ok(&config));
            for function in &config.functions {
                assert!(!function.image.contains(char::is_whitespace));
                assert!(
                    function.environment.keys().all(|name| !name.is_empty() && !name.contains(['=', '\0']))
                );
            }
        }
        Err(wrong) => told(&wrong, data),
    }
    let Ok(text) = str::from_utf8(data) else { return };
    if let Err(wrong) = parse(&format!("{BEFORE}{text}"), "f")
        && !text.contains(SECRET)
    {
        assert!(!wrong.to_string().contains(SECRET), "{wrong}");
    }
}

/// What is wrong stands where it says, on a line that a terminal can show.
fn told(wrong: &Diagnostics, data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let lines: Vec<&str> = text.strip_prefix('\u{feff}').unwrap_or(&text).split('\n').collect();
    let shown = wrong.to_string();
    assert!(!shown.chars().any(|c| c.is_control() && c != '\n'), "{shown:?}");
    assert!(!wrong.summary().contains('\n') && wrong.count() >= wrong.iter().count());
    for one in wrong {
        let line = lines.get(one.line.checked_sub(1).expect("counted from 1")).expect("a line of the file");
        assert!((1..=line.chars().count() + 1).contains(&one.column), "{one}");
        assert!(
            one.marked.start < one.marked.end
                && one.marked.end <= one.source.chars().count().max(one.marked.start + 1)
        );
        assert!(!one.message.is_empty() && one.source.chars().count() <= 96, "{one}");
        assert!(!one.hint.as_ref().is_some_and(|hint| hint.chars().any(char::is_control)), "{one}");
    }
    assert!(wrong.iter().is_sorted_by_key(|one| one.line));
}

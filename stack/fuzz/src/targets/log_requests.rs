//! The query of `GET /system/logs`, and the arguments that journalctl gets.

use std::path::Path;

use crate::gateway::logs::wanted::Wanted;
use crate::gateway::query::Query;
use crate::key::Key;

const NOW: u64 = 1_795_446_000_500_000;

pub fn check(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let wanted = match Wanted::parse(Some(text), NOW) {
        Ok(wanted) => wanted,
        Err(reason) => {
            assert!(!reason.is_empty() && !reason.chars().any(char::is_control), "{reason:?}");
            return;
        }
    };
    let said = |name: &str| Query::parse(Some(text)).last(name).map(str::to_owned);
    assert!(Key::from_path(&wanted.key.to_string()).as_ref() == Some(&wanted.key));
    assert!(said("name").is_some_and(|name| name.starts_with(wanted.key.name.as_str())));
    for after in [None, Some("s=1;i=2")] {
        let words = wanted.arguments(Some(Path::new("/j")), after);
        let words: Vec<&str> = words.iter().map(|word| word.to_str().unwrap()).collect();
        // Nothing that a client says becomes an option, or another function's log.
        let (options, matches): (Vec<&str>, Vec<&str>) =
            words.iter().partition(|word| word.starts_with("--"));
        assert!(
            words.iter().all(|word| !word.contains('\0'))
                && words.is_sorted_by_key(|word| !word.starts_with("--"))
        );
        assert_eq!(matches[0], format!("BOTHY_NAMESPACE={}", wanted.key.namespace));
        assert_eq!(matches[1], format!("BOTHY_FUNCTION={}", wanted.key.name));
        assert!(matches[2..].iter().all(|word| word.starts_with("BOTHY_REPLICA=")));
        assert_eq!(matches.len(), 2 + usize::from(said("instance").is_some()));
        let known =
            ["--no-pager", "--quiet", "--all", "--output=json", "--no-tail", "--follow", "--directory=/j"];
        let with_value = ["--output-fields=MESSAGE,", "--after-cursor=s=1;i=2", "--since=@", "--lines="];
        for option in options {
            let value = with_value.iter().find_map(|start| option.strip_prefix(start));
            assert!(known.contains(&option) || value.is_some(), "{option}");
            if let Some(since) = option.strip_prefix("--since=@") {
                assert!(since.parse::<f64>().is_ok_and(|since| since <= NOW as f64 / 1e6), "{since}");
            }
            if let Some(lines) = option.strip_prefix("--lines=") {
                assert!(lines.parse::<i32>().is_ok_and(|lines| lines > 0), "{lines}");
            }
        }
        assert_eq!(words.contains(&"--follow"), wanted.follow);
    }
}

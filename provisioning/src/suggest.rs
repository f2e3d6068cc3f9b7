//! "Did you mean": the known key that a wrong one was probably meant to be.

/// What other tools call these things (OpenFaaS' stack file and its API, docker-compose).
const ALIASES: [(&str, &str); 15] = [
    ("env", "environment"),
    ("envvars", "environment"),
    ("fprocess", "env_process"),
    ("name", "hostname"),
    ("readonly", "read_only_root_filesystem"),
    ("username", "user"),
    ("pass", "password"),
    ("imagepullpolicy", "pull_policy"),
    ("endpoint", "mirrors"),
    ("provider", "provider_name"),
    ("internet", "world"),
    ("allowed", "allow"),
    ("outbound", "egress"),
    ("address", "url"),
    ("creds", "credentials"),
];

/// The key of `known` that `word` is likely to mean.
pub(crate) fn closest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    let plain = plain(word);
    let alias = ALIASES.iter().find(|(other, _)| *other == plain).map(|(_, key)| *key);
    known
        .iter()
        .find(|key| self::plain(key) == plain || Some(**key) == alias)
        .or_else(|| {
            // Two slips in a long word, one in a short one; more would be guessing.
            let allowed = if plain.chars().count() > 5 { 2 } else { 1 };
            known
                .iter()
                .map(|key| (distance(&plain, &self::plain(key)), key))
                .filter(|(slips, _)| *slips <= allowed)
                .min_by_key(|(slips, _)| *slips)
                .map(|(_, key)| key)
        })
        .copied()
}

/// `readOnlyRoot`, `read-only-root` and `read_only_root` are one word. Cut, so that a monstrous key costs nothing.
fn plain(word: &str) -> String {
    word.chars().filter(|c| !matches!(c, '_' | '-')).take(64).flat_map(char::to_lowercase).collect()
}

/// How many letters must be added, removed, changed or swapped with their neighbour (optimal string alignment).
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let width = right.len() + 1;
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..width).collect();
    let mut last = None;
    for (row, letter) in left.chars().enumerate() {
        let mut line = vec![row + 1];
        for (column, other) in right.iter().enumerate() {
            let get = |of: &[usize], at: usize| of.get(at).copied().unwrap_or(usize::MAX - 1);
            let mut best = (get(&above, column + 1) + 1)
                .min(get(&line, column) + 1)
                .min(get(&above, column) + usize::from(letter != *other));
            let swapped = column > 0 && last == Some(*other) && right.get(column - 1) == Some(&letter);
            if swapped {
                best = best.min(get(&before, column - 1) + 1);
            }
            line.push(best);
        }
        before = std::mem::replace(&mut above, line);
        last = Some(letter);
    }
    above.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        for (left, right, slips) in [
            ("", "", 0),
            ("", "ab", 2),
            ("ab", "", 2),
            ("image", "imgae", 1),
            ("user", "usr", 1),
            ("abc", "xyz", 3),
        ] {
            assert_eq!(distance(left, right), slips, "{left} {right}");
        }
    }

    #[test]
    fn suggestions() {
        let known = ["image", "environment", "env_process", "read_only_root_filesystem"];
        assert_eq!(closest("imgae", &known), Some("image"));
        assert_eq!(closest("envProcess", &known), Some("env_process"));
        assert_eq!(closest("fprocess", &known), Some("env_process"));
        assert_eq!(closest("envVars", &known), Some("environment"));
        assert_eq!(closest("readOnlyRootFilesystem", &known), Some("read_only_root_filesystem"));
        assert_eq!(closest("colour", &known), None);
    }
}

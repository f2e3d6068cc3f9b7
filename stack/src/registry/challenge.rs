//! What a registry wants to see before it answers: `WWW-Authenticate` (RFC 9110, 11.6.1).

/// One way to show who one is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge {
    /// Its scheme in small letters.
    pub scheme: String,
    parameters: Vec<(String, String)>,
}

impl Challenge {
    /// A parameter's value.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Reads a header's value, which may hold several. What cannot be read ends the list.
    pub fn parse(text: &str) -> Vec<Self> {
        let mut found: Vec<Self> = Vec::new();
        let mut rest = text;
        loop {
            rest = rest.trim_start_matches([' ', '\t', ',']);
            let (word, behind) = token(rest);
            if word.is_empty() {
                return found;
            }
            match behind.trim_start().strip_prefix('=') {
                Some(value) => {
                    let Some((value, behind)) = parameter(value.trim_start()) else { return found };
                    let Some(last) = found.last_mut() else { return found };
                    last.parameters.push((word.to_ascii_lowercase(), value));
                    rest = behind;
                }
                None => {
                    found.push(Self { scheme: word.to_ascii_lowercase(), parameters: Vec::new() });
                    rest = behind;
                }
            }
        }
    }
}

/// The token (RFC 9110, 5.6.2) at the start of a text, and what follows.
fn token(text: &str) -> (&str, &str) {
    let fits = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    text.split_at(text.find(|c| !fits(c)).unwrap_or(text.len()))
}

/// A parameter's value, with quotes or without, and what follows.
fn parameter(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let (value, rest) = token(text);
        return Some((value.to_owned(), rest));
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, c)) = characters.next() {
        match c {
            '"' => return Some((value, &quoted[at + 1..])),
            '\\' => value.push(characters.next()?.1),
            c => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn as_registries_write_them() {
        let hub = r#"Bearer realm="https://auth.example/token",service="registry.example",scope="repository:a/b:pull,push""#;
        let [bearer] = &Challenge::parse(hub)[..] else { panic!() };
        assert_eq!(bearer.scheme, "bearer");
        assert_eq!(bearer.get("realm"), Some("https://auth.example/token"));
        assert_eq!(bearer.get("scope"), Some("repository:a/b:pull,push"));
        assert_eq!(bearer.get("error"), None);
        let two = Challenge::parse(r#"BASIC realm="a \"b\"" , bearer Realm=x"#);
        assert_eq!(two.len(), 2);
        assert_eq!((two[0].scheme.as_str(), two[0].get("realm")), ("basic", Some("a \"b\"")));
        assert_eq!(two[1].get("realm"), Some("x"));
        assert_eq!(Challenge::parse("Basic")[0].scheme, "basic");
        for bad in ["", "realm=x", "\"", "=", ",,,"] {
            assert_eq!(Challenge::parse(bad), [], "{bad}");
        }
        // Cut off in the middle: what came before it counts.
        assert_eq!(Challenge::parse(r#"Bearer service="x",realm="y"#)[0].get("realm"), None);
    }

    proptest! {
        #[test]
        fn any_text_ends(text in "[Bearer=\",\\\\ ä\u{0}]{0,60}") {
            Challenge::parse(&text);
        }

        #[test]
        fn values_come_back(value in "[ -~]{0,40}") {
            let quoted = value.replace('\\', "\\\\").replace('"', "\\\"");
            let parsed = Challenge::parse(&format!("Bearer realm=\"{quoted}\", service=x"));
            prop_assert_eq!(parsed[0].get("realm"), Some(value.as_str()));
            prop_assert_eq!(parsed[0].get("service"), Some("x"));
        }
    }
}

//! `WWW-Authenticate` of registries.

use crate::registry::challenge::Challenge;

pub fn check(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let found = Challenge::parse(text);
    let read = slowly(text);
    let schemes: Vec<&str> = found.iter().map(|challenge| challenge.scheme.as_str()).collect();
    assert_eq!(schemes, read.iter().map(|(scheme, _)| scheme.as_str()).collect::<Vec<_>>(), "{text:?}");
    for (challenge, (_, parameters)) in found.iter().zip(&read) {
        for (name, _) in parameters {
            // The first one counts.
            let first = parameters.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
            assert_eq!(challenge.get(name), first, "{name} in {text:?}");
        }
        assert_eq!(challenge.get("\0"), None);
    }
    // What is put in quotes comes back.
    let quoted = text.replace('\\', "\\\\").replace('"', "\\\"");
    let [bearer, basic] = &Challenge::parse(&format!("Bearer realm=\"{quoted}\", Basic x=y"))[..] else {
        panic!("{quoted:?} is more than one value")
    };
    assert_eq!((bearer.get("realm"), bearer.get("x"), basic.get("x")), (Some(text), None, Some("y")));
}

type Read = Vec<(String, Vec<(String, String)>)>;

/// The same, one character at a time.
fn slowly(text: &str) -> Read {
    let mut found = Read::new();
    let mut rest = text.chars().peekable();
    let fits = |c: &char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(*c);
    loop {
        while rest.next_if(|c| matches!(c, ' ' | '\t' | ',')).is_some() {}
        let word: String = std::iter::from_fn(|| rest.next_if(fits)).collect();
        if word.is_empty() {
            return found;
        }
        let word = word.to_ascii_lowercase();
        let before = rest.clone();
        while rest.next_if(|c| c.is_whitespace()).is_some() {}
        if rest.next_if_eq(&'=').is_none() {
            rest = before;
            found.push((word, Vec::new()));
            continue;
        }
        while rest.next_if(|c| c.is_whitespace()).is_some() {}
        let mut value = String::new();
        if rest.next_if_eq(&'"').is_some() {
            loop {
                match rest.next() {
                    Some('"') => break,
                    Some('\\') => match rest.next() {
                        Some(c) => value.push(c),
                        None => return found,
                    },
                    Some(c) => value.push(c),
                    None => return found,
                }
            }
        } else {
            value.extend(std::iter::from_fn(|| rest.next_if(fits)));
        }
        match found.last_mut() {
            Some((_, parameters)) => parameters.push((word, value)),
            None => return found,
        }
    }
}

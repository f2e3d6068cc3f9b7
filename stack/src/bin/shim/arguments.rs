//! The command line that containerd gives a shim: flags in Go's manner, then an action.

use std::path::PathBuf;

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Listen, print the address, go on in the background.
    Start,
    /// Clean up after a shim that is gone.
    Delete,
    /// Tell the version.
    Version,
}

/// The command line.
#[derive(Debug, PartialEq, Eq)]
pub struct Arguments {
    /// containerd's namespace.
    pub namespace: String,
    /// The container's identifier.
    pub id: String,
    /// containerd's own socket; part of the name of ours.
    pub address: String,
    /// The bundle's folder, for [`Action::Delete`]. Otherwise it is the working directory.
    pub bundle: Option<PathBuf>,
    /// What to do.
    pub action: Action,
}

impl Arguments {
    /// Reads the words behind the program's name. Flags that we have no use for are passed over.
    pub fn parse(words: impl IntoIterator<Item = String>) -> Result<Self, String> {
        let mut words = words.into_iter();
        let (mut namespace, mut id, mut address) = (String::new(), String::new(), String::new());
        let (mut bundle, mut action) = (None, None);
        while let Some(word) = words.next() {
            let Some(flag) = word.strip_prefix("--").or_else(|| word.strip_prefix('-')) else {
                action = Some(match word.as_str() {
                    "start" => Action::Start,
                    "delete" => Action::Delete,
                    other => return Err(format!("{other:?} is no action: start, delete")),
                });
                break;
            };
            let (name, value) = match flag.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (flag, None),
            };
            match name {
                "v" | "version" => action = Some(Action::Version),
                "debug" => {}
                "namespace" | "id" | "address" | "bundle" | "publish-binary" | "socket" => {
                    let value =
                        value.or_else(|| words.next()).ok_or_else(|| format!("-{name} needs a value"))?;
                    match name {
                        "namespace" => namespace = value,
                        "id" => id = value,
                        "address" => address = value,
                        "bundle" => bundle = Some(PathBuf::from(value)),
                        _ => {}
                    }
                }
                _ => return Err(format!("-{name} is no flag of a shim's")),
            }
        }
        let action = action.ok_or("no action: start, delete")?;
        for (name, value) in [("namespace", &namespace), ("id", &id)] {
            // Both become parts of paths.
            if action != Action::Version && (value.is_empty() || value == ".." || value.contains('/')) {
                return Err(format!("-{name} {value:?} is none"));
            }
        }
        Ok(Self { namespace, id, address, bundle, action })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Arguments, String> {
        Arguments::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn as_containerd_writes_it() {
        let start = parse(
            "-namespace openfaas-fn -address /run/c.sock -publish-binary /usr/bin/containerd -id f start",
        )
        .unwrap();
        assert_eq!(
            (start.namespace.as_str(), start.id.as_str(), start.address.as_str(), start.action),
            ("openfaas-fn", "f", "/run/c.sock", Action::Start)
        );
        let delete = parse("--namespace=n -debug -id f -bundle /run/b delete").unwrap();
        assert_eq!((delete.action, delete.bundle), (Action::Delete, Some("/run/b".into())));
        assert_eq!(parse("-v").unwrap().action, Action::Version);
    }

    #[test]
    fn what_would_be_another_path_is_refused() {
        for line in
            ["", "start", "-namespace n start", "-namespace n -id a/b start", "-namespace .. -id a start"]
        {
            assert!(parse(line).is_err(), "{line}");
        }
        for line in ["-namespace n -id", "-namespace n -id f run", "-what n -id f start"] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}

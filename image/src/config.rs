//! `bothy config check FILE`: is it a good `bothy.toml`, and what does it say?

use std::path::Path;
use std::process::ExitCode;

use provisioning::{Config, SIZE_LIMIT_BYTES, parse_bytes};

/// Reads a file and prints either what it says, on standard output, or everything that is wrong with it, on standard
/// error. Succeeds only for a good file.
pub fn check(path: &Path) -> ExitCode {
    let origin = path.display().to_string();
    match read(path) {
        Err(error) => eprintln!("bothy: read {origin}: {error}"),
        Ok(bytes) => match parse_bytes(&bytes, &origin) {
            Err(diagnostics) => eprint!("{diagnostics}"),
            Ok(config) => {
                print!("{origin}: ok\n{}", summary(&config));
                return ExitCode::SUCCESS;
            }
        },
    }
    ExitCode::FAILURE
}

/// The file, but of one that is far too large only as much as shows that.
fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    use std::io::Read;
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(SIZE_LIMIT_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// What a machine will make of a configuration, a line a thing. No secret is in it.
fn summary(config: &Config) -> String {
    let name = config.hostname.as_ref().map_or("the machine names itself", |name| name.as_str());
    let password = match config.gateway.password {
        Some(_) => "the password is set",
        None => "the machine makes its own password",
    };
    let mut text = format!("  hostname   {name}\n  gateway    user {}, {password}\n", config.gateway.user);
    if config.functions.is_empty() {
        text.push_str("  functions  none\n");
    }
    for function in &config.functions {
        text.push_str(&format!(
            "  function   {}.{} from {}\n",
            function.name, function.namespace, function.image
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_shows_everything_but_secrets() {
        let text = "version = 1\nhostname = \"barn\"\ngateway = { password = \"swordfish\" }\n[functions.figlet]\n\
                    image = \"localhost/figlet:latest\"\n";
        let shown = summary(&provisioning::parse(text, "f").unwrap());
        assert!(shown.contains("barn") && shown.contains("figlet.openfaas-fn from localhost/figlet:latest"));
        assert!(shown.contains("the password is set") && !shown.contains("swordfish"));
        let bare = summary(&provisioning::parse("version = 1", "f").unwrap());
        assert!(bare.contains("names itself") && bare.contains("makes its own") && bare.contains("none"));
    }

    #[test]
    fn only_a_good_file_succeeds() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("bothy.toml");
        let failed = |path: &Path| format!("{:?}", check(path)) == format!("{:?}", ExitCode::FAILURE);
        assert!(failed(&file));
        std::fs::write(&file, "version = 1\nhostnam = 1\n").unwrap();
        assert!(failed(&file));
        std::fs::write(&file, provisioning::default_document()).unwrap();
        assert!(!failed(&file));
    }
}

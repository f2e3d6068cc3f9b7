//! The firewall's part: our own table, replaced as a whole in one transaction. Nobody else's rules are touched.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::process::Stdio;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::sync::Mutex;

use super::{Settings, rules};
use crate::error::{Error, Result};

/// Our table.
#[derive(Default)]
pub struct Firewall {
    /// The text that was loaded last. Held from the look at the servers until nft has run: the last one to load must be who
    /// knows most.
    loaded: Mutex<Option<String>>,
}

impl Firewall {
    /// Puts the table in place that goes with these servers of names, unless it is there.
    pub async fn load(
        &self,
        settings: &Settings,
        servers: impl FnOnce() -> BTreeSet<Ipv4Addr>,
    ) -> Result<()> {
        if settings.nft.is_empty() {
            return Ok(());
        }
        let mut loaded = self.loaded.lock().await;
        let wanted = rules::table(settings, &servers());
        if loaded.as_ref() != Some(&wanted) {
            run(&settings.nft, &wanted).await?;
            *loaded = Some(wanted);
        }
        Ok(())
    }
}

async fn run(program: &str, rules: &str) -> Result<()> {
    let error = |reason: String| Error::Nft { program: program.to_owned(), reason };
    let mut child = Command::new(program)
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|e| error(e.to_string()))?;
    if let Some(mut stdin) = child.stdin.take() {
        // Where nft ended early its own words are the better error.
        let _ = stdin.write_all(rules.as_bytes()).await;
    }
    let output = child.wait_with_output().await.map_err(|e| error(e.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).split_whitespace().collect::<Vec<_>>().join(" ");
    Err(error(format!("{}: {said}", output.status)))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use provisioning::Egress;

    use super::*;

    #[tokio::test]
    async fn only_what_changes_is_loaded() {
        let folder = tempfile::tempdir().unwrap();
        let (program, seen) = (folder.path().join("nft"), folder.path().join("seen"));
        let script = format!("#!/bin/sh\ncat >/dev/null\necho >>{}\n", seen.display());
        fs::write(&program, script).unwrap();
        fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let mut settings = Settings::sample(Egress { world: false, ..Egress::default() });
        settings.nft = program.to_str().unwrap().to_owned();
        let firewall = Firewall::default();
        let times = || fs::read(&seen).unwrap_or_default().len();
        let servers = |text: &[&str]| text.iter().map(|server| server.parse().unwrap()).collect();
        for (names, wanted) in [(&[][..], 1), (&[], 1), (&["192.0.2.53"], 2), (&["192.0.2.53"], 2), (&[], 3)]
        {
            firewall.load(&settings, || servers(names)).await.unwrap();
            assert_eq!(times(), wanted, "{names:?}");
        }
        // What was not loaded is tried again.
        fs::write(&program, "#!/bin/sh\necho 'no  such\nmodule' >&2\nexit 1\n").unwrap();
        for _ in 0..2 {
            let error = firewall.load(&settings, || servers(&["192.0.2.54"])).await.unwrap_err().to_string();
            assert!(error.ends_with("exit status: 1: no such module"), "{error}");
        }
        settings.nft = String::new();
        firewall.load(&settings, || servers(&["192.0.2.55"])).await.unwrap();
    }
}

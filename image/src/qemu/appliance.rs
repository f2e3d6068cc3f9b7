//! Our image in a machine: what to start it with, when it is ready, and how to talk to its gateway.

use std::path::Path;
use std::time::Duration;

use serde_json::json;

use super::{Accel, Answer, Boot, Client, Disk, Firmware, Line, Machine, Result, Running};
use crate::Artifacts;

/// What `init` prints on the console once every service is ready.
pub const READY: &str = "bothy: ready:";

/// The function whose image is in every appliance.
pub const SAMPLE_FUNCTION: &str = "figlet";

/// That image.
pub const SAMPLE_IMAGE: &str = "localhost/figlet:latest";

/// How long a single request may take. Emulated, the first call of a function waits for a dozen megabytes of programs
/// to be read, verified and unpacked.
const REQUEST: Duration = Duration::from_secs(30);

/// How long a deployment, and what ends one, may take: the gateway answers when the first image is imported and the function runs.
const DEPLOYMENT: Duration = Duration::from_secs(120);

/// One of our images and how to start it.
pub struct Appliance<'a> {
    /// The image.
    pub artifacts: &'a Artifacts,
    /// What executes its code.
    pub accel: Accel,
    /// Whether it boots through UEFI firmware rather than directly.
    pub firmware: bool,
}

impl Appliance<'_> {
    /// A machine with a disk.
    ///
    /// # Errors
    /// Firmware is wanted and there is none.
    pub fn machine(&self, folder: &Path, disk: &Disk) -> Result<Machine> {
        let boot = match self.firmware {
            true => Boot::Firmware(Firmware::find()?),
            false => Boot::Direct {
                kernel: self.artifacts.kernel.clone(),
                initrd: self.artifacts.initrd.clone(),
                command_line: self.artifacts.command_line.trim().to_owned(),
            },
        };
        let mut machine = Machine::new(folder, self.accel, boot);
        machine.disk = Some(disk.clone());
        Ok(machine)
    }

    /// How long a boot may take before something must be wrong. Emulation on a busy host is an order slower than
    /// hardware.
    pub fn boot_limit(&self) -> Duration {
        match (self.accel, self.firmware) {
            (Accel::Kvm, _) => Duration::from_secs(60),
            (Accel::Tcg, false) => Duration::from_secs(180),
            (Accel::Tcg, true) => Duration::from_secs(300),
        }
    }
}

/// A `bothy.toml` with the gateway's credentials and nothing else. Neither may hold a quote or a backslash.
pub fn configuration(user: &str, password: &str) -> String {
    format!("version = 1\n\n[gateway]\nuser = \"{user}\"\npassword = \"{password}\"\n")
}

impl Running {
    /// Waits until `init` says that the machine is ready.
    ///
    /// # Errors
    /// As [`Running::wait_for`].
    pub fn ready(&mut self, limit: Duration) -> Result<Line> {
        self.wait_for(READY, limit)
    }
}

/// The gateway of a running machine, with credentials.
#[derive(Clone)]
pub struct Gateway {
    client: Client,
}

impl Gateway {
    /// The gateway behind a client that has credentials.
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    /// The client itself.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// `GET /healthz`.
    ///
    /// # Errors
    /// There was no answer.
    pub fn health(&self) -> Result<Answer> {
        self.client.get("/healthz", REQUEST)
    }

    /// Whether a function is deployed.
    ///
    /// # Errors
    /// There was no answer, or one that is neither yes nor no.
    pub fn has(&self, function: &str) -> Result<bool> {
        let answer = self.client.get(&format!("/system/function/{function}"), REQUEST)?;
        match answer.status {
            200 => Ok(true),
            404 => Ok(false),
            _ => Err(answer.refused(format!("look for the function {function}"))),
        }
    }

    /// Deploys a function with an image's own settings.
    ///
    /// # Errors
    /// There was no answer, or a refusal.
    pub fn deploy(&self, function: &str, image: &str) -> Result<()> {
        self.deploy_document(&json!({ "service": function, "image": image }))
    }

    /// Deploys a function, described as the gateway's API wants it.
    ///
    /// # Errors
    /// There was no answer, or a refusal.
    pub fn deploy_document(&self, document: &serde_json::Value) -> Result<()> {
        let answer = self.client.post("/system/functions", &document.to_string(), DEPLOYMENT)?;
        answer.done(format!("deploy {}", document["service"]))
    }

    /// Sets how many instances of a function run.
    ///
    /// # Errors
    /// There was no answer, or a refusal.
    pub fn scale(&self, function: &str, replicas: u64) -> Result<()> {
        let (path, body) = (format!("/system/scale-function/{function}"), json!({ "replicas": replicas }));
        let answer = self.client.post(&path, &body.to_string(), DEPLOYMENT)?;
        answer.done(format!("scale {function} to {replicas}"))
    }

    /// Removes a function, and waits until nothing of it is left.
    ///
    /// # Errors
    /// There was no answer, or a refusal.
    pub fn remove(&self, function: &str) -> Result<()> {
        let body = json!({ "functionName": function }).to_string();
        let answer = self.client.request("DELETE", "/system/functions", Some(&body), DEPLOYMENT)?;
        answer.done(format!("remove {function}"))
    }

    /// Calls a function.
    ///
    /// # Errors
    /// There was no answer. A status other than 200 is an answer.
    pub fn call(&self, function: &str, body: &str) -> Result<Answer> {
        self.client.post(&format!("/function/{function}"), body, REQUEST)
    }

    /// Has a function called later: 202 promises that it will be.
    ///
    /// # Errors
    /// There was no answer. A status other than 202 is an answer.
    pub fn call_later(&self, function: &str, body: &str) -> Result<Answer> {
        self.client.post(&format!("/async-function/{function}"), body, REQUEST)
    }

    /// How far such a call is, as `GET /system/calls/ID` tells it.
    ///
    /// # Errors
    /// There was no answer. A status other than 200 is an answer.
    pub fn call_status(&self, id: &str) -> Result<Answer> {
        self.client.get(&format!("/system/calls/{id}"), REQUEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_is_a_good_one() {
        let text = configuration("admin", "abc");
        let config = provisioning::parse(&text, "bothy.toml").unwrap();
        assert_eq!(
            (config.gateway.user.as_str(), config.gateway.password.unwrap().expose()),
            ("admin", "abc")
        );
    }
}

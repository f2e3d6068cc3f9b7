//! The TLS port of a whole machine: it takes its certificate while it runs, and the supervisor holds its socket while the
//! gateway is away.

use std::io::Write;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use image::qemu::configuration;
use qemu_tests::{BOTHY, Inside, PASSWORD, SAMPLE_FUNCTION, SAMPLE_IMAGE, shell, shell_case};

const CERTIFICATE: &str = "certificate.pem";
const KEY: &str = "key.pem";

/// How long the gateway may take to see them.
const SOON: Duration = Duration::from_secs(60);

/// Where they lie on the machine.
const FOLDER: &str = "/var/lib/bothy/tls";

/// The certificate is its own authority.
fn make_certificate(folder: &Path) -> Result<()> {
    let words = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 3650 -subj /CN=bothy -addext \
                 subjectAltName=IP:127.0.0.1 -keyout key.pem -out certificate.pem";
    let made = Command::new("openssl").args(words.split_whitespace()).current_dir(folder).output();
    let made = made.context("start openssl")?;
    ensure!(made.status.success(), "openssl: {}", String::from_utf8_lossy(&made.stderr));
    Ok(())
}

/// Calls the function over TLS as a client does that knows the certificate; gives all that came back.
fn call(folder: &Path, port: u16) -> Result<String> {
    let address = format!("127.0.0.1:{port}");
    let words =
        ["s_client", "-quiet", "-verify_return_error", "-verify_ip", "127.0.0.1", "-CAfile", CERTIFICATE];
    let mut client = Command::new("openssl")
        .args(words)
        .args(["-connect", &address])
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("start openssl")?;
    let request = format!(
        "POST /function/{SAMPLE_FUNCTION} HTTP/1.1\r\nHost: bothy\r\nContent-Length: 5\r\nConnection: close\r\n\r\nBothy"
    );
    // Open until the answer has come: the end of its input ends the program.
    let mut input = client.stdin.take().context("no input")?;
    input.write_all(request.as_bytes())?;
    let output = client.wait_with_output()?;
    drop(input);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(said.starts_with("HTTP/1.1 200"), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    Ok(said)
}

#[test]
fn https_from_outside_whoever_died() {
    shell_case("tls", |case| {
        make_certificate(case.folder())?;
        let settings = format!(
            "tls_certificate = \"{FOLDER}/{CERTIFICATE}\"\ntls_key = \"{FOLDER}/{KEY}\"\ntls_only = true\n"
        );
        let disk = case.disk(Some(&(configuration("admin", PASSWORD) + &settings)))?;
        let mut machine = case.machine(&disk)?;
        // A port that is free a moment later, too, unless somebody is very quick.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        machine.tls_port = Some(port);
        let mut running = case.boot(&machine)?;
        let refused = case.status(&mut running, "/healthz", 403)?;
        ensure!(refused.body.contains("use https, port 443"), "{refused:?}");
        // Plain HTTP is for the machine itself.
        let document = format!("{{\"service\":\"{SAMPLE_FUNCTION}\",\"image\":\"{SAMPLE_IMAGE}\"}}");
        let deploy = format!(
            "busybox wget -q -O - --header 'Authorization: Basic '$(printf %s admin:{PASSWORD} | busybox base64) \
             --post-data '{document}' http://127.0.0.1:8080/system/functions"
        );
        shell(&mut running, &deploy)?;
        ensure!(call(case.folder(), port).is_err(), "there is no certificate yet");
        shell(&mut running, &format!("mkdir -p {FOLDER}"))?;
        for file in [KEY, CERTIFICATE] {
            let text = std::fs::read_to_string(case.folder().join(file))?;
            let text = text.replace('\n', "\\n");
            shell(&mut running, &format!("printf %b '{text}' >{FOLDER}/{file}"))?;
        }
        let banner = BOTHY.trim_end();
        let began = Instant::now();
        while call(case.folder(), port).is_err() {
            ensure!(began.elapsed() < SOON, "the certificate is not taken: {:?}", call(case.folder(), port));
        }
        for killed in ["gateway", "containerd", "gateway"] {
            let pid = Inside::look(&mut running)?.of_group(&format!("system/{killed}"))?.pid;
            shell(&mut running, &format!("kill -9 {pid}"))?;
            // At once: nobody is refused, the call waits.
            ensure!(call(case.folder(), port)?.contains(banner), "after {killed} was killed");
        }
        case.power_off(running)
    });
}

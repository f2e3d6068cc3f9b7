//! A token server as registries send their clients to (Docker's token specification): it signs what the registry checks.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::json;
use stack::base64;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// Runs a program that must succeed.
pub fn run(program: &str, arguments: &[&str], folder: &Path) {
    let done = Command::new(program).args(arguments).current_dir(folder).stdin(Stdio::null()).output();
    let done = done.unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(done.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
}

/// Makes a certificate authority (`ca.pem`) and, signed by it, a server's certificate for 127.0.0.1 (`server.pem`,
/// `server.key`).
pub fn make_certificates(folder: &Path) {
    let ca = "req -x509 -newkey rsa:2048 -nodes -days 3650 -subj /CN=plant -keyout ca.key -out ca.pem";
    let request = "req -newkey rsa:2048 -nodes -subj /CN=registry -keyout server.key -out server.csr";
    let sign = "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 3650 -extfile server.ext -out \
                server.pem";
    fs::write(folder.join("server.ext"), "subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n").unwrap();
    for command in [ca, request, sign] {
        run("openssl", &command.split_whitespace().collect::<Vec<_>>(), folder);
    }
}

/// Gives tokens to `farmer` with the password `s3cret`, and to whoever comes with the identity token `refresh`; it ends
/// with the test.
pub async fn serve(port: u16, folder: PathBuf) {
    let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut bytes = vec![0; 1 << 16];
            let count = client.read(&mut bytes).await.unwrap_or(0);
            let request = String::from_utf8_lossy(&bytes[..count]).into_owned();
            let password = format!("authorization: Basic {}", base64::encode(b"farmer:s3cret"));
            let known = request.contains(&password)
                || request.starts_with("POST")
                    && request.contains("grant_type=refresh_token")
                    && request.contains("refresh_token=refresh");
            let asked = request.contains("scope=repository%3Asecret%2Ffiglet%3Apull")
                && request.contains("service=test");
            let (status, body) = match known && asked {
                true => ("200 OK", json!({"token": token("secret/figlet", &folder)}).to_string()),
                false => ("401 Unauthorized", "{}".to_owned()),
            };
            let answer = format!(
                "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
            let _ = client.write_all(answer.as_bytes()).await;
        }
    });
}

/// A token that lets its bearer pull from a repository, signed with the authority's key.
fn token(repository: &str, folder: &Path) -> String {
    let pem = fs::read_to_string(folder.join("ca.pem")).unwrap();
    let der: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let header = json!({"typ": "JWT", "alg": "RS256", "x5c": [der]}).to_string();
    let claims = json!({"iss": "test", "sub": "farmer", "aud": "test", "nbf": now - 60, "iat": now, "exp": now + 300,
                        "jti": "1", "access": [{"type": "repository", "name": repository, "actions": ["pull"]}]});
    let signed = format!("{}.{}", for_urls(header.as_bytes()), for_urls(claims.to_string().as_bytes()));
    fs::write(folder.join("token"), &signed).unwrap();
    run("openssl", &["dgst", "-sha256", "-sign", "ca.key", "-out", "token.sig", "token"], folder);
    format!("{signed}.{}", for_urls(&fs::read(folder.join("token.sig")).unwrap()))
}

/// Base64 as tokens have it (RFC 4648, section 5, without padding).
fn for_urls(bytes: &[u8]) -> String {
    base64::encode(bytes).trim_end_matches('=').replace('+', "-").replace('/', "_")
}

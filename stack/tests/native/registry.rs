//! A real registry (Debian's docker-registry) for one test, and what is pushed to it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::header::{CONTENT_TYPE, LOCATION};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use sha2::{Digest, Sha256};

/// `farmer` with the password `s3cret`, as htpasswd(1) has it (bcrypt of the least cost).
pub const PASSWORDS: &str = "farmer:$2b$05$fOnsyeetMv.n.s71T4mbXOs1WKWJMGeLp/O5zqLaPuX9xboGtJ5hi\n";

/// A registry that runs. It ends with the test, or when it is dropped.
pub struct Registry {
    child: Child,
    /// Where it answers.
    pub address: String,
}

/// The folder that all registries of a test keep their images in: what is pushed to one is in every one.
pub fn storage(folder: &Path) -> PathBuf {
    folder.join("registry")
}

impl Registry {
    /// Starts one. `more` goes into its configuration: how it is spoken to, and who may.
    pub fn start(folder: &Path, port: u16, more: &str) -> Self {
        let address = format!("127.0.0.1:{port}");
        let (config, log) =
            (folder.join(format!("registry-{port}.yml")), folder.join(format!("registry-{port}.log")));
        let text = format!(
            "version: 0.1\nlog: {{level: info}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp:\n  addr: {address}\n\
             {more}\n",
            storage(folder).display()
        );
        fs::write(&config, text).unwrap();
        let log = fs::File::options().create(true).append(true).open(log).unwrap();
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("docker-registry (Debian's package of that name): {error}"));
        let registry = Self { child, address };
        let end = Instant::now() + Duration::from_secs(30);
        while std::net::TcpStream::connect(&registry.address).is_err() {
            assert!(Instant::now() < end, "docker-registry does not listen on {}", registry.address);
            std::thread::sleep(Duration::from_millis(20));
        }
        registry
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One request in plain HTTP.
pub async fn ask(address: &str, request: Request<Full<Bytes>>) -> Response<Bytes> {
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    let response = sender.send_request(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    connection.abort();
    Response::from_parts(parts, body)
}

fn request(address: &str, method: Method, path: &str, body: Vec<u8>) -> Request<Full<Bytes>> {
    let builder = Request::builder().method(method).uri(path).header("host", address);
    builder.body(Full::new(Bytes::from(body))).unwrap()
}

/// Pushes a layout's image under a repository and tag; gives its manifest's digest.
pub async fn push(address: &str, layout: &Path, repository: &str, tag: &str) -> String {
    let index: Value = read(&layout.join("index.json"));
    let digest = index["manifests"][0]["digest"].as_str().unwrap().to_owned();
    let manifest: Value = read(&blob(layout, &digest));
    for part in manifest["layers"].as_array().unwrap().iter().chain([&manifest["config"]]) {
        let part = part["digest"].as_str().unwrap();
        push_blob(address, repository, part, fs::read(blob(layout, part)).unwrap()).await;
    }
    let bytes = fs::read(blob(layout, &digest)).unwrap();
    push_manifest(address, repository, tag, manifest["mediaType"].as_str().unwrap(), bytes).await;
    digest
}

async fn push_blob(address: &str, repository: &str, digest: &str, bytes: Vec<u8>) {
    let begun =
        ask(address, request(address, Method::POST, &format!("/v2/{repository}/blobs/uploads/"), vec![]))
            .await;
    assert_eq!(begun.status(), StatusCode::ACCEPTED, "{begun:?}");
    let location: hyper::Uri = begun.headers()[LOCATION].to_str().unwrap().parse().unwrap();
    let path = format!("{}&digest={digest}", location.path_and_query().unwrap());
    let done = ask(address, request(address, Method::PUT, &path, bytes)).await;
    assert_eq!(done.status(), StatusCode::CREATED, "{done:?}");
}

/// Pushes a manifest or index.
pub async fn push_manifest(address: &str, repository: &str, tag: &str, media_type: &str, bytes: Vec<u8>) {
    let mut put = request(address, Method::PUT, &format!("/v2/{repository}/manifests/{tag}"), bytes);
    put.headers_mut().insert(CONTENT_TYPE, media_type.parse().unwrap());
    let done = ask(address, put).await;
    assert_eq!(done.status(), StatusCode::CREATED, "{done:?}");
}

/// The digest of an image's only layer, and of its manifest's bytes.
pub fn layer(layout: &Path) -> String {
    let index: Value = read(&layout.join("index.json"));
    let manifest: Value = read(&blob(layout, index["manifests"][0]["digest"].as_str().unwrap()));
    manifest["layers"][0]["digest"].as_str().unwrap().to_owned()
}

/// The manifest of a layout.
pub fn manifest(layout: &Path) -> Vec<u8> {
    let index: Value = read(&layout.join("index.json"));
    fs::read(blob(layout, index["manifests"][0]["digest"].as_str().unwrap())).unwrap()
}

/// A digest as documents have it.
pub fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// Where a registry keeps a blob.
pub fn stored(folder: &Path, digest: &str) -> PathBuf {
    let hex = digest.trim_start_matches("sha256:");
    storage(folder).join("docker/registry/v2/blobs/sha256").join(&hex[..2]).join(hex).join("data")
}

fn blob(layout: &Path, digest: &str) -> PathBuf {
    layout.join("blobs/sha256").join(digest.trim_start_matches("sha256:"))
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

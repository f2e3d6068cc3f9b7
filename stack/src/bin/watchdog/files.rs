//! Mode static: files of a folder.

use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};

use bytes::Bytes;
use futures_util::stream;
use http_body_util::StreamBody;
use hyper::body::Frame;
use hyper::header::{
    ACCEPT_RANGES, ALLOW, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderName, HeaderValue,
    IF_NONE_MATCH, IF_RANGE, LOCATION, RANGE, X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Method, Request, Response, StatusCode};
use nix::fcntl::OFlag;
use tokio::task::spawn_blocking;

use crate::body::{Body, Problem, empty, text};
use crate::output::say;
use crate::percent;
use crate::range::Range;

/// Bytes that are read at once.
const CHUNK: u64 = 64 << 10;

/// A folder's own file.
const INDEX: &str = "index.html";

/// A folder whose files are the answers.
pub struct Files {
    root: PathBuf,
}

/// What lies under a path.
enum Found {
    File {
        file: File,
        length: u64,
        tag: String,
        kind: &'static str,
    },
    /// A folder, asked for without the slash at its end.
    Folder,
    Nothing,
}

impl Files {
    /// A folder that has to be there.
    pub fn open(root: &Path) -> Result<Self, String> {
        let wrong = |reason: String| format!("static_path={}: {reason}, expected a folder", root.display());
        let metadata = std::fs::metadata(root).map_err(|e| wrong(e.to_string()))?;
        if !metadata.is_dir() {
            return Err(wrong("it is no folder".to_owned()));
        }
        Ok(Self { root: root.to_owned() })
    }

    /// The answer to a call.
    pub async fn answer(&self, request: &Request<Body>) -> Response<Body> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "");
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        let path = request.uri().path();
        let Some(relative) = percent::decode(path).and_then(|decoded| within(&decoded)) else {
            return text(StatusCode::BAD_REQUEST, "the path is not encoded correctly, or leads out\n");
        };
        let (place, slash) = (self.root.join(relative), path.ends_with('/'));
        // The card may be slow: other calls do not wait for it.
        let found = spawn_blocking(move || find(&place, slash)).await.map_err(std::io::Error::other);
        match found.flatten() {
            Ok(Found::File { file, length, tag, kind }) => send(request, file, length, &tag, kind),
            Ok(Found::Folder) => redirect(path, request.uri().query()),
            Ok(Found::Nothing) => text(StatusCode::NOT_FOUND, "404 page not found\n"),
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                text(StatusCode::FORBIDDEN, "403 Forbidden\n")
            }
            Err(error) => {
                say(format_args!("{path:.256}: {error}"));
                text(StatusCode::INTERNAL_SERVER_ERROR, "500 Internal Server Error\n")
            }
        }
    }
}

/// A path below the folder; nothing for one that leads out of it.
fn within(decoded: &[u8]) -> Option<PathBuf> {
    let path = Path::new(std::ffi::OsStr::from_bytes(decoded));
    let mut relative = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => relative.push(name),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => return None,
        }
    }
    Some(relative)
}

fn find(place: &Path, slash: bool) -> std::io::Result<Found> {
    let place = if slash { place.join(INDEX) } else { place.to_owned() };
    // A FIFO does not keep anybody waiting.
    let opened = File::options().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(&place);
    let file = match opened {
        Ok(file) => file,
        Err(error)
            if matches!(
                error.kind(),
                std::io::ErrorKind::NotFound
                    | std::io::ErrorKind::NotADirectory
                    | std::io::ErrorKind::InvalidFilename
            ) =>
        {
            return Ok(Found::Nothing);
        }
        Err(error) => return Err(error),
    };
    let metadata = file.metadata()?;
    if metadata.is_dir() && !slash {
        return Ok(Found::Folder);
    }
    if !metadata.is_file() {
        return Ok(Found::Nothing);
    }
    let length = metadata.len();
    // Images are made with one time for all files: only the kernel's own time tells that one has changed.
    let tag = format!("\"{:x}-{:x}-{length:x}\"", metadata.ctime(), metadata.ctime_nsec());
    Ok(Found::File { file, length, tag, kind: kind(&place) })
}

/// Sends a browser to a folder with its slash: relative links in the folder's file count from there.
fn redirect(path: &str, query: Option<&str>) -> Response<Body> {
    // Only the last name: of a path that begins with two slashes a browser would make a host.
    let name = path.rsplit('/').next().unwrap_or_default();
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    let mut response = text(StatusCode::MOVED_PERMANENTLY, "");
    // Its parts have been parts of a URI.
    if let Ok(location) = HeaderValue::try_from(format!("./{name}/{query}")) {
        response.headers_mut().insert(LOCATION, location);
    }
    response
}

fn send(request: &Request<Body>, file: File, length: u64, tag: &str, kind: &'static str) -> Response<Body> {
    let header = |name: HeaderName| request.headers().get(name).and_then(|value| value.to_str().ok());
    let mut response = Response::new(empty());
    let headers = response.headers_mut();
    if let Ok(tag) = HeaderValue::try_from(tag) {
        headers.insert(ETAG, tag);
    }
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    let known = header(IF_NONE_MATCH).is_some_and(|tags| {
        tags.split(',').map(str::trim).any(|known| known == "*" || known.trim_start_matches("W/") == tag)
    });
    if known {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        return response;
    }
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // A part of a file that has changed is of no use to who has the other parts.
    let same = header(IF_RANGE).is_none_or(|known| known == tag);
    let range = match header(RANGE).filter(|_| same) {
        Some(range) => Range::parse(range, length),
        None => Range::Whole,
    };
    let (first, count, of) = match range {
        Range::Whole => (0, length, None),
        Range::Part(first, last) => (first, last - first + 1, Some(format!("bytes {first}-{last}/{length}"))),
        Range::Outside => (0, 0, Some(format!("bytes */{length}"))),
    };
    headers.insert(CONTENT_LENGTH, HeaderValue::from(count));
    if let Some(Ok(of)) = of.map(HeaderValue::try_from) {
        headers.insert(CONTENT_RANGE, of);
    }
    *response.status_mut() = match range {
        Range::Whole => StatusCode::OK,
        Range::Part(..) => StatusCode::PARTIAL_CONTENT,
        Range::Outside => StatusCode::RANGE_NOT_SATISFIABLE,
    };
    if request.method() == Method::GET && count > 0 {
        *response.body_mut() = body(file, first, count);
    }
    response
}

/// Bytes of a file. One that gets shorter meanwhile breaks the answer off.
fn body(file: File, first: u64, count: u64) -> Body {
    let frames = stream::unfold(Some((file, first, count)), |rest| async {
        let (file, first, count) = rest.filter(|(_, _, count)| *count > 0)?;
        let read = spawn_blocking(move || {
            let mut chunk = vec![0; usize::try_from(count.min(CHUNK)).unwrap_or_default()];
            let n = file.read_at(&mut chunk, first)?;
            chunk.truncate(n);
            Ok::<_, std::io::Error>((file, chunk))
        });
        match read.await.map_err(std::io::Error::other).flatten() {
            Ok((_, chunk)) if chunk.is_empty() => {
                Some((Err(Problem::from("the file has become shorter")), None))
            }
            Ok((file, chunk)) => {
                let n = chunk.len() as u64;
                Some((Ok(Frame::data(Bytes::from(chunk))), Some((file, first + n, count - n))))
            }
            Err(error) => Some((Err(error.into()), None)),
        }
    });
    Box::pin(StreamBody::new(frames))
}

/// A file's type, by the end of its name.
fn kind(path: &Path) -> &'static str {
    let ending = path.extension().map(|ending| ending.to_string_lossy().to_ascii_lowercase());
    match ending.as_deref().unwrap_or_default() {
        "html" | "htm" => "text/html; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "txt" | "log" => "text/plain; charset=utf-8",
        "md" => "text/markdown; charset=utf-8",
        "csv" => "text/csv; charset=utf-8",
        "xml" => "text/xml; charset=utf-8",
        "json" | "map" => "application/json",
        "webmanifest" => "application/manifest+json",
        "wasm" => "application/wasm",
        "pdf" => "application/pdf",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "webp" => "image/webp",
        "avif" => "image/avif",
        "ico" => "image/x-icon",
        "woff" => "font/woff",
        "woff2" => "font/woff2",
        "ttf" => "font/ttf",
        "mp3" => "audio/mpeg",
        "mp4" => "video/mp4",
        "webm" => "video/webm",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_inside() {
        assert_eq!(within(b"/a//b/./c"), Some("a/b/c".into()));
        assert_eq!(within(b"//etc/passwd"), Some("etc/passwd".into()));
        assert_eq!(within(b"/"), Some(PathBuf::new()));
        assert_eq!(within(b"/a/../../etc/passwd"), None);
    }

    #[test]
    fn redirects_are_relative() {
        let to = |path, query| redirect(path, query).headers()[LOCATION].to_str().unwrap().to_owned();
        assert_eq!(to("/a/b", None), "./b/");
        assert_eq!(to("//evil.example", Some("x=1")), "./evil.example/?x=1");
    }
}

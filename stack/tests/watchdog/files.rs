//! Mode static.

use std::fs;

use super::{body, start};

#[test]
fn files() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("public");
    fs::create_dir_all(root.join("sub folder")).unwrap();
    fs::write(root.join("index.html"), "<p>root").unwrap();
    fs::write(root.join("sub folder/index.html"), "<p>sub").unwrap();
    fs::write(root.join("data.bin"), "0123456789").unwrap();
    fs::write(root.join("empty.txt"), "").unwrap();
    fs::write(folder.path().join("secret"), "outside").unwrap();
    fs::create_dir(root.join("bare")).unwrap();
    nix::unistd::mkfifo(&root.join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let large: Vec<u8> = (0..300_000u32).map(|n| b'a' + (n % 26) as u8).collect();
    fs::write(root.join("large.txt"), &large).unwrap();
    let watchdog = start(&[("mode", "static"), ("static_path", root.to_str().unwrap())]);

    let text = watchdog.ask("GET /", "");
    assert!(text.starts_with("HTTP/1.1 200") && body(&text) == "<p>root", "{text}");
    assert!(text.contains("content-type: text/html; charset=utf-8\r\n"), "{text}");
    assert_eq!(body(&watchdog.ask("GET /sub%20folder/?a=b", "")), "<p>sub");
    let moved = watchdog.ask("GET /sub%20folder?a=b", "");
    assert!(
        moved.starts_with("HTTP/1.1 301") && moved.contains("location: ./sub%20folder/?a=b\r\n"),
        "{moved}"
    );
    assert!(watchdog.ask("GET /large.txt", "").as_bytes().ends_with(&large));
    let head = watchdog.ask("HEAD /data.bin", "");
    assert!(head.contains("content-length: 10\r\n") && body(&head).is_empty(), "{head}");
    let empty = watchdog.ask("GET /empty.txt", "");
    assert!(empty.starts_with("HTTP/1.1 200") && empty.contains("content-length: 0\r\n"), "{empty}");
    for path in ["/none", "/bare/", "/fifo", "/data.bin/", "/data.bin/x", &format!("/{}", "x".repeat(300))] {
        assert!(watchdog.ask(&format!("GET {path}"), "").starts_with("HTTP/1.1 404"), "{path}");
    }
    for path in ["/../secret", "/%2e%2e/secret", "/sub%20folder/..%2f..%2fsecret", "/%zz", "/a%00b"] {
        let text = watchdog.ask(&format!("GET {path}"), "");
        assert!(text.starts_with("HTTP/1.1 400"), "{path}: {text}");
    }
    assert!(watchdog.ask("POST /", "x").starts_with("HTTP/1.1 405"));
    watchdog.logged("GET /data.bin/x - 404 Not Found");
}

#[test]
fn what_the_caller_has_already() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("data.bin"), "0123456789").unwrap();
    let watchdog = start(&[("mode", "static"), ("static_path", folder.path().to_str().unwrap())]);
    let ask = |headers: &str| watchdog.ask(&format!("GET /data.bin\n{headers}"), "");
    let whole = ask("");
    let tag = whole.lines().find_map(|line| line.strip_prefix("etag: ")).unwrap();
    assert!(ask(&format!("If-None-Match: \"x\", W/{tag}")).starts_with("HTTP/1.1 304"));
    assert!(ask("If-None-Match: \"x\"").starts_with("HTTP/1.1 200"));
    let part = ask("Range: bytes=2-4");
    assert!(part.starts_with("HTTP/1.1 206") && part.contains("content-range: bytes 2-4/10\r\n"), "{part}");
    assert_eq!(body(&part), "234");
    assert_eq!(body(&ask(&format!("Range: bytes=-2\nIf-Range: {tag}"))), "89");
    assert_eq!(body(&ask("Range: bytes=-2\nIf-Range: \"x\"")), "0123456789");
    let outside = ask("Range: bytes=10-");
    assert!(
        outside.starts_with("HTTP/1.1 416") && outside.contains("content-range: bytes */10\r\n"),
        "{outside}"
    );
    // A file of the same length is another file all the same.
    fs::write(folder.path().join("next"), "abcdefghij").unwrap();
    fs::rename(folder.path().join("next"), folder.path().join("data.bin")).unwrap();
    assert_eq!(body(&ask(&format!("If-None-Match: {tag}"))), "abcdefghij");
}

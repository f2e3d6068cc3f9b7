//! Whatever lies on the boot partition, reading it ends, without a panic and in reasonable time.

use std::time::Instant;

use proptest::prelude::*;
use provisioning::{parse, parse_bytes};

/// Pieces that mean something to the reader, in any order and with noise between them.
fn pieces() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("version = 1\n".to_owned()),
        Just("version".to_owned()),
        Just("hostname = ".to_owned()),
        Just("[gateway]\n".to_owned()),
        Just("user = \"ä\"\n".to_owned()),
        Just("password = \"".to_owned()),
        Just("[functions.figlet]\n".to_owned()),
        Just("image = 'x'\n".to_owned()),
        Just("limits = { memory = \"1".to_owned()),
        Just("environment = { a = ".to_owned()),
        Just("[registries.\"a.b\"]\n".to_owned()),
        Just("registries = { \"".to_owned()),
        Just("mirrors = [\"".to_owned()),
        Just("secrets = [".to_owned()),
        Just("[stack.nats]\nurl = \"nats://".to_owned()),
        Just("[stack.queue]\n".to_owned()),
        Just("retry_http_codes = \"4".to_owned()),
        Just("[stack.queues.a]\n".to_owned()),
        Just("max_inflight = ".to_owned()),
        Just("\"\"\"".to_owned()),
        Just("\r\n".to_owned()),
        "[\\[\\]{}=.,\"'#\\\\ \n0-9a-z]{1,6}",
        any::<String>(),
    ];
    proptest::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        if let Err(wrong) = parse_bytes(&bytes, "f") {
            prop_assert!(wrong.count() > 0 && wrong.to_string().starts_with("f:"));
        }
    }

    #[test]
    fn any_pieces(text in pieces()) {
        if let Err(wrong) = parse(&text, "f") {
            let shown = wrong.to_string();
            prop_assert!(!shown.chars().any(|c| c.is_control() && c != '\n'), "{shown:?}");
            for one in &wrong {
                prop_assert!(one.line >= 1 && one.column >= 1 && one.line <= text.matches('\n').count() + 1);
            }
        }
    }
}

#[test]
fn the_worst_files_of_full_size_end() {
    let size = 1 << 20;
    let fill = |unit: &str| unit.repeat((size - 8) / unit.len());
    let numbered = |make: &dyn Fn(usize) -> String| (0..).map(make).take(40_000).collect::<String>();
    let mut long_keys = numbered(&|n| format!("somewhat_long_key_{n:05}=1\n"));
    long_keys.truncate(size);
    for (name, text) in [
        ("syntax errors", fill("=\n")),
        ("open brackets", fill("[")),
        ("open tables", fill("a={")),
        ("quotes", fill("\"\n")),
        ("dots", format!("{}=1", fill("a."))),
        ("unknown keys", long_keys),
        ("one line", fill("x")),
    ] {
        let start = Instant::now();
        assert!(parse(&text, name).is_err(), "{name}");
        // The runner ends what takes for ever.
        println!("{name}: {:?}", start.elapsed());
    }
}

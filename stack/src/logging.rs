//! Where our own lines go: the journal, or stderr where there is none yet.

use tracing::Level;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Libraries that write several lines for each message they carry.
const TALKATIVE: [&str; 7] =
    ["h2", "hyper", "hyper_util", "tower", "tonic", "netlink_proto", "netlink_packet_route"];

/// Starts logging under an identifier. `filter` is a list such as `info,stack=debug`; a wrong one is reported and the
/// default used.
pub fn start(identifier: &str, filter: Option<&str>) {
    let quiet = || {
        let all = Targets::new().with_default(Level::INFO);
        TALKATIVE.iter().fold(all, |targets, name| targets.with_target(*name, Level::WARN))
    };
    let (targets, problem) = match filter.map(str::parse::<Targets>) {
        Some(Ok(targets)) => (targets, None),
        Some(Err(error)) => (quiet(), Some(error)),
        None => (quiet(), None),
    };
    // The socket answers only while journald runs; a file left behind by a dead one must not swallow our lines.
    let journal = tracing_journald::layer()
        .ok()
        .map(|layer| layer.with_field_prefix(None).with_syslog_identifier(identifier.to_owned()));
    let stderr = journal.is_none().then(|| {
        tracing_subscriber::fmt::layer()
            .with_writer(std::io::stderr)
            .with_ansi(false)
            .with_target(false)
            .without_time()
    });
    // A second start in one process (tests) keeps the first subscriber.
    let _ = tracing_subscriber::registry().with(targets).with(journal).with(stderr).try_init();
    if let Some(error) = problem {
        tracing::warn!("the log filter is not used: {error}");
    }
}

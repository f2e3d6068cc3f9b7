//! Counts of calls, as Prometheus reads them.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use crate::seconds::Seconds;

/// Upper bounds of the histogram, in seconds and in milliseconds: Prometheus's default ones.
const BOUNDS: [(&str, u64); 11] = [
    ("0.005", 5),
    ("0.01", 10),
    ("0.025", 25),
    ("0.05", 50),
    ("0.1", 100),
    ("0.25", 250),
    ("0.5", 500),
    ("1", 1_000),
    ("2.5", 2_500),
    ("5", 5_000),
    ("10", 10_000),
];

#[derive(Default)]
struct Series {
    count: u64,
    sum: Duration,
    buckets: [u64; BOUNDS.len()],
}

/// All counts.
#[derive(Default)]
pub struct Metrics {
    series: RefCell<BTreeMap<(u16, &'static str), Series>>,
}

impl Metrics {
    /// Counts a call that ended.
    pub fn observe(&self, status: u16, method: &str, taken: Duration) {
        let mut all = self.series.borrow_mut();
        let series = all.entry((status, label(method))).or_default();
        series.count += 1;
        series.sum += taken;
        for (bucket, (_, bound)) in series.buckets.iter_mut().zip(BOUNDS) {
            *bucket += u64::from(taken <= Duration::from_millis(bound));
        }
    }

    /// Prometheus's text format.
    pub fn render(&self, in_flight: usize) -> String {
        let mut text = String::from(
            "# HELP http_requests_total Calls that ended.\n# TYPE http_requests_total counter\n",
        );
        let all = self.series.borrow();
        // Writing into a String cannot fail.
        for ((code, method), series) in all.iter() {
            let _ =
                writeln!(text, "http_requests_total{{code=\"{code}\",method=\"{method}\"}} {}", series.count);
        }
        text.push_str(
            "# HELP http_request_duration_seconds Time from a call's start to its answer's end.\n\
             # TYPE http_request_duration_seconds histogram\n",
        );
        for ((code, method), series) in all.iter() {
            let labels = format!("code=\"{code}\",method=\"{method}\"");
            let name = "http_request_duration_seconds";
            for (bucket, (bound, _)) in series.buckets.iter().zip(BOUNDS) {
                let _ = writeln!(text, "{name}_bucket{{{labels},le=\"{bound}\"}} {bucket}");
            }
            let _ = writeln!(text, "{name}_bucket{{{labels},le=\"+Inf\"}} {}", series.count);
            let _ = writeln!(text, "{name}_sum{{{labels}}} {:.9}", Seconds(series.sum));
            let _ = writeln!(text, "{name}_count{{{labels}}} {}", series.count);
        }
        let _ = write!(
            text,
            "# HELP http_requests_in_flight Calls that run.\n# TYPE http_requests_in_flight gauge\n\
             http_requests_in_flight {in_flight}\n"
        );
        text
    }
}

/// A method as Prometheus's own library writes it. Methods that nobody knows share one label: a client must not be able
/// to make up millions of series.
fn label(method: &str) -> &'static str {
    match method {
        "GET" => "get",
        "HEAD" => "head",
        "POST" => "post",
        "PUT" => "put",
        "PATCH" => "patch",
        "DELETE" => "delete",
        "OPTIONS" => "options",
        _ => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histogram() {
        let metrics = Metrics::default();
        metrics.observe(200, "GET", Duration::from_millis(30));
        metrics.observe(200, "GET", Duration::from_secs(60));
        metrics.observe(200, "BREW", Duration::ZERO);
        let text = metrics.render(1);
        for line in [
            "http_requests_total{code=\"200\",method=\"get\"} 2",
            "http_requests_total{code=\"200\",method=\"unknown\"} 1",
            "http_request_duration_seconds_bucket{code=\"200\",method=\"get\",le=\"0.025\"} 0",
            "http_request_duration_seconds_bucket{code=\"200\",method=\"get\",le=\"0.05\"} 1",
            "http_request_duration_seconds_bucket{code=\"200\",method=\"get\",le=\"+Inf\"} 2",
            "http_request_duration_seconds_sum{code=\"200\",method=\"get\"} 60.030000000",
            "http_requests_in_flight 1",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
    }
}

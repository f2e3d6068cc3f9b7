//! Prometheus's text format, version 0.0.4.
//!
//! Written here and not by a library: the ones there are write OpenMetrics, which forbids names that OpenFaaS's
//! dashboards and rules ask for (a counter `gateway_function_invocation_started` without `_total`).

use std::fmt::{Display, Write};

use crate::histogram::Histogram;

/// What a family's samples are.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Comes and goes.
    Gauge,
    /// Durations.
    Histogram,
}

/// The text so far. (Writing into a `String` cannot fail.)
#[derive(Default)]
pub struct Text {
    text: String,
    name: &'static str,
}

/// Names and values of a sample's labels.
pub type Labels<'a> = [(&'a str, &'a dyn Display)];

impl Text {
    /// Begins a family: what comes next is its samples.
    pub fn family(&mut self, kind: Kind, name: &'static str, help: &str) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let _ = write!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
        self.name = name;
    }

    /// A sample of the family.
    pub fn sample(&mut self, labels: &Labels, value: impl Display) {
        self.line("", labels, None, &value);
    }

    /// The samples of a histogram.
    pub fn histogram(&mut self, labels: &Labels, histogram: &Histogram) {
        for (bound, count) in histogram.cumulated() {
            self.line("_bucket", labels, Some(&bound), &count);
        }
        self.line("_bucket", labels, Some(&"+Inf"), &histogram.count);
        self.line("_sum", labels, None, &histogram.sum);
        self.line("_count", labels, None, &histogram.count);
    }

    /// All of it.
    pub fn finish(self) -> String {
        self.text
    }

    fn line(&mut self, suffix: &str, labels: &Labels, bound: Option<&dyn Display>, value: &dyn Display) {
        let _ = write!(self.text, "{}{suffix}", self.name);
        let bound = bound.map(|bound| ("le", bound));
        let mut before = '{';
        for (name, value) in labels.iter().chain(&bound) {
            let _ = write!(self.text, "{before}{name}=\"{}\"", escaped(&value.to_string()));
            before = ',';
        }
        if before == ',' {
            self.text.push('}');
        }
        let _ = writeln!(self.text, " {value}");
    }
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_format() {
        let mut text = Text::default();
        text.family(Kind::Counter, "calls_total", "Calls.");
        text.sample(&[("name", &"a\\b\"c\nd"), ("code", &200)], 3);
        text.family(Kind::Gauge, "load", "Load.");
        text.sample(&[], 0.5);
        text.family(Kind::Histogram, "time_seconds", "Time.");
        let mut histogram = Histogram::default();
        histogram.observe(Duration::from_millis(250));
        histogram.observe(Duration::from_secs(20));
        text.histogram(&[("name", &"a")], &histogram);
        let wanted = r#"# HELP calls_total Calls.
# TYPE calls_total counter
calls_total{name="a\\b\"c\nd",code="200"} 3
# HELP load Load.
# TYPE load gauge
load 0.5
# HELP time_seconds Time.
# TYPE time_seconds histogram
time_seconds_bucket{name="a",le="0.005"} 0
time_seconds_bucket{name="a",le="0.01"} 0
time_seconds_bucket{name="a",le="0.025"} 0
time_seconds_bucket{name="a",le="0.05"} 0
time_seconds_bucket{name="a",le="0.1"} 0
time_seconds_bucket{name="a",le="0.25"} 1
time_seconds_bucket{name="a",le="0.5"} 1
time_seconds_bucket{name="a",le="1"} 1
time_seconds_bucket{name="a",le="2.5"} 1
time_seconds_bucket{name="a",le="5"} 1
time_seconds_bucket{name="a",le="10"} 1
time_seconds_bucket{name="a",le="+Inf"} 2
time_seconds_sum{name="a"} 20.25
time_seconds_count{name="a"} 2
"#;
        assert_eq!(text.finish(), wanted);
    }
}

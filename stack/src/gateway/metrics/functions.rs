//! The functions' metrics: read from the functions that there are, so that a removed one leaves no series.

use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::text::{Kind, Text};
use crate::desired::{Document, Scale};
use crate::reconcile::{Function, Reason, Usage};

/// One function, looked at once: all families tell of the same ones.
struct Seen {
    name: String,
    document: Arc<Document>,
    function: Arc<Function>,
}

/// Writes them.
pub fn write(text: &mut Text, functions: &[Arc<Function>], usage: &[Usage]) {
    let seen = functions.iter().filter_map(|function| {
        let document = function.document()?;
        Some(Seen { name: function.key.to_string(), document, function: function.clone() })
    });
    let mut seen: Vec<_> = seen.collect();
    seen.sort_by(|a, b| a.name.cmp(&b.name));
    let answers: Vec<_> = seen.iter().map(|seen| (&seen.name, seen.function.counts.answers())).collect();

    text.family(
        Kind::Counter,
        "gateway_function_invocation_total",
        "Calls that ended, by their answer's status.",
    );
    for (name, answers) in &answers {
        for (code, histogram) in answers {
            text.sample(&[("function_name", name), ("code", code)], histogram.count);
        }
    }
    text.family(
        Kind::Histogram,
        "gateway_functions_seconds",
        "Time of calls from being let in to the answer's end.",
    );
    for (name, answers) in &answers {
        for (code, histogram) in answers {
            text.histogram(&[("function_name", name), ("code", code)], histogram);
        }
    }
    let mut each = |kind, name, help, value: &dyn Fn(&Seen) -> u64| {
        text.family(kind, name, help);
        for seen in &seen {
            text.sample(&[("function_name", &seen.name)], value(seen));
        }
    };
    each(Kind::Counter, "gateway_function_invocation_started", "Calls that came.", &|seen| {
        seen.function.calls.load(Ordering::Relaxed)
    });
    each(Kind::Gauge, "gateway_function_invocation_inflight", "Calls that are here now.", &|seen| {
        seen.function.counts.running()
    });
    each(Kind::Gauge, "gateway_service_count", "Instances that should run.", &|seen| seen.document.replicas);
    each(Kind::Gauge, "gateway_service_ready_count", "Instances that answer.", &|seen| {
        seen.function.available() as u64
    });
    each(Kind::Gauge, "gateway_service_min", "Instances that should run at least.", &|seen| {
        Scale::of(&seen.document.labels).initial()
    });
    each(Kind::Gauge, "bothy_function_calls_waiting", "Calls that wait for an instance.", &|seen| {
        seen.function.waiting() as u64
    });
    each(
        Kind::Counter,
        "bothy_function_calls_refused_total",
        "Calls that no instance took in time (503).",
        &|seen| seen.function.counts.refused(),
    );
    scaled(text, &seen);
    used(text, &seen, usage);
    text.family(
        Kind::Counter,
        "bothy_function_exits_total",
        "Processes that ended and should not have, by what made them and their status.",
    );
    for seen in &seen {
        for ((means, status), count) in seen.function.counts.exits.counts() {
            let status = status.map_or_else(|| "unknown".to_owned(), |status| status.to_string());
            let labels: [(&str, &dyn Display); 3] =
                [("function_name", &seen.name), ("reason", &means.word()), ("status", &status)];
            text.sample(&labels, count);
        }
    }
    text.family(
        Kind::Counter,
        "bothy_function_restarts_total",
        "Starts after an end or a start that failed, by the reason.",
    );
    for seen in &seen {
        for reason in Reason::ALL {
            let labels: [(&str, &dyn Display); 2] =
                [("function_name", &seen.name), ("reason", &reason.word())];
            text.sample(&labels, seen.function.counts.restarts(reason));
        }
    }
}

/// What those are aimed at that their load scales.
fn scaled(text: &mut Text, seen: &[Seen]) {
    let scaled = seen.iter().filter_map(|seen| Some((seen, Scale::of(&seen.document.labels).load?)));
    let scaled: Vec<_> = scaled.collect();
    text.family(Kind::Gauge, "gateway_service_target", "Load that an instance should have.");
    for (seen, load) in &scaled {
        text.sample(&[("function_name", &seen.name)], load.target);
    }
    text.family(Kind::Gauge, "gateway_service_target_load", "The same, by what is measured.");
    for (seen, load) in &scaled {
        let labels: [(&str, &dyn Display); 2] =
            [("function_name", &seen.name), ("scaling_type", &load.measure.word())];
        text.sample(&labels, load.target);
    }
    text.family(Kind::Gauge, "bothy_function_instances_wished", "Instances that the load asks for.");
    for (seen, _) in &scaled {
        text.sample(&[("function_name", &seen.name)], seen.function.counts.wished());
    }
}

/// What the instances of these functions use.
fn used(text: &mut Text, seen: &[Seen], usage: &[Usage]) {
    let exists = |usage: &&Usage| seen.iter().any(|seen| seen.function.key == usage.key);
    let mut usage: Vec<_> = usage.iter().filter(exists).collect();
    usage.sort_by(|a, b| (&a.key, a.replica).cmp(&(&b.key, b.replica)));
    let sample = |text: &mut Text, usage: &Usage, value: Option<&dyn Display>| {
        if let Some(value) = value {
            let labels: [(&str, &dyn Display); 3] = [
                ("function_name", &usage.key),
                ("namespace", &usage.key.namespace),
                ("replica", &usage.replica),
            ];
            text.sample(&labels, value);
        }
    };
    text.family(Kind::Counter, "pod_cpu_usage_seconds_total", "Processor time of an instance, seconds.");
    for usage in &usage {
        sample(text, usage, usage.cpu_seconds.as_ref().map(|value| value as &dyn Display));
    }
    text.family(Kind::Gauge, "pod_memory_working_set_bytes", "Memory that an instance needs, bytes.");
    for usage in &usage {
        sample(text, usage, usage.memory_bytes.as_ref().map(|value| value as &dyn Display));
    }
}

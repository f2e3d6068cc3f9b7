//! This process, under the names that Prometheus's clients agree on.

use std::fs;

use super::text::{Kind, Text};

/// Ticks of a second in /proc (proc(5), USER_HZ): so many on every machine that we run on, whatever the kernel's own.
const TICKS: f64 = 100.0;

/// Writes what /proc tells. What it does not tell is left out.
pub fn write(text: &mut Text) {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let (stat, status) = (read("/proc/self/stat"), read("/proc/self/status"));
    let mut gauge = |name, help, value: Option<f64>| {
        if let Some(value) = value {
            text.family(Kind::Gauge, name, help);
            text.sample(&[], value);
        }
    };
    let bytes = |name| Some(number(&status, name)? * 1024.0);
    gauge("process_resident_memory_bytes", "Memory in use, bytes.", bytes("VmRSS:"));
    gauge("process_virtual_memory_bytes", "Address space in use, bytes.", bytes("VmSize:"));
    gauge("process_threads", "Threads.", number(&status, "Threads:"));
    // One of them is that of the folder itself.
    let open = fs::read_dir("/proc/self/fd").ok().map(|folder| folder.count().saturating_sub(1) as f64);
    gauge("process_open_fds", "Open files.", open);
    gauge("process_max_fds", "Most open files.", number(&read("/proc/self/limits"), "Max open files"));
    let booted = number(&read("/proc/stat"), "btime");
    let started = ticks(&stat, 22).and_then(|started| Some(booted? + started));
    gauge("process_start_time_seconds", "Begin, seconds since 1970.", started);
    if let (Some(user), Some(system)) = (ticks(&stat, 14), ticks(&stat, 15)) {
        text.family(Kind::Counter, "process_cpu_seconds_total", "Processor time, seconds.");
        text.sample(&[], user + system);
    }
}

/// The number behind a word that a line begins with.
fn number(text: &str, word: &str) -> Option<f64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(word))?;
    rest.split_whitespace().next()?.parse().ok()
}

/// A field of /proc/PID/stat by its number in proc(5), in seconds. The second one, the program's name in brackets, may
/// hold anything.
fn ticks(stat: &str, field: usize) -> Option<f64> {
    let (_, rest) = stat.rsplit_once(") ")?;
    let ticks: f64 = rest.split(' ').nth(field.checked_sub(3)?)?.parse().ok()?;
    Some(ticks / TICKS)
}

#[cfg(test)]
mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    use super::*;

    #[test]
    fn this_process_is_told_of() {
        let mut text = Text::default();
        write(&mut text);
        let text = text.finish();
        let value = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.unwrap_or_else(|| panic!("{name}\n{text}")).parse::<f64>().unwrap()
        };
        assert!(value("process_resident_memory_bytes") > 100_000.0);
        assert!(value("process_virtual_memory_bytes") >= value("process_resident_memory_bytes"));
        assert!(value("process_open_fds") >= 3.0 && value("process_open_fds") < value("process_max_fds"));
        assert!(value("process_threads") >= 1.0);
        assert!(value("process_cpu_seconds_total") >= 0.0);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        let age = now - value("process_start_time_seconds");
        assert!((-5.0..3600.0).contains(&age), "{age}");
    }

    #[test]
    fn a_programs_name_may_hold_anything() {
        let stat = "1 (a) b (c) S 0 1 1 0 -1 4 1 2 3 4 150 50 0 0 20 0 1 0 700 1 1";
        assert_eq!((ticks(stat, 14), ticks(stat, 15), ticks(stat, 22)), (Some(1.5), Some(0.5), Some(7.0)));
        assert_eq!(ticks("", 14), None);
    }
}

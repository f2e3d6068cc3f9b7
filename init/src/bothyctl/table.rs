//! Tables for people: aligned columns, nothing around them, no wider than the terminal.

use std::io::IsTerminal;

/// A table; the first row is its head.
#[derive(Debug, Default)]
pub(super) struct Table {
    rows: Vec<Vec<String>>,
    right: Vec<usize>,
}

impl Table {
    /// With this head; `right` are the columns of numbers.
    pub(super) fn new(head: &[&str], right: &[usize]) -> Self {
        Self { rows: vec![head.iter().map(ToString::to_string).collect()], right: right.to_vec() }
    }

    /// Adds a row.
    pub(super) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// Its lines, cut at `width`.
    pub(super) fn lines(&self, width: Option<usize>) -> Vec<String> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let widest = |column: usize| {
            self.rows
                .iter()
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(widest).collect();
        let line = |row: &Vec<String>| {
            let mut line = String::new();
            for ((column, cell), width) in row.iter().enumerate().zip(&widths) {
                if column > 0 {
                    line += "  ";
                }
                line += &if self.right.contains(&column) {
                    format!("{cell:>width$}")
                } else {
                    format!("{cell:<width$}")
                };
            }
            cut(line.trim_end(), width)
        };
        self.rows.iter().map(line).collect()
    }

    /// Prints it.
    pub(super) fn print(&self) {
        for line in self.lines(width()) {
            println!("{line}");
        }
    }
}

/// At most so many characters; the last one says that there are more.
pub(super) fn cut(text: &str, width: Option<usize>) -> String {
    match width {
        Some(width) if text.chars().count() > width => {
            let kept: String = text.chars().take(width.saturating_sub(1)).collect();
            format!("{kept}…")
        }
        _ => text.to_owned(),
    }
}

/// The terminal's width; a serial line does not know its own. `None`: not a terminal, nothing is cut.
pub(super) fn width() -> Option<usize> {
    size().map(|(columns, _)| columns)
}

/// Columns and lines of the terminal.
pub(super) fn size() -> Option<(usize, usize)> {
    let out = std::io::stdout();
    if !out.is_terminal() {
        return None;
    }
    let known = rustix::termios::tcgetwinsize(&out).ok().filter(|size| size.ws_col > 0 && size.ws_row > 0);
    Some(known.map_or((120, 24), |size| (usize::from(size.ws_col), usize::from(size.ws_row))))
}

/// Bytes with three digits at most and a unit.
pub(super) fn bytes(count: u64) -> String {
    let units = ["B", "K", "M", "G", "T"];
    let mut size = count as f64;
    let mut unit = units.iter();
    let mut name = unit.next().copied().unwrap_or_default();
    while size >= 999.5 {
        let Some(next) = unit.next() else { break };
        size /= 1024.0;
        name = next;
    }
    if name == "B" || size >= 9.95 { format!("{size:.0}{name}") } else { format!("{size:.1}{name}") }
}

/// A span of time with its two largest units.
pub(super) fn span(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{minutes}m {}s", seconds % 60),
        3600..86400 => format!("{hours}h {}m", minutes % 60),
        _ => format!("{days}d {}h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_cut() {
        let mut table = Table::new(&["NAME", "PID", "WHY"], &[1]);
        table.row(vec!["nats".into(), "7".into(), "a long reason".into()]);
        table.row(vec!["ü".into(), "1234".into(), String::new()]);
        assert_eq!(table.lines(None), ["NAME   PID  WHY", "nats     7  a long reason", "ü     1234"]);
        assert_eq!(table.lines(Some(14))[1], "nats     7  a…");
    }

    #[test]
    fn sizes_and_spans() {
        for (count, text) in [
            (0, "0B"),
            (999, "999B"),
            (1000, "1.0K"),
            (10 << 20, "10M"),
            (1500 << 20, "1.5G"),
            (9 << 40, "9.0T"),
        ] {
            assert_eq!(bytes(count), text);
        }
        for (seconds, text) in [(5, "5s"), (65, "1m 5s"), (7260, "2h 1m"), (90_000, "1d 1h")] {
            assert_eq!(span(seconds), text);
        }
    }
}

//! `bothy bench`: figures with names that stay, measured against a floor where there is one.

mod boot;
mod build;
mod floor;
mod functions;
mod watchdog;

use std::borrow::Cow;
use std::io::Write;

use serde::{Deserialize, Serialize};

pub use boot::boot;
pub use build::build;
pub use functions::{functions, queue, scale};
pub use watchdog::watchdog;

/// One figure.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// The bench that measured it.
    pub bench: Cow<'static, str>,
    /// Its name.
    pub figure: Cow<'static, str>,
    /// The median, in `unit`.
    pub value: f64,
    /// `s`, `ms`, `bytes`, `1/s` or `calls`.
    pub unit: Cow<'static, str>,
    /// The least that is possible on this host, measured in the same run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub floor: Option<f64>,
    /// `value / floor`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio: Option<f64>,
}

impl Figure {
    fn new(bench: &'static str, figure: &'static str, value: f64, unit: &'static str) -> Self {
        Self {
            bench: bench.into(),
            figure: figure.into(),
            value,
            unit: unit.into(),
            floor: None,
            ratio: None,
        }
    }

    fn with_floor(mut self, floor: f64) -> Self {
        self.floor = Some(floor);
        self.ratio = (floor > 0.0).then_some(self.value / floor);
        self
    }
}

/// Prints figures: one JSON document a line, or a table for people.
///
/// # Errors
/// Standard output is gone.
pub fn print(figures: &[Figure], json: bool) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    if json {
        for figure in figures {
            writeln!(out, "{}", serde_json::to_string(figure)?)?;
        }
        return Ok(());
    }
    writeln!(out, "{:<9} {:<22} {:>12}  {:>12} {:>7}", "bench", "figure", "value", "floor", "ratio")?;
    for figure in figures {
        let floor = figure.floor.map(|floor| shown(floor, &figure.unit)).unwrap_or_default();
        let ratio = figure.ratio.map(|ratio| format!("{ratio:.2}")).unwrap_or_default();
        let value = shown(figure.value, &figure.unit);
        writeln!(out, "{:<9} {:<22} {value:>12}  {floor:>12} {ratio:>7}", figure.bench, figure.figure)?;
    }
    Ok(())
}

fn shown(value: f64, unit: &str) -> String {
    match unit {
        "bytes" => format!("{:.2} MB", value / 1e6),
        _ => format!("{value:.2} {unit}"),
    }
}

/// The middle of some measurements; of an even number, the lower one of the two in the middle.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len().checked_sub(1)? / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0]), Some(3.0));
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.0));
    }

    #[test]
    fn json_has_the_fields_that_the_design_names() {
        let line = |figure: &Figure| serde_json::to_string(figure).unwrap();
        let plain = Figure::new("boot", "idle_pss", 5.0, "bytes");
        assert_eq!(line(&plain), r#"{"bench":"boot","figure":"idle_pss","value":5.0,"unit":"bytes"}"#);
        assert_eq!(serde_json::from_str::<Figure>(&line(&plain)).unwrap(), plain);
        let floored = Figure::new("boot", "answer", 9.0, "s").with_floor(6.0);
        assert!(line(&floored).ends_with(r#""floor":6.0,"ratio":1.5}"#));
        assert_eq!(shown(1_500_000.0, "bytes"), "1.50 MB");
    }
}

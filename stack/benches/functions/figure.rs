//! Figures with names that stay, as `bothy bench` prints them.

use serde_json::json;

/// One figure.
pub struct Figure {
    bench: &'static str,
    name: &'static str,
    value: f64,
    unit: &'static str,
    floor: Option<f64>,
}

impl Figure {
    /// A figure beside the least that this host can do.
    pub fn with_floor(name: &'static str, value: f64, unit: &'static str, floor: f64) -> Self {
        Self { bench: "functions", name, value, unit, floor: Some(floor) }
    }

    /// One of another bench than `functions`.
    pub fn of(self, bench: &'static str) -> Self {
        Self { bench, ..self }
    }

    /// Whether it has that name.
    pub fn is(&self, name: &str) -> bool {
        self.name == name
    }

    /// In its unit.
    pub fn value(&self) -> f64 {
        self.value
    }

    /// A figure that has no floor.
    pub fn alone(name: &'static str, value: f64, unit: &'static str) -> Self {
        Self { bench: "functions", name, value, unit, floor: None }
    }
}

/// Prints them: one JSON document a line, which `bothy bench` makes a table of.
pub fn print(figures: &[Figure]) {
    for figure in figures {
        let mut line =
            json!({"bench": figure.bench, "figure": figure.name, "value": figure.value, "unit": figure.unit});
        if let Some(floor) = figure.floor.filter(|floor| *floor > 0.0) {
            line["floor"] = json!(floor);
            line["ratio"] = json!(figure.value / floor);
        }
        println!("{line}");
    }
}

/// A value that so many in a hundred do not exceed.
pub fn percentile(mut values: Vec<f64>, percent: usize) -> f64 {
    values.sort_by(f64::total_cmp);
    values[(values.len() * percent / 100).min(values.len() - 1)]
}

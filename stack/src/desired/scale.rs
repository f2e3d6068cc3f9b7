//! How many instances of a function run, and what it is while none should: OpenFaaS's labels, and one of ours. They are
//! read here and nowhere else; docs/scaling.md tells what they do.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::duration;

const MIN: &str = "com.openfaas.scale.min";
const MAX: &str = "com.openfaas.scale.max";
const FACTOR: &str = "com.openfaas.scale.factor";
const TYPE: &str = "com.openfaas.scale.type";
const TARGET: &str = "com.openfaas.scale.target";
const PROPORTION: &str = "com.openfaas.scale.target-proportion";
const WINDOW: &str = "com.openfaas.scale.down.window";
const ZERO: &str = "com.openfaas.scale.zero";
const ZERO_DURATION: &str = "com.openfaas.scale.zero-duration";
/// How a function rests while it is scaled to none: `stopped` (the default) or `frozen`.
const RESTS: &str = "com.bothy.scale.zero-state";

/// Instances at most where the label says nothing.
const DEFAULT_MAX: u64 = 20;
/// What no label can ask for: addresses, and the memory of the largest machine, end before.
const MOST: u64 = 1000;

/// Percent of an alert's step where the label says nothing, and the instances that they are of at most.
const DEFAULT_FACTOR: u64 = 10;
const COUNTED: u64 = 5;

/// Load of one instance where the label says nothing, and how much of that is aimed at.
const DEFAULT_TARGET: f64 = 50.0;
const DEFAULT_PROPORTION: f64 = 0.9;
/// More than any instance can have.
const MOST_LOAD: f64 = 1e9;

/// How long a load must have been less before instances go, where the label says nothing, and the longest.
const DEFAULT_WINDOW: Duration = Duration::from_secs(60);
const LONGEST_WINDOW: Duration = Duration::from_secs(300);

/// How a function rests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Rest {
    /// Its process ends; the next one is prepared, and begins with a call.
    #[default]
    Stopped,
    /// Its process stays as it is, and uses memory but no processor time.
    Frozen,
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// Calls that come in a second.
    Rps,
    /// Calls that are here.
    Capacity,
    /// Thousandths of a processor that are used.
    Cpu,
}

impl Measure {
    /// As the label has it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Rps => "rps",
            Self::Capacity => "capacity",
            Self::Cpu => "cpu",
        }
    }
}

/// A function that is scaled by its load.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Load {
    /// What its load is.
    pub measure: Measure,
    /// How much of it one instance should have; above zero.
    pub target: f64,
    /// How much of the target is aimed at, so that there is room for more; above zero.
    pub proportion: f64,
    /// How long the load must have been less before instances go.
    pub window: Duration,
}

/// A function that is scaled to none when nobody calls it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Zero {
    /// After so long; nothing: as the machine has it.
    pub after: Option<Duration>,
}

/// What the labels say.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scale {
    /// As it is written; what runs is at least one.
    min: u64,
    max: u64,
    /// Percent.
    factor: u64,
    /// How it rests.
    pub rest: Rest,
    /// Whether it is scaled to none.
    pub zero: Option<Zero>,
    /// Whether it is scaled by its load.
    pub load: Option<Load>,
}

impl Scale {
    /// Reads them; the error is one line for whoever wrote them.
    pub fn parse(labels: &BTreeMap<String, String>) -> Result<Self, String> {
        let (scale, wrong) = Reader::read(labels);
        wrong.map_or(Ok(scale), Err)
    }

    /// A label that is not to be read counts as not there: a document that was taken by an older version, or comes of the
    /// configuration, must not stop.
    pub fn of(labels: &BTreeMap<String, String>) -> Self {
        Reader::read(labels).0
    }

    /// What a function is scaled by that we do not measure: `queue`, or a rule of somebody's own.
    pub fn foreign(labels: &BTreeMap<String, String>) -> Option<&str> {
        let kind = labels.get(TYPE)?.trim();
        (measure(kind) == Some(None)).then_some(kind)
    }

    /// How many run at first, and when a call wakes it.
    pub fn initial(self) -> u64 {
        self.min.max(1)
    }

    /// How many run when so many are asked for; none is always allowed.
    pub fn clamp(self, wanted: u64) -> u64 {
        if wanted == 0 { 0 } else { wanted.clamp(self.initial(), self.max) }
    }

    /// How many are asked for by an alert of Alertmanager's: a step more than there are, or its end.
    pub fn alerted(self, firing: bool, current: u64) -> u64 {
        if !firing {
            return self.min;
        }
        let step = (self.max.min(COUNTED) * self.factor).div_ceil(100);
        current.saturating_add(step).min(self.max)
    }
}

/// What a type's label measures; nothing inside where that is none of ours, nothing at all where it says nothing.
fn measure(kind: &str) -> Option<Option<Measure>> {
    match kind {
        "" => None,
        "rps" => Some(Some(Measure::Rps)),
        "capacity" => Some(Some(Measure::Capacity)),
        "cpu" => Some(Some(Measure::Cpu)),
        _ => Some(None),
    }
}

/// Reads label after label, and keeps what was wrong first.
struct Reader<'a> {
    labels: &'a BTreeMap<String, String>,
    wrong: Option<String>,
}

impl<'a> Reader<'a> {
    fn read(labels: &'a BTreeMap<String, String>) -> (Scale, Option<String>) {
        let mut reader = Self { labels, wrong: None };
        let scale = reader.scale();
        (scale, reader.wrong)
    }

    fn scale(&mut self) -> Scale {
        let (min, max) = (self.number(MIN, MOST), self.number(MAX, MOST));
        if let (Some(min), Some(max)) = (min, max.filter(|max| *max > 0))
            && min > max
        {
            self.refuse(MIN, format_args!("{min} is more than the {max} of {MAX}"));
        }
        if max == Some(0) {
            self.refuse(MAX, format_args!("0 would never let it run"));
        }
        let max = max.filter(|max| *max > 0);
        let least = min.unwrap_or(1);
        let factor = self.number(FACTOR, 100).unwrap_or(DEFAULT_FACTOR);
        let rest = match self.text(RESTS) {
            None | Some("stopped") => Rest::Stopped,
            Some("frozen") => Rest::Frozen,
            Some(text) => {
                self.refuse(RESTS, format_args!("{text:?} is neither stopped nor frozen"));
                Rest::Stopped
            }
        };
        let (zero, load) = (self.zero(), self.load(max));
        Scale { min: least, max: max.unwrap_or(DEFAULT_MAX).max(least.max(1)), factor, rest, zero, load }
    }

    fn zero(&mut self) -> Option<Zero> {
        let after = self.duration(ZERO_DURATION);
        if after.is_some_and(|after| after.is_zero()) {
            self.refuse(ZERO_DURATION, format_args!("0 would never let it run"));
        }
        let after = after.filter(|after| !after.is_zero());
        // The words of Go's strconv.ParseBool, which its users are used to.
        match self.text(ZERO) {
            Some("1" | "t" | "T" | "true" | "True" | "TRUE") => Some(Zero { after }),
            None | Some("0" | "f" | "F" | "false" | "False" | "FALSE") => None,
            Some(text) => {
                self.refuse(ZERO, format_args!("{text:?} is neither true nor false"));
                None
            }
        }
    }

    fn load(&mut self, max: Option<u64>) -> Option<Load> {
        let (target, proportion, window) = (self.load_of(TARGET), self.load_of(PROPORTION), self.window());
        let kind = self.text(TYPE).and_then(measure);
        let asked = kind.is_some() || target.is_some() || max.is_some_and(|max| max > 1);
        let measure = kind.unwrap_or(Some(Measure::Rps)).filter(|_| asked)?;
        Some(Load {
            measure,
            target: target.unwrap_or(DEFAULT_TARGET),
            proportion: proportion.unwrap_or(DEFAULT_PROPORTION),
            window,
        })
    }

    fn window(&mut self) -> Duration {
        if let Some("off") = self.text(WINDOW) {
            return Duration::ZERO;
        }
        let window = self.duration(WINDOW);
        if window.is_some_and(|window| window > LONGEST_WINDOW) {
            self.refuse(WINDOW, format_args!("is longer than {} minutes", LONGEST_WINDOW.as_secs() / 60));
        }
        window.unwrap_or(DEFAULT_WINDOW).min(LONGEST_WINDOW)
    }

    fn text(&self, name: &str) -> Option<&'a str> {
        self.labels.get(name).map(|text| text.trim()).filter(|text| !text.is_empty())
    }

    fn number(&mut self, name: &str, most: u64) -> Option<u64> {
        let text = self.text(name)?;
        let number = text.parse::<u64>().ok().filter(|number| *number <= most);
        if number.is_none() {
            self.refuse(name, format_args!("{text:?} is not a number from 0 to {most}"));
        }
        number
    }

    fn load_of(&mut self, name: &str) -> Option<f64> {
        let text = self.text(name)?;
        // Neither infinite nor no number, which both are read as one.
        let number = text.parse::<f64>().ok().filter(|number| *number > 0.0 && *number <= MOST_LOAD);
        if number.is_none() {
            self.refuse(name, format_args!("{text:?} is not a number above 0"));
        }
        number
    }

    fn duration(&mut self, name: &str) -> Option<Duration> {
        let text = self.text(name)?;
        let duration = duration::parse(text);
        if duration.is_none() {
            self.refuse(name, format_args!("{text:?} is no duration such as 90s or 15m"));
        }
        duration
    }

    fn refuse(&mut self, name: &str, reason: std::fmt::Arguments) {
        self.wrong.get_or_insert_with(|| format!("label {name}: {reason}"));
    }
}

#[cfg(test)]
mod tests;

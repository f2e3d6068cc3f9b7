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
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
    }

    fn parse(pairs: &[(&str, &str)]) -> Result<Scale, String> {
        Scale::parse(&labels(pairs))
    }

    #[test]
    fn how_many() {
        let scale = parse(&[]).unwrap();
        assert_eq!((scale.initial(), scale.rest, scale.zero, scale.load), (1, Rest::Stopped, None, None));
        assert_eq!([0, 1, 7, 100].map(|wanted| scale.clamp(wanted)), [0, 1, 7, 20]);
        let scale = parse(&[(MIN, "2"), (MAX, "4"), (RESTS, "frozen")]).unwrap();
        assert_eq!((scale.initial(), scale.rest), (2, Rest::Frozen));
        assert_eq!([0, 1, 3, 9].map(|wanted| scale.clamp(wanted)), [0, 2, 3, 4]);
        assert_eq!(parse(&[(MIN, "30")]).unwrap().clamp(40), 30);
        assert_eq!(parse(&[(MIN, "0"), (RESTS, "")]).unwrap().initial(), 1);
    }

    #[test]
    fn to_none() {
        let zero = |pairs: &[(&str, &str)]| parse(pairs).unwrap().zero;
        let after = |seconds| Some(Zero { after: Some(Duration::from_secs(seconds)) });
        for on in ["true", "1", " TRUE "] {
            assert_eq!(zero(&[(ZERO, on)]), Some(Zero { after: None }), "{on}");
        }
        for off in ["false", "0", ""] {
            assert_eq!(zero(&[(ZERO, off), (ZERO_DURATION, "1m")]), None, "{off}");
        }
        assert_eq!(zero(&[(ZERO_DURATION, "1m")]), None);
        assert_eq!(zero(&[(ZERO, "1"), (ZERO_DURATION, "1m30s")]), after(90));
        assert_eq!(zero(&[(ZERO, "1"), (ZERO_DURATION, "45")]), after(45));
    }

    #[test]
    fn by_load() {
        let load = |pairs: &[(&str, &str)]| parse(pairs).unwrap().load;
        let default = Load { measure: Measure::Rps, target: 50.0, proportion: 0.9, window: DEFAULT_WINDOW };
        // Whoever says nothing of it, or nothing that means more than one, is not scaled.
        for nothing in [&[][..], &[(MIN, "3")], &[(MAX, "1")], &[(PROPORTION, "0.5")], &[(WINDOW, "1m")]] {
            assert_eq!(load(nothing), None, "{nothing:?}");
        }
        for asked in [(MAX, "2"), (TYPE, "rps"), (TARGET, "50")] {
            assert_eq!(load(&[asked]), Some(default), "{asked:?}");
        }
        let all =
            [(TYPE, "cpu"), (TARGET, "250.5"), (PROPORTION, "1"), (WINDOW, "2m"), (MIN, "2"), (MAX, "3")];
        let wanted =
            Load { measure: Measure::Cpu, target: 250.5, proportion: 1.0, window: Duration::from_secs(120) };
        assert_eq!(load(&all), Some(wanted));
        assert_eq!(load(&[(TYPE, "capacity"), (WINDOW, "off")]).unwrap().window, Duration::ZERO);
        assert_eq!(load(&[(TYPE, "capacity"), (WINDOW, "0")]).unwrap().measure, Measure::Capacity);
    }

    #[test]
    fn what_others_measure_is_taken_and_does_nothing() {
        for kind in ["queue", "latency", "my-rule"] {
            let labels = labels(&[(TYPE, kind), (TARGET, "10"), (MAX, "5")]);
            assert_eq!(Scale::parse(&labels).unwrap().load, None);
            assert_eq!(Scale::foreign(&labels), Some(kind));
        }
        assert_eq!(Scale::foreign(&labels(&[(TYPE, "rps")])), None);
        assert_eq!(Scale::foreign(&labels(&[])), None);
    }

    #[test]
    fn alerts() {
        for (firing, current, pairs, expected) in [
            (true, 1, &[][..], 2),
            (true, 0, &[], 1),
            (true, 19, &[], 20),
            (true, 20, &[], 20),
            (true, 9, &[(MAX, "5")], 5),
            (false, 5, &[], 1),
            (false, 0, &[], 1),
            (false, 1, &[(MIN, "0")], 0),
            (false, 5, &[(MIN, "2")], 2),
            (true, 1, &[(MAX, "20"), (FACTOR, "100")], 6),
            (true, 1, &[(MAX, "2"), (FACTOR, "100")], 2),
            (true, 1, &[(FACTOR, "0")], 1),
        ] {
            assert_eq!(
                parse(pairs).unwrap().alerted(firing, current),
                expected,
                "{firing} {current} {pairs:?}"
            );
        }
    }

    #[test]
    fn refusals_name_label_and_value() {
        for (pairs, wanted) in [
            (&[(MIN, "x")][..], "label com.openfaas.scale.min: \"x\" is not a number from 0 to 1000"),
            (&[(MAX, "1001")], "label com.openfaas.scale.max: \"1001\" is not a number from 0 to 1000"),
            (&[(MAX, "0")], "label com.openfaas.scale.max: 0 would never let it run"),
            (
                &[(MIN, "3"), (MAX, "2")],
                "label com.openfaas.scale.min: 3 is more than the 2 of com.openfaas.scale.max",
            ),
            (&[(FACTOR, "101")], "label com.openfaas.scale.factor: \"101\" is not a number from 0 to 100"),
            (&[(TARGET, "many")], "label com.openfaas.scale.target: \"many\" is not a number above 0"),
            (&[(TARGET, "0")], "label com.openfaas.scale.target: \"0\" is not a number above 0"),
            (&[(TARGET, "inf")], "label com.openfaas.scale.target: \"inf\" is not a number above 0"),
            (
                &[(PROPORTION, "NaN")],
                "label com.openfaas.scale.target-proportion: \"NaN\" is not a number above 0",
            ),
            (
                &[(WINDOW, "soon")],
                "label com.openfaas.scale.down.window: \"soon\" is no duration such as 90s or 15m",
            ),
            (&[(WINDOW, "6m")], "label com.openfaas.scale.down.window: is longer than 5 minutes"),
            (&[(ZERO, "yes")], "label com.openfaas.scale.zero: \"yes\" is neither true nor false"),
            (
                &[(ZERO_DURATION, "-1m")],
                "label com.openfaas.scale.zero-duration: \"-1m\" is no duration such as 90s or 15m",
            ),
            (&[(ZERO_DURATION, "0s")], "label com.openfaas.scale.zero-duration: 0 would never let it run"),
            (&[(RESTS, "ice")], "label com.bothy.scale.zero-state: \"ice\" is neither stopped nor frozen"),
        ] {
            assert_eq!(parse(pairs).unwrap_err(), wanted);
        }
    }

    #[test]
    fn a_wrong_label_takes_no_other_one_along() {
        let scale = Scale::of(&labels(&[(MIN, "2"), (MAX, "many"), (ZERO, "true"), (ZERO_DURATION, "soon")]));
        assert_eq!((scale.initial(), scale.clamp(99), scale.zero), (2, 20, Some(Zero { after: None })));
        // Of two that do not fit the smaller one gives way.
        assert_eq!(Scale::of(&labels(&[(MIN, "3"), (MAX, "2")])).clamp(9), 3);
    }
}

//! How many instances of a function run, and what it is while none should: OpenFaaS's labels, and one of ours.

use std::collections::BTreeMap;

const MIN: &str = "com.openfaas.scale.min";
const MAX: &str = "com.openfaas.scale.max";
/// How a function rests while it is scaled to none: `stopped` (the default) or `frozen`.
const RESTS: &str = "com.bothy.scale.zero-state";

/// Instances at most where the label says nothing.
const DEFAULT_MAX: u64 = 20;
/// What no label can ask for: addresses, and the memory of the largest machine, end before.
const MOST: u64 = 1000;

/// How a function rests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Rest {
    /// Its process ends; the next one is prepared, and begins with a call.
    #[default]
    Stopped,
    /// Its process stays as it is, and uses memory but no processor time.
    Frozen,
}

/// What the labels say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scale {
    min: u64,
    max: u64,
    /// How it rests.
    pub rest: Rest,
}

impl Scale {
    /// Reads them; the error is one line for whoever wrote them.
    pub fn parse(labels: &BTreeMap<String, String>) -> Result<Self, String> {
        let number = |name: &str| match labels.get(name).map(|text| text.trim()) {
            None | Some("") => Ok(None),
            Some(text) => match text.parse::<u64>() {
                Ok(number) if number <= MOST => Ok(Some(number)),
                _ => Err(format!("label {name}: {text:?} is not a number from 0 to {MOST}")),
            },
        };
        let (min, max) = (number(MIN)?, number(MAX)?);
        if let (Some(min), Some(max)) = (min, max)
            && min > max
        {
            return Err(format!("label {MIN}: {min} is more than the {max} of {MAX}"));
        }
        if max == Some(0) {
            return Err(format!("label {MAX}: 0 would never let it run"));
        }
        let rest = match labels.get(RESTS).map(|text| text.trim()) {
            None | Some("" | "stopped") => Rest::Stopped,
            Some("frozen") => Rest::Frozen,
            Some(text) => return Err(format!("label {RESTS}: {text:?} is neither stopped nor frozen")),
        };
        let min = min.unwrap_or(1).max(1);
        Ok(Self { min, max: max.unwrap_or(DEFAULT_MAX).max(min), rest })
    }

    /// What is not to be read counts as not there: a document that was taken by an older version must not stop.
    pub fn of(labels: &BTreeMap<String, String>) -> Self {
        let fallback = Self { min: 1, max: DEFAULT_MAX, rest: Rest::Stopped };
        Self::parse(labels).unwrap_or(fallback)
    }

    /// How many run at first, and when a call wakes it.
    pub fn initial(self) -> u64 {
        self.min
    }

    /// How many run when so many are asked for; none is always allowed.
    pub fn clamp(self, wanted: u64) -> u64 {
        if wanted == 0 { 0 } else { wanted.clamp(self.min, self.max) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(pairs: &[(&str, &str)]) -> Result<Scale, String> {
        Scale::parse(&pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect())
    }

    #[test]
    fn labels() {
        let scale = parse(&[]).unwrap();
        assert_eq!((scale.initial(), scale.rest), (1, Rest::Stopped));
        assert_eq!([0, 1, 7, 100].map(|wanted| scale.clamp(wanted)), [0, 1, 7, 20]);
        let scale = parse(&[(MIN, "2"), (MAX, "4"), (RESTS, "frozen")]).unwrap();
        assert_eq!((scale.initial(), scale.rest), (2, Rest::Frozen));
        assert_eq!([0, 1, 3, 9].map(|wanted| scale.clamp(wanted)), [0, 2, 3, 4]);
        assert_eq!(parse(&[(MIN, "30")]).unwrap().clamp(40), 30);
        assert_eq!(parse(&[(MIN, "0"), (RESTS, "")]).unwrap().initial(), 1);
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
            (&[(RESTS, "ice")], "label com.bothy.scale.zero-state: \"ice\" is neither stopped nor frozen"),
        ] {
            assert_eq!(parse(pairs).unwrap_err(), wanted);
        }
    }
}

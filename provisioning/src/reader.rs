//! Reads the values of one table by kind, and refuses the keys that nobody asked for.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::{Range, RangeInclusive};
use std::str::FromStr;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::report::Report;
use crate::suggest::closest;
use crate::{Invalid, Memory, quantity, timeout};

/// Where tables end and other tables' keys begin, for "belongs there" hints.
pub(crate) type Elsewhere = [(&'static str, &'static [&'static str])];

/// One table of the file while it is read.
pub(crate) struct Reader<'a, 't, 'r> {
    pub(crate) table: &'a DeTable<'t>,
    pub(crate) report: &'r mut Report<'t>,
}

impl<'a, 't> Reader<'a, 't, '_> {
    /// A value and its place.
    pub(crate) fn get(&self, key: &str) -> Option<&'a Spanned<DeValue<'t>>> {
        self.table.get(key)
    }

    /// A string that must parse as `T`. A wrong one is reported and left out.
    pub(crate) fn value<T: FromStr<Err = Invalid>>(&mut self, key: &str) -> Option<T> {
        let (text, place) = self.string(key)?;
        match text.parse() {
            Ok(value) => Some(value),
            Err(invalid) => {
                self.report.problem(place, format!("`{key}` {invalid}"), None);
                None
            }
        }
    }

    /// A string that must pass a check, which says what is wrong with it.
    pub(crate) fn checked(&mut self, key: &str, check: fn(&str) -> Result<(), Invalid>) -> Option<String> {
        let (text, place) = self.string(key)?;
        match check(text) {
            Ok(()) => Some(text.to_owned()),
            Err(invalid) => {
                self.report.problem(place, format!("`{key}` {invalid}"), None);
                None
            }
        }
    }

    fn string(&mut self, key: &str) -> Option<(&'a str, Range<usize>)> {
        let value = self.get(key)?;
        match value.get_ref() {
            DeValue::String(text) => Some((text, value.span())),
            other => {
                self.wrong_kind(key, value.span(), "a string", other);
                None
            }
        }
    }

    /// `true` or `false`.
    pub(crate) fn boolean(&mut self, key: &str) -> Option<bool> {
        let value = self.get(key)?;
        match value.get_ref() {
            DeValue::Boolean(boolean) => Some(*boolean),
            other => {
                self.wrong_kind(key, value.span(), "true or false", other);
                None
            }
        }
    }

    /// A whole number of a range.
    pub(crate) fn integer<T>(&mut self, key: &str, range: RangeInclusive<T>) -> Option<T>
    where
        T: TryFrom<u64> + PartialOrd + fmt::Display,
    {
        let value = self.get(key)?;
        let expected = format!("a whole number from {} to {}", range.start(), range.end());
        let DeValue::Integer(number) = value.get_ref() else {
            self.wrong_kind(key, value.span(), &expected, value.get_ref());
            return None;
        };
        let parsed = u64::from_str_radix(number.as_str(), number.radix()).ok();
        let fits = parsed.and_then(|number| T::try_from(number).ok()).filter(|number| range.contains(number));
        if fits.is_none() {
            let message = format!("`{}` is {}, expected {expected}", short(key), short(&number.to_string()));
            self.report.problem(value.span(), message, None);
        }
        fits
    }

    /// A time of so many seconds, written as a string with units.
    pub(crate) fn time(&mut self, key: &str, seconds: RangeInclusive<u64>) -> Option<Duration> {
        let (text, place) = self.string(key)?;
        let time = timeout::within(text, seconds);
        time.map_err(|invalid| self.report.problem(place, format!("`{key}` {invalid}"), None)).ok()
    }

    /// An amount of memory or disk, in bytes.
    pub(crate) fn memory(&mut self, key: &str, bytes: RangeInclusive<u64>) -> Option<u64> {
        let place = self.get(key)?.span();
        let memory: Memory = self.value(key)?;
        let fits = bytes.contains(&memory.bytes());
        if !fits {
            let message = format!(
                "`{key}` is {}, expected an amount from {} to {}",
                short(memory.as_str()),
                quantity::shown(*bytes.start()),
                quantity::shown(*bytes.end())
            );
            self.report.problem(place, message, None);
        }
        fits.then(|| memory.bytes())
    }

    /// A table within this one.
    pub(crate) fn table(&mut self, key: &str) -> Option<&'a DeTable<'t>> {
        let value = self.get(key)?;
        match value.get_ref() {
            DeValue::Table(table) => Some(table),
            other => {
                self.wrong_kind(key, value.span(), "a table", other);
                None
            }
        }
    }

    /// A list of strings, each of which must pass a check.
    pub(crate) fn strings(&mut self, key: &str, check: fn(&str) -> Result<(), Invalid>) -> Vec<String> {
        let Some(value) = self.get(key) else { return Vec::new() };
        let DeValue::Array(items) = value.get_ref() else {
            self.wrong_kind(key, value.span(), "a list of strings", value.get_ref());
            return Vec::new();
        };
        let mut strings = Vec::new();
        for item in items.iter() {
            match item.get_ref() {
                DeValue::String(text) => match check(text) {
                    Ok(()) => strings.push(text.to_string()),
                    Err(invalid) => {
                        self.report.problem(item.span(), format!("an entry of `{key}` {invalid}"), None);
                    }
                },
                other => self.wrong_kind(key, item.span(), "only strings", other),
            }
        }
        strings
    }

    /// A table of strings whose keys and values must pass a check.
    pub(crate) fn map(
        &mut self,
        key: &str,
        check: fn(&str, &str) -> Result<(), Invalid>,
    ) -> BTreeMap<String, String> {
        let mut map = BTreeMap::new();
        for (name, value) in self.table(key).into_iter().flat_map(|table| table.iter()) {
            match value.get_ref() {
                DeValue::String(text) => match check(name.get_ref(), text) {
                    Ok(()) => drop(map.insert(name.get_ref().to_string(), text.to_string())),
                    Err(invalid) => {
                        let message = format!("`{}` in `{key}` {invalid}", name.get_ref());
                        self.report.problem(name.span(), message, None);
                    }
                },
                other => self.wrong_kind(name.get_ref(), value.span(), "a string", other),
            }
        }
        map
    }

    /// Refuses every key that is not known here. `title` is how the table is written, `elsewhere` where else keys live.
    pub(crate) fn only(&mut self, title: &str, known: &[&str], elsewhere: &Elsewhere) {
        self.only_but(title, known, elsewhere, |_| false);
    }

    /// The same for a table that has keys of the user's own too, which their values show.
    pub(crate) fn only_but(
        &mut self,
        title: &str,
        known: &[&str],
        elsewhere: &Elsewhere,
        own: fn(&DeValue<'t>) -> bool,
    ) {
        for (key, value) in self.table.iter() {
            let word: &str = key.get_ref();
            if known.contains(&word) || own(value.get_ref()) {
                continue;
            }
            let list: Vec<String> = known.iter().map(|known| format!("`{known}`")).collect();
            let message = format!("unknown key `{}` {title}, expected {}", short(word), list.join(", "));
            let homes = elsewhere.iter().filter(|(_, keys)| keys.contains(&word));
            let homes: Vec<&str> = homes.map(|(place, _)| *place).collect();
            let meant = if self.report.is_flooded() { None } else { closest(word, known) };
            let hint = match meant {
                Some(meant) => Some(format!("did you mean `{meant}`?")),
                None if homes.is_empty() => None,
                None => Some(format!("`{word}` belongs {}", homes.join(", or "))),
            };
            self.report.problem(key.span(), message, hint);
        }
    }

    /// Says that a value is of another kind than expected.
    pub(crate) fn wrong_kind(&mut self, key: &str, place: Range<usize>, expected: &str, found: &DeValue<'_>) {
        let (kind, hint) = match found {
            DeValue::String(_) => ("a string", None),
            DeValue::Integer(_) | DeValue::Float(_) => {
                ("a number", Some("put it in quotes to make it a string"))
            }
            DeValue::Boolean(_) => ("true or false", Some("put it in quotes to make it a string")),
            DeValue::Datetime(_) => ("a date", Some("put it in quotes to make it a string")),
            DeValue::Array(_) => ("a list", None),
            DeValue::Table(_) => {
                ("a table", Some("a name with dots is written in quotes: \"com.openfaas.queue\" = \"...\""))
            }
        };
        let hint = hint.filter(|_| expected.contains("string")).map(str::to_owned);
        self.report.problem(place, format!("`{}` is {kind}, expected {expected}", short(key)), hint);
    }
}

/// A key as it is quoted in a message.
fn short(key: &str) -> String {
    match key.char_indices().nth(48) {
        Some((end, _)) => format!("{}…", key.get(..end).unwrap_or_default()),
        None => key.to_owned(),
    }
}

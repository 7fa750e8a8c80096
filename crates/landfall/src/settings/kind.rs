//! The kinds of value that a setting can have: how each is read, shown and described.
//!
//! Owns: durations, sizes, counts, choices, paths, lists and texts. Does not own: which key has which kind
//! (`super::keys`), addresses (`super::address`).

use std::fmt;
use std::marker::PhantomData;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::document::Value;

/// One kind of value.
pub(crate) trait Kind {
    /// What it is read into.
    type Value;

    /// Reads a value; `None` when it is not one of this kind.
    fn read(&self, value: &Value) -> Option<Self::Value>;

    /// What is allowed, unit and range included, to go after "must be".
    fn allowed(&self) -> String;

    /// The value as TOML, without secrets.
    fn show(&self, value: &Self::Value) -> String;

    /// True when the value as written may hold a secret, so that no error may repeat it.
    fn is_secret(&self) -> bool {
        false
    }
}

/// The text of a string or of a variable.
pub(crate) fn text(value: &Value) -> Option<&str> {
    match value {
        Value::Text(text) | Value::Loose(text) => Some(text),
        _ => None,
    }
}

/// A text as a TOML basic string.
pub(crate) fn toml_string(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if c.is_control() => out.push_str(&format!("\\U{:08X}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Splits `12ms` into its number and its unit.
fn number_and_unit(text: &str) -> Option<(u64, &str)> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(digits)?;
    Some((number.parse().ok()?, unit.trim_start()))
}

const DURATION_UNITS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Reads `500ms`, `10s`, `5m`, `2h`, `30d`.
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    let (number, unit) = number_and_unit(text)?;
    let (_, ms) = DURATION_UNITS.iter().find(|(name, _)| *name == unit)?;
    number.checked_mul(*ms).map(Duration::from_millis)
}

/// Writes what [`parse_duration`] reads, in the largest unit that is exact.
pub(crate) fn show_duration(duration: Duration) -> String {
    let ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let (unit, size) = match ms {
        0 => ("s", 1_000),
        _ => DURATION_UNITS.into_iter().find(|(_, size)| ms.is_multiple_of(*size)).unwrap_or(("ms", 1)),
    };
    format!("{}{unit}", ms / size)
}

/// A duration within bounds.
pub(crate) struct Span {
    min: Duration,
    max: Duration,
    zero: Option<&'static str>,
}

/// A duration from `min` to `max` milliseconds.
pub(crate) const fn span(min: u64, max: u64) -> Span {
    Span { min: Duration::from_millis(min), max: Duration::from_millis(max), zero: None }
}

impl Span {
    /// Zero is allowed too, and means this.
    pub(crate) const fn or_zero(mut self, meaning: &'static str) -> Self {
        self.zero = Some(meaning);
        self
    }
}

impl Kind for Span {
    type Value = Duration;

    fn read(&self, value: &Value) -> Option<Duration> {
        let duration = parse_duration(text(value)?)?;
        let zero = self.zero.is_some() && duration.is_zero();
        (zero || (self.min <= duration && duration <= self.max)).then_some(duration)
    }

    fn allowed(&self) -> String {
        let (min, max) = (show_duration(self.min), show_duration(self.max));
        let zero = self.zero.map_or(String::new(), |meaning| format!(", or \"0s\" for {meaning}"));
        format!("a duration from \"{min}\" to \"{max}\" (units: ms, s, m, h, d){zero}")
    }

    fn show(&self, value: &Duration) -> String {
        toml_string(&show_duration(*value))
    }
}

const SIZE_UNITS: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

fn parse_size(text: &str) -> Option<u64> {
    let (number, unit) = number_and_unit(text)?;
    let (_, bytes) =
        SIZE_UNITS.iter().find(|(name, _)| *name == unit || (unit.is_empty() && *name == "B"))?;
    number.checked_mul(*bytes)
}

fn show_size(bytes: u64) -> String {
    let (unit, size) = match bytes {
        0 => ("B", 1),
        _ => SIZE_UNITS.into_iter().find(|(_, size)| bytes.is_multiple_of(*size)).unwrap_or(("B", 1)),
    };
    format!("{}{unit}", bytes / size)
}

/// A number of bytes within bounds.
pub(crate) struct Size<T> {
    min: u64,
    max: u64,
    zero: Option<&'static str>,
    kind: PhantomData<T>,
}

/// A size from `min` to `max` bytes.
pub(crate) const fn size<T>(min: u64, max: u64) -> Size<T> {
    Size { min, max, zero: None, kind: PhantomData }
}

impl<T> Size<T> {
    /// Zero is allowed too, and means this.
    pub(crate) const fn or_zero(mut self, meaning: &'static str) -> Self {
        self.zero = Some(meaning);
        self
    }
}

impl<T: TryFrom<u64> + TryInto<u64> + Copy> Kind for Size<T> {
    type Value = T;

    fn read(&self, value: &Value) -> Option<T> {
        let bytes = match value {
            Value::Integer(number) => u64::try_from(*number).ok()?,
            other => parse_size(text(other)?)?,
        };
        let zero = self.zero.is_some() && bytes == 0;
        if zero || (self.min <= bytes && bytes <= self.max) { T::try_from(bytes).ok() } else { None }
    }

    fn allowed(&self) -> String {
        let (min, max) = (show_size(self.min), show_size(self.max));
        let zero = self.zero.map_or(String::new(), |meaning| format!(", or 0 for {meaning}"));
        format!("a size from \"{min}\" to \"{max}\" (units: B, KiB, MiB, GiB; a plain number is bytes){zero}")
    }

    fn show(&self, value: &T) -> String {
        toml_string(&show_size((*value).try_into().unwrap_or(u64::MAX)))
    }
}

/// A whole number within bounds.
pub(crate) struct Count<T> {
    min: u64,
    max: u64,
    unit: &'static str,
    kind: PhantomData<T>,
}

/// A number of `unit` from `min` to `max`.
pub(crate) const fn count<T>(min: u64, max: u64, unit: &'static str) -> Count<T> {
    Count { min, max, unit, kind: PhantomData }
}

impl<T: TryFrom<u64> + fmt::Display> Kind for Count<T> {
    type Value = T;

    fn read(&self, value: &Value) -> Option<T> {
        let number = match value {
            Value::Integer(number) => u64::try_from(*number).ok()?,
            Value::Loose(text) => text.parse().ok()?,
            _ => return None,
        };
        if self.min <= number && number <= self.max { T::try_from(number).ok() } else { None }
    }

    fn allowed(&self) -> String {
        format!("a whole number from {} to {} ({})", self.min, self.max, self.unit)
    }

    fn show(&self, value: &T) -> String {
        value.to_string()
    }
}

/// `true` or `false`.
pub(crate) struct Flag;

impl Kind for Flag {
    type Value = bool;

    fn read(&self, value: &Value) -> Option<bool> {
        match value {
            Value::Flag(flag) => Some(*flag),
            Value::Loose(text) => text.parse().ok(),
            _ => None,
        }
    }

    fn allowed(&self) -> String {
        "true or false".to_owned()
    }

    fn show(&self, value: &bool) -> String {
        value.to_string()
    }
}

/// One of a closed list of words.
pub(crate) struct Choice<T: 'static>(pub(crate) &'static [(&'static str, T)]);

impl<T: Copy + PartialEq> Kind for Choice<T> {
    type Value = T;

    fn read(&self, value: &Value) -> Option<T> {
        let text = text(value)?;
        self.0.iter().find(|(name, _)| *name == text).map(|(_, value)| *value)
    }

    fn allowed(&self) -> String {
        let names: Vec<_> = self.0.iter().map(|(name, _)| toml_string(name)).collect();
        names.join(" or ")
    }

    fn show(&self, value: &T) -> String {
        let name = self.0.iter().find(|(_, member)| member == value).map_or("", |(name, _)| name);
        toml_string(name)
    }
}

/// A text that its own type parses.
pub(crate) struct Parsed<T> {
    allowed: &'static str,
    kind: PhantomData<T>,
}

/// A text for `T`, described as `allowed`.
pub(crate) const fn parsed<T>(allowed: &'static str) -> Parsed<T> {
    Parsed { allowed, kind: PhantomData }
}

impl<T: FromStr + fmt::Display> Kind for Parsed<T> {
    type Value = T;

    fn read(&self, value: &Value) -> Option<T> {
        text(value)?.parse().ok()
    }

    fn allowed(&self) -> String {
        self.allowed.to_owned()
    }

    fn show(&self, value: &T) -> String {
        toml_string(&value.to_string())
    }
}

/// A text that may be absent, which is written as "".
pub(crate) struct Maybe<K> {
    inner: K,
    absent: &'static str,
}

/// What `inner` allows, or "" for what `absent` says.
pub(crate) const fn maybe<K>(inner: K, absent: &'static str) -> Maybe<K> {
    Maybe { inner, absent }
}

impl<K: Kind> Kind for Maybe<K> {
    type Value = Option<K::Value>;

    fn read(&self, value: &Value) -> Option<Self::Value> {
        if text(value) == Some("") { Some(None) } else { self.inner.read(value).map(Some) }
    }

    fn allowed(&self) -> String {
        format!("{}, or \"\" for {}", self.inner.allowed(), self.absent)
    }

    fn show(&self, value: &Self::Value) -> String {
        value.as_ref().map_or_else(|| "\"\"".to_owned(), |value| self.inner.show(value))
    }

    fn is_secret(&self) -> bool {
        self.inner.is_secret()
    }
}

/// The path of a file or directory; relative ones begin at the working directory.
pub(crate) struct Path(pub(crate) &'static str);

impl Kind for Path {
    type Value = PathBuf;

    fn read(&self, value: &Value) -> Option<PathBuf> {
        let text = text(value)?;
        (!text.is_empty() && !text.contains('\0')).then(|| PathBuf::from(text))
    }

    fn allowed(&self) -> String {
        format!("the path of {}", self.0)
    }

    fn show(&self, value: &PathBuf) -> String {
        toml_string(&value.to_string_lossy())
    }
}

/// A list; in a variable, its items stand between commas or as a TOML array.
pub(crate) struct Each<K> {
    inner: K,
    max: usize,
    none: Option<&'static str>,
}

/// From 1 to `max` items of `inner`.
pub(crate) const fn each<K>(inner: K, max: usize) -> Each<K> {
    Each { inner, max, none: None }
}

impl<K> Each<K> {
    /// A list of no items is allowed too, and means this.
    pub(crate) const fn or_none(mut self, meaning: &'static str) -> Self {
        self.none = Some(meaning);
        self
    }
}

impl<K: Kind> Kind for Each<K> {
    type Value = Vec<K::Value>;

    fn read(&self, value: &Value) -> Option<Self::Value> {
        let items: Vec<Value> = match value {
            Value::List(items) => items.clone(),
            Value::Loose(text) if text.trim().is_empty() => Vec::new(),
            Value::Loose(text) => loose_list(text)?,
            _ => return None,
        };
        if items.len() > self.max || (items.is_empty() && self.none.is_none()) {
            return None;
        }
        items.iter().map(|item| self.inner.read(item)).collect()
    }

    fn allowed(&self) -> String {
        let none = self.none.map_or(String::new(), |meaning| format!(", or [] for {meaning}"));
        format!("a list of 1 to {} of {}{none}", self.max, self.inner.allowed())
    }

    fn show(&self, value: &Self::Value) -> String {
        let items: Vec<_> = value.iter().map(|item| self.inner.show(item)).collect();
        format!("[{}]", items.join(", "))
    }

    fn is_secret(&self) -> bool {
        self.inner.is_secret()
    }
}

fn loose_list(text: &str) -> Option<Vec<Value>> {
    let text = text.trim();
    if text.starts_with('[') {
        let table = crate::document::parse(&format!("v = {text}")).ok()?;
        return match table.into_iter().next()?.value {
            Value::List(items) => Some(items),
            _ => None,
        };
    }
    Some(text.split(',').map(|item| Value::Loose(item.trim().to_owned())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loose(text: &str) -> Value {
        Value::Loose(text.to_owned())
    }

    #[test]
    fn durations_read_back_as_written() {
        for (text, ms) in
            [("500ms", 500), ("10s", 10_000), ("5m", 300_000), ("2h", 7_200_000), ("1d", 86_400_000)]
        {
            assert_eq!(parse_duration(text), Some(Duration::from_millis(ms)), "{text}");
            assert_eq!(show_duration(Duration::from_millis(ms)), text);
        }
        assert_eq!(show_duration(Duration::from_millis(1_500)), "1500ms");
        assert_eq!(show_duration(Duration::ZERO), "0s");
        for text in
            ["", "5", "s", "-5s", "1.5s", "5 parsecs", "5S", "99999999999999999999s", "18446744073709551615d"]
        {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }

    #[test]
    fn a_duration_keeps_its_bounds() {
        let kind = span(100, 10_000).or_zero("never");
        assert_eq!(kind.read(&loose("100ms")), Some(Duration::from_millis(100)));
        assert_eq!(kind.read(&loose("0ms")), Some(Duration::ZERO));
        assert_eq!(kind.read(&loose("99ms")), None);
        assert_eq!(kind.read(&loose("11s")), None);
        assert_eq!(kind.read(&Value::Integer(5)), None, "a number without a unit is no duration");
        assert!(kind.allowed().contains("from \"100ms\" to \"10s\""), "{}", kind.allowed());
        assert!(kind.allowed().contains("never"));
    }

    #[test]
    fn sizes_take_binary_units_and_plain_bytes() {
        let kind = size::<u32>(1, 1 << 30);
        assert_eq!(kind.read(&loose("256KiB")), Some(262_144));
        assert_eq!(kind.read(&Value::Integer(70)), Some(70));
        assert_eq!(kind.read(&loose("70")), Some(70));
        assert_eq!(kind.read(&loose("2GiB")), None);
        assert_eq!(kind.read(&loose("1MB")), None, "decimal units are refused, not guessed");
        assert_eq!(kind.show(&262_144), "\"256KiB\"");
        assert_eq!(kind.show(&262_145), "\"262145B\"");
    }

    #[test]
    fn counts_are_numbers_in_a_file_and_text_in_a_variable() {
        let kind = count::<u16>(1, 65_535, "packets");
        assert_eq!(kind.read(&Value::Integer(32)), Some(32));
        assert_eq!(kind.read(&loose("32")), Some(32));
        assert_eq!(kind.read(&Value::Text("32".into())), None);
        assert_eq!(kind.read(&Value::Integer(0)), None);
        assert_eq!(kind.read(&Value::Integer(-1)), None);
        assert_eq!(kind.read(&Value::Integer(65_536)), None);
    }

    #[test]
    fn lists_come_as_arrays_or_between_commas() {
        let kind = each(Path("x"), 3);
        let expected = Some(vec![PathBuf::from("a"), PathBuf::from("b")]);
        assert_eq!(kind.read(&loose("a, b")), expected);
        assert_eq!(kind.read(&loose(r#"["a", "b"]"#)), expected);
        assert_eq!(kind.read(&Value::List(vec![Value::Text("a".into()), Value::Text("b".into())])), expected);
        assert_eq!(kind.read(&loose("a,b,c,d")), None);
        assert_eq!(kind.read(&loose("a,,b")), None);
        assert_eq!(kind.read(&loose("[1")), None);
        assert_eq!(kind.read(&Value::List(vec![])), None);
        assert_eq!(kind.read(&loose("")), None);
        let kind = kind.or_none("nothing");
        for empty in [Value::List(vec![]), loose(""), loose(" "), loose("[]")] {
            assert_eq!(kind.read(&empty), Some(vec![]), "{empty:?}");
        }
        assert!(kind.allowed().ends_with("or [] for nothing") && kind.show(&vec![]) == "[]");
    }

    #[test]
    fn toml_strings_read_back() {
        for text in ["", "plain", "a\"b\\c", "tab\tnew\nline\u{1b}", "é→"] {
            let table = crate::document::parse(&format!("v = {}", toml_string(text))).unwrap();
            assert_eq!(table[0].value, Value::Text(text.to_owned()));
        }
    }
}

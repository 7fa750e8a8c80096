//! A TOML document whose values know the line that they stand in.
//!
//! Owns: reading TOML into plain values with lines, and saying where it is broken without quoting it: a line of a settings
//! file may hold a secret. Does not own: what the keys mean (`settings`, `auth::file`).

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A value as it was written.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    /// A TOML string.
    Text(String),
    /// A TOML integer.
    Integer(i64),
    /// A TOML boolean.
    Flag(bool),
    /// A TOML array.
    List(Vec<Value>),
    /// A TOML table.
    Table(Table),
    /// A float, a date, or an integer beyond 64 bits: nothing here takes one.
    Other(&'static str),
    /// The text of an environment variable, which has no type of its own.
    Loose(String),
}

/// A table's entries in the order of their names.
pub(crate) type Table = Vec<Entry>;

/// One entry of a table.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    /// Its name.
    pub(crate) name: String,
    /// The line of its name, from 1.
    pub(crate) line: usize,
    /// Its value.
    pub(crate) value: Value,
    /// The line where the value begins, from 1.
    pub(crate) value_line: usize,
}

/// Where a text is no TOML, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {message}")]
pub(crate) struct SyntaxError {
    /// From 1.
    pub(crate) line: usize,
    /// In bytes, from 1.
    pub(crate) column: usize,
    /// The parser's words, without the text.
    message: String,
}

/// Reads a document.
pub(crate) fn parse(text: &str) -> Result<Table, SyntaxError> {
    let lines = Lines::new(text);
    match DeTable::parse(text) {
        Ok(table) => Ok(lines.table(table.get_ref())),
        Err(error) => {
            let at = error.span().map_or(0, |span| span.start);
            let (line, column) = lines.at(at);
            Err(SyntaxError { line, column, message: error.message().to_owned() })
        }
    }
}

/// The offsets at which lines begin.
struct Lines(Vec<usize>);

impl Lines {
    fn new(text: &str) -> Self {
        Self(std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect())
    }

    fn at(&self, offset: usize) -> (usize, usize) {
        let line = self.0.partition_point(|start| *start <= offset);
        let start = line.checked_sub(1).and_then(|index| self.0.get(index)).copied().unwrap_or(0);
        (line, offset.saturating_sub(start) + 1)
    }

    fn table(&self, table: &DeTable<'_>) -> Table {
        let entry = |(name, value): (&Spanned<_>, &Spanned<DeValue<'_>>)| {
            let name: &Spanned<std::borrow::Cow<'_, str>> = name;
            Entry {
                name: name.get_ref().to_string(),
                line: self.at(name.span().start).0,
                value: self.value(value.get_ref()),
                value_line: self.at(value.span().start).0,
            }
        };
        table.iter().map(entry).collect()
    }

    fn value(&self, value: &DeValue<'_>) -> Value {
        match value {
            DeValue::String(text) => Value::Text(text.to_string()),
            DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
                .map_or(Value::Other("number beyond 64 bits"), Value::Integer),
            DeValue::Boolean(flag) => Value::Flag(*flag),
            DeValue::Array(array) => Value::List(array.iter().map(|v| self.value(v.get_ref())).collect()),
            DeValue::Table(table) => Value::Table(self.table(table)),
            DeValue::Float(_) => Value::Other("float"),
            DeValue::Datetime(_) => Value::Other("date"),
        }
    }
}

impl Value {
    /// The value for an error message: escaped, and not longer than a line.
    pub(crate) fn shown(&self) -> String {
        match self {
            Self::Text(text) | Self::Loose(text) => quoted(text),
            Self::Integer(number) => number.to_string(),
            Self::Flag(flag) => flag.to_string(),
            Self::List(items) => {
                let shown: Vec<_> = items.iter().take(8).map(Self::shown).collect();
                let more = if items.len() > 8 { ", …" } else { "" };
                format!("[{}{more}]", shown.join(", "))
            }
            Self::Table(_) => "a table".to_owned(),
            Self::Other(name) => format!("a {name}"),
        }
    }
}

fn quoted(text: &str) -> String {
    const MOST: usize = 120;
    let cut: String = text.chars().take(MOST).collect();
    if cut.len() < text.len() { format!("{cut:?}…") } else { format!("{cut:?}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_know_their_lines() {
        let table = parse("a = 1\n\n[b]\nc = [\n \"x\",\n true]\n").unwrap();
        assert_eq!((table[0].name.as_str(), table[0].line), ("a", 1));
        assert_eq!((table[1].name.as_str(), table[1].line), ("b", 3));
        let Value::Table(inner) = &table[1].value else { panic!("{table:?}") };
        assert_eq!(inner[0].line, 4);
        assert_eq!(inner[0].value.shown(), r#"["x", true]"#);
    }

    #[test]
    fn a_broken_document_is_placed_but_never_quoted() {
        let error = parse("a = 1\nurl = \"nats://u:hunter2@h\nb = 2\n").unwrap_err();
        assert_eq!(error.line, 2);
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }

    #[test]
    fn values_that_nothing_takes_are_named() {
        let table = parse("a = 1.5\nb = 1979-05-27\nc = 99999999999999999999\nd = 0x10\n").unwrap();
        let shown: Vec<_> = table.iter().map(|e| e.value.shown()).collect();
        assert_eq!(shown, ["a float", "a date", "a number beyond 64 bits", "16"]);
    }

    #[test]
    fn shown_text_has_no_control_characters_and_an_end() {
        assert_eq!(Value::Text("a\u{1b}[31m\n".into()).shown(), r#""a\u{1b}[31m\n""#);
        assert!(Value::Text("é".repeat(10_000)).shown().len() < 300);
    }
}

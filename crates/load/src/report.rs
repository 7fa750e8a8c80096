//! What a scenario found, for people and for programs.

use serde::{Serialize, Serializer};
use serde_json::Value;

/// Named figures in the order in which they were added.
#[derive(Debug, Default)]
pub(crate) struct Report(Vec<(String, Value)>);

impl Report {
    /// Adds a figure; one of the same name gives way to it.
    pub(crate) fn add(&mut self, name: &str, value: impl Into<Value>) -> &mut Self {
        let value = value.into();
        match self.0.iter_mut().find(|(before, _)| before == name) {
            Some((_, place)) => *place = value,
            None => self.0.push((name.to_owned(), value)),
        }
        self
    }

    /// All of them, as one object.
    #[cfg(test)]
    pub(crate) fn value(&self) -> Value {
        Value::Object(self.0.iter().cloned().collect())
    }

    #[expect(clippy::print_stdout, reason = "the program's output")]
    pub(crate) fn print(&self, json: bool) {
        if json {
            // Names and numbers are always written.
            println!("{}", serde_json::to_string(self).unwrap_or_default());
            return;
        }
        for (name, value) in &self.0 {
            println!("{name:<28} {value}");
        }
    }
}

impl Serialize for Report {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

#[expect(clippy::print_stderr, reason = "the program's output")]
pub(crate) fn complain(error: &str) {
    eprintln!("landfall-load: {error}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_keep_their_order() {
        let mut report = Report::default();
        report.add("z", 1).add("a", "text").add("z", 2.5);
        assert_eq!(serde_json::to_string(&report).unwrap(), r#"{"z":2.5,"a":"text"}"#);
    }
}

//! What a scenario found, for people and for programs.

use serde_json::{Map, Value};

/// Named figures in the order in which they were added.
#[derive(Debug, Default)]
pub(crate) struct Report(Map<String, Value>);

impl Report {
    pub(crate) fn add(&mut self, name: &str, value: impl Into<Value>) -> &mut Self {
        self.0.insert(name.to_owned(), value.into());
        self
    }

    /// All of them, as one object.
    pub(crate) fn value(&self) -> Value {
        Value::Object(self.0.clone())
    }

    #[expect(clippy::print_stdout, reason = "the program's output")]
    pub(crate) fn print(&self, json: bool) {
        if json {
            println!("{}", self.value());
            return;
        }
        for (name, value) in &self.0 {
            println!("{name:<28} {value}");
        }
    }
}

#[expect(clippy::print_stderr, reason = "the program's output")]
pub(crate) fn complain(error: &str) {
    eprintln!("landfall-load: {error}");
}

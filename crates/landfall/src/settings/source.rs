//! Where settings come from, and what is wrong with them.
//!
//! Owns: the environment as a value (tests pass their own), the file's entries, the order of precedence (variable over file
//! over default), unknown keys. Does not own: which keys exist (`super::keys`).

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use super::kind::Kind;
use crate::document::{self, Entry, Value};

/// What every variable of the settings begins with.
const PREFIX: &str = "LANDFALL_";

/// Environment variables, as given: the process's own, or a test's.
#[derive(Clone, Debug, Default)]
pub struct Environment(BTreeMap<OsString, OsString>);

impl Environment {
    /// The process's variables.
    pub fn of_process() -> Self {
        Self(std::env::vars_os().collect())
    }

    /// These variables and no others.
    pub fn of<K: Into<OsString>, V: Into<OsString>>(variables: impl IntoIterator<Item = (K, V)>) -> Self {
        Self(variables.into_iter().map(|(k, v)| (k.into(), v.into())).collect())
    }

    /// One variable's text, if it is set and UTF-8.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(std::ffi::OsStr::new(name))?.to_str()
    }
}

/// Where the settings of this process come from, to be read again.
#[derive(Clone, Debug, Default)]
pub struct Origin {
    named: Option<PathBuf>,
    environment: Environment,
}

impl Origin {
    /// A file that was named, and the environment.
    pub fn new(named: Option<PathBuf>, environment: Environment) -> Self {
        Self { named, environment }
    }

    /// Reads the settings as they are now.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub fn read(&self) -> Result<super::Settings, Problems> {
        super::Settings::find(self.named.as_deref(), &self.environment)
    }
}

/// Where a value stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// In no place: it is the default.
    Default,
    /// In a file, at this line.
    File(PathBuf, usize),
    /// In an environment variable of this name.
    Variable(String),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path, line) => write!(f, "{}:{line}", path.display()),
            Self::Variable(name) => write!(f, "environment variable {name}"),
        }
    }
}

/// One thing that is wrong with the settings, in one sentence that names the key, the value, where it stands and what is
/// allowed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Problem(pub(crate) String);

/// Everything that is wrong with the settings: never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            let line_end = if index == 0 { "" } else { "\n" };
            write!(f, "{line_end}{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// A settings file: where it is and what it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Its path, for messages.
    pub path: PathBuf,
    /// Its text.
    pub text: String,
}

/// Gives out the values of the keys that are asked for, and knows at the end which were never asked for.
pub(crate) struct Reader {
    given: BTreeMap<String, (Value, Source)>,
    asked: Vec<String>,
    problems: Vec<Problem>,
    /// Variables that are none of the settings', and look as if they were meant to be.
    passed_over: Vec<String>,
}

impl Reader {
    pub(crate) fn new(file: Option<&File>, environment: &Environment) -> Self {
        let mut reader =
            Self { given: BTreeMap::new(), asked: Vec::new(), problems: Vec::new(), passed_over: Vec::new() };
        if let Some(file) = file {
            reader.read_file(file);
        }
        reader.read_environment(environment);
        reader
    }

    fn read_file(&mut self, file: &File) {
        let table = match document::parse(&file.text) {
            Ok(table) => table,
            Err(error) => return self.problem(format!("{} is no TOML: {error}", file.path.display())),
        };
        for Entry { name, line, value, value_line } in table {
            match value {
                Value::Table(inner) if inner.is_empty() => {
                    self.give(format!("{name}."), Value::Table(inner), Source::File(file.path.clone(), line));
                }
                Value::Table(inner) => inner.into_iter().for_each(|entry| {
                    let source = Source::File(file.path.clone(), entry.line);
                    self.give(format!("{name}.{}", entry.name), entry.value, source);
                }),
                value => self.give(name, value, Source::File(file.path.clone(), value_line)),
            }
        }
    }

    /// A variable belongs to the settings when its name holds a section (`LANDFALL_NATS__URL`) or is that of a key without
    /// one. Others that begin alike are left alone: an orchestrator makes such names for a service called landfall.
    fn read_environment(&mut self, environment: &Environment) {
        for (name, value) in &environment.0 {
            let Some(key) = name.to_str().and_then(|n| n.strip_prefix(PREFIX)) else { continue };
            let path = key.to_ascii_lowercase().replace("__", ".");
            if !path.contains('.') && !super::keys::is_top_level(&path) {
                // What an orchestrator makes for a service of such a name is an address.
                let is_address =
                    value.to_str().is_some_and(|text| text.contains("://") && path.ends_with("_port"));
                if !is_address {
                    self.passed_over.push(key.to_ascii_lowercase());
                }
                continue;
            }
            let variable = format!("{PREFIX}{key}");
            match value.to_str() {
                Some(text) => self.give(path, Value::Loose(text.to_owned()), Source::Variable(variable)),
                None => self.problem(format!("`{path}` (environment variable {variable}) is not UTF-8")),
            }
        }
    }

    fn give(&mut self, path: String, value: Value, source: Source) {
        self.given.insert(path, (value, source));
    }

    pub(crate) fn problem(&mut self, text: String) {
        self.problems.push(Problem(text));
    }

    /// The value of a key, or of its default; `None` after a problem, which is kept.
    pub(crate) fn take<K: Kind>(&mut self, path: &str, default: &str, kind: &K) -> Option<K::Value> {
        let given = self.given.get(path).cloned();
        self.asked.push(path.to_owned());
        let (value, source) = given.unwrap_or_else(|| (default_value(default), Source::Default));
        let read = kind.read(&value);
        if read.is_none() {
            let shown = if kind.is_secret() { "***".to_owned() } else { value.shown() };
            self.problem(format!("`{path}` = {shown} ({source}): must be {}", kind.allowed()));
        }
        read
    }

    /// A sentence for each variable that only lacks an underscore. To be asked when every key has been.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let meant = |passed: &String| {
            let key = self.asked.iter().find(|key| key.replace('.', "_") == *passed)?;
            let (wrong, right) = (passed.to_ascii_uppercase(), key.replace('.', "__").to_ascii_uppercase());
            Some(format!(
                "the environment variable {PREFIX}{wrong} is ignored: did you mean {PREFIX}{right}?"
            ))
        };
        self.passed_over.iter().filter_map(meant).collect()
    }

    /// Where the value of a key stands.
    pub(crate) fn source(&self, path: &str) -> Source {
        self.given.get(path).map_or(Source::Default, |(_, source)| source.clone())
    }

    /// Every problem, those of keys that nobody asked for included.
    pub(crate) fn finish(mut self) -> Vec<Problem> {
        let asked = std::mem::take(&mut self.asked);
        let sections: Vec<&str> = sections_of(&asked);
        let mut unknown = Vec::new();
        for (path, (value, source)) in self.given.iter().filter(|(path, _)| !asked.contains(path)) {
            let section = path.split_once('.').map(|(section, _)| section);
            match section {
                Some(known) if sections.contains(&known) && path.ends_with('.') => {}
                Some(known) if sections.contains(&known) => {
                    let keys: Vec<_> =
                        asked.iter().filter(|a| a.split_once('.').is_some_and(|(s, _)| s == known)).collect();
                    unknown.push(unknown_key(path, source, &keys));
                }
                None if sections.contains(&path.as_str()) => {
                    unknown.push(format!(
                        "`{path}` = {} ({source}): must be a section, [{path}]",
                        value.shown()
                    ));
                }
                _ => {
                    let shown = path.strip_suffix('.').unwrap_or(path).escape_debug();
                    unknown.push(format!(
                        "unknown key `{shown}` ({source}): {}",
                        what_exists(&sections, &asked)
                    ));
                }
            }
        }
        self.problems.extend(unknown.into_iter().map(Problem));
        self.problems
    }
}

fn what_exists(sections: &[&str], asked: &[String]) -> String {
    let top: Vec<_> =
        asked.iter().filter(|path| !path.contains('.')).map(|path| format!("`{path}`")).collect();
    format!("the sections are {}, and outside of them is {}", sections.join(", "), top.join(", "))
}

fn sections_of(asked: &[String]) -> Vec<&str> {
    let mut sections: Vec<&str> =
        asked.iter().filter_map(|path| path.split_once('.')).map(|(s, _)| s).collect();
    sections.dedup();
    sections
}

fn unknown_key(path: &str, source: &Source, keys: &[&String]) -> String {
    let nearest = keys.iter().map(|key| (distance(path, key), key)).min_by_key(|(distance, _)| *distance);
    let hint = match nearest {
        Some((distance, key)) if distance <= 2 => format!("did you mean `{key}`?"),
        _ => {
            let names: Vec<_> =
                keys.iter().filter_map(|key| key.split_once('.')).map(|(_, key)| key).collect();
            format!("the keys of this section are {}", names.join(", "))
        }
    };
    format!("unknown key `{}` ({source}): {hint}", path.escape_debug())
}

/// The number of single-character edits between two texts (Levenshtein), for short texts.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        let mut next = vec![left];
        for (cb, above) in b.chars().zip(row.iter().skip(1)) {
            let cost = usize::from(ca != cb);
            left = (diagonal + cost).min(above + 1).min(left + 1);
            diagonal = *above;
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

/// A default stands in the code as TOML.
fn default_value(text: &str) -> Value {
    let table = document::parse(&format!("v = {text}")).unwrap_or_default();
    table.into_iter().next().map_or(Value::Other("broken default"), |entry| entry.value)
}

/// Reads a file; the error says what to do about it.
pub(crate) fn read_file(path: &Path) -> Result<File, Problem> {
    const MOST: u64 = 4 << 20;
    let wrong = |error: &dyn fmt::Display| {
        Problem(format!("the settings file {} cannot be read: {error}", path.display()))
    };
    let size = std::fs::metadata(path).map_err(|error| wrong(&error))?.len();
    if size > MOST {
        return Err(wrong(&format_args!("it is larger than {MOST} bytes")));
    }
    let text = std::fs::read_to_string(path).map_err(|error| wrong(&error))?;
    Ok(File { path: path.to_owned(), text })
}

//! Which log lines are wanted.

use std::fmt;
use std::str::FromStr;

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// A checked list of log levels: one for Landfall's own parts, and others for named parts or libraries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFilter {
    own: &'static str,
    named: Vec<(String, &'static str)>,
}

/// A text that is no such list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not a list of log levels")]
pub struct LogFilterError;

impl LogFilter {
    /// The directives for `tracing_subscriber::EnvFilter`.
    pub fn directives(&self) -> String {
        let libraries = if matches!(self.own, "off" | "error") { self.own } else { "warn" };
        let mut out = format!("{libraries},landfall={}", self.own);
        for (name, level) in &self.named {
            out.push_str(&format!(",{name}={level}"));
        }
        out
    }
}

fn level(text: &str) -> Result<&'static str, LogFilterError> {
    LEVELS.into_iter().find(|level| *level == text).ok_or(LogFilterError)
}

impl FromStr for LogFilter {
    type Err = LogFilterError;

    fn from_str(text: &str) -> Result<Self, LogFilterError> {
        let mut own = None;
        let mut named = Vec::new();
        for part in text.split(',').map(str::trim) {
            match part.split_once('=') {
                Some((name, wanted)) => {
                    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | ':' | '-');
                    if name.is_empty() || !name.chars().all(plain) {
                        return Err(LogFilterError);
                    }
                    named.push((name.to_owned(), level(wanted)?));
                }
                None if own.is_none() => own = Some(level(part)?),
                None => return Err(LogFilterError),
            }
        }
        Ok(Self { own: own.unwrap_or("info"), named })
    }
}

impl fmt::Display for LogFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.own)?;
        self.named.iter().try_for_each(|(name, level)| write!(f, ",{name}={level}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_alone_is_for_our_own_parts() {
        let filter: LogFilter = "debug".parse().unwrap();
        assert_eq!(filter.directives(), "warn,landfall=debug");
        let filter: LogFilter = "info,landfall_mqtt=trace,rustls=off".parse().unwrap();
        assert_eq!(filter.directives(), "warn,landfall=info,landfall_mqtt=trace,rustls=off");
        assert_eq!(filter.to_string(), "info,landfall_mqtt=trace,rustls=off");
        assert_eq!("off".parse::<LogFilter>().unwrap().directives(), "off,landfall=off");
    }

    #[test]
    fn words_that_are_no_levels_are_refused() {
        for text in ["", "verbose", "info,debug", "=info", "a b=info", "landfall=loud", "info,"] {
            assert_eq!(text.parse::<LogFilter>(), Err(LogFilterError), "{text}");
        }
    }
}

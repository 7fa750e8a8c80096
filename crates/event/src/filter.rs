//! Topic names and topic filters (MQTT 5.0 section 4.7), used for ACLs, subscriptions and CoAP paths alike.
//!
//! Owns: what is a valid name or filter, what a filter matches, what one filter covers of another. Does not own:
//! subscriptions (`landfall-mqtt-core`).

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The most levels that a name or filter may have: a bound on the work that one topic can ask for.
pub const MAX_LEVELS: usize = 128;
/// The most bytes of a name or filter.
pub const MAX_TOPIC: usize = 1_024;

/// Why a text is no topic name or filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// At least one character is needed [MQTT-4.7.3-1].
    #[error("is empty")]
    Empty,
    /// More than [`MAX_TOPIC`] bytes; MQTT allows 65,535 [MQTT-4.7.3-3].
    #[error("is longer than {MAX_TOPIC} bytes")]
    TooLong,
    /// More than [`MAX_LEVELS`] levels.
    #[error("has more than {MAX_LEVELS} levels")]
    TooDeep,
    /// U+0000 [MQTT-4.7.3-2] or another control character.
    #[error("holds a control character")]
    Control,
    /// `#` not alone in the last level [MQTT-4.7.1-1], `+` not alone in its level [MQTT-4.7.1-2], or either in a name.
    #[error("holds a misplaced + or #")]
    Wildcard,
    /// A level of its own holds a `/`, which would be two.
    #[error("holds a / within a level")]
    Slash,
}

fn check_text(text: &str) -> Result<(), TopicError> {
    match text {
        "" => Err(TopicError::Empty),
        t if t.len() > MAX_TOPIC => Err(TopicError::TooLong),
        t if t.bytes().filter(|b| *b == b'/').count() >= MAX_LEVELS => Err(TopicError::TooDeep),
        t if t.chars().any(char::is_control) => Err(TopicError::Control),
        _ => Ok(()),
    }
}

/// The topic that levels make, such as the segments of a CoAP path: what an MQTT device can say, and nothing else. `""` where there
/// are none.
///
/// # Errors
/// Those of [`check_topic_name`], and a `/` within a level.
pub fn topic_of<'a>(levels: impl IntoIterator<Item = &'a str>) -> Result<String, TopicError> {
    let (mut topic, mut is_first) = (String::new(), true);
    for level in levels {
        if level.contains('/') {
            return Err(TopicError::Slash);
        }
        if !std::mem::take(&mut is_first) {
            topic.push('/');
        }
        topic.push_str(level);
    }
    if !topic.is_empty() {
        check_topic_name(&topic)?;
    }
    Ok(topic)
}

/// Checks a topic name: a filter's rules, and no wildcard [MQTT-3.3.2-2].
pub fn check_topic_name(text: &str) -> Result<(), TopicError> {
    check_text(text)?;
    if text.contains(['+', '#']) { Err(TopicError::Wildcard) } else { Ok(()) }
}

/// A valid topic filter.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicFilter(Arc<str>);

impl FromStr for TopicFilter {
    type Err = TopicError;

    fn from_str(text: &str) -> Result<Self, TopicError> {
        check_text(text)?;
        let mut levels = text.split('/').peekable();
        while let Some(level) = levels.next() {
            let valid = match level {
                "#" => levels.peek().is_none(),
                "+" => true,
                other => !other.contains(['+', '#']),
            };
            if !valid {
                return Err(TopicError::Wildcard);
            }
        }
        Ok(Self(text.into()))
    }
}

impl TopicFilter {
    /// The text itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Does the filter match this topic name? A wildcard in the first level does not match a name that begins with `$`
    /// [MQTT-4.7.2-1].
    pub fn matches(&self, name: &str) -> bool {
        if name.starts_with('$') && self.0.starts_with(['+', '#']) {
            return false;
        }
        let mut levels = name.split('/');
        for wanted in self.0.split('/') {
            match (wanted, levels.next()) {
                ("#", _) => return true,
                ("+", Some(_)) => {}
                (wanted, Some(level)) if wanted == level => {}
                _ => return false,
            }
        }
        levels.next().is_none()
    }

    /// Does the filter match every name that `other` matches? Used to bound what a device may subscribe to.
    pub fn covers(&self, other: &Self) -> bool {
        if other.0.starts_with('$') && self.0.starts_with(['+', '#']) {
            return false;
        }
        let mut theirs = other.0.split('/');
        for wanted in self.0.split('/') {
            match (wanted, theirs.next()) {
                ("#", _) => return true,
                (_, Some("#")) | (_, None) => return false,
                ("+", Some(_)) => {}
                (wanted, Some(level)) if wanted == level => {}
                _ => return false,
            }
        }
        theirs.next().is_none()
    }
}

impl fmt::Display for TopicFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(text: &str) -> TopicFilter {
        text.parse().unwrap()
    }

    #[test]
    fn filters_match_as_section_4_7_says() {
        for (f, name, expected) in [
            ("sport/tennis/player1/#", "sport/tennis/player1", true),
            ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", true),
            ("sport/tennis/+", "sport/tennis/player1", true),
            ("sport/tennis/+", "sport/tennis/player1/ranking", false),
            ("sport/+", "sport", false),
            ("sport/+", "sport/", true),
            ("+/+", "/finance", true),
            ("/+", "/finance", true),
            ("+", "/finance", false),
            ("#", "$SYS/a", false),
            ("+/a", "$SYS/a", false),
            ("$SYS/#", "$SYS/a", true),
            ("command///req/#", "command///req/1/reboot", true),
        ] {
            assert_eq!(filter(f).matches(name), expected, "{f} {name}");
        }
    }

    #[test]
    fn covering_is_matching_of_every_match() {
        for (wide, narrow, expected) in [
            ("#", "a/#", true),
            ("#", "$SYS/#", false),
            ("a/#", "a", true),
            ("a/#", "#", false),
            ("a/+", "a/b", true),
            ("a/+", "a/#", false),
            ("a/b", "a/+", false),
            ("command/#", "command///req/#", true),
            ("c/#", "command///req/#", false),
            ("+/b", "+/b", true),
        ] {
            assert_eq!(filter(wide).covers(&filter(narrow)), expected, "{wide} {narrow}");
        }
    }

    #[test]
    fn levels_make_a_topic_that_any_device_could_say() {
        assert_eq!(topic_of([]), Ok(String::new()));
        assert_eq!(topic_of(["a", "", "b c", ""]), Ok("a//b c/".into()));
        assert_eq!(topic_of(["$SYS", "%2F"]), Ok("$SYS/%2F".into()));
        for (levels, error) in [
            (vec!["a", "b/c"], TopicError::Slash),
            (vec!["/"], TopicError::Slash),
            (vec!["a\0"], TopicError::Control),
            (vec!["a", "\r\n"], TopicError::Control),
            (vec!["\u{1b}[2J"], TopicError::Control),
            (vec!["a", "+"], TopicError::Wildcard),
            (vec!["a#b"], TopicError::Wildcard),
            (vec!["x"; MAX_LEVELS + 1], TopicError::TooDeep),
            (vec!["x".repeat(200).leak(); 6], TopicError::TooLong),
        ] {
            assert_eq!(topic_of(levels), Err(error));
        }
        assert_eq!(topic_of(["x"; MAX_LEVELS]).map(|topic| topic.len()), Ok(2 * MAX_LEVELS - 1));
        let longest = "x".repeat(MAX_TOPIC);
        assert_eq!(topic_of([longest.as_str()]), Ok(longest.clone()));
        assert_eq!(check_topic_name(&(longest + "x")), Err(TopicError::TooLong));
    }

    #[test]
    fn misplaced_wildcards_and_bad_texts_are_refused() {
        for text in ["", "a#", "a/#/b", "a+", "+a/b", "a\0b", "a\nb"] {
            assert!(text.parse::<TopicFilter>().is_err(), "{text:?}");
        }
        assert_eq!("/".repeat(MAX_LEVELS).parse::<TopicFilter>(), Err(TopicError::TooDeep));
        assert_eq!(check_topic_name("a/+/b"), Err(TopicError::Wildcard));
        assert_eq!(check_topic_name("a//b"), Ok(()));
    }
}

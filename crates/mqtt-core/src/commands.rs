//! The grammar of the device topics: where a command arrives, and where its answer comes from.
//!
//! Owns: `command///req/{id}/{name}` and `command///res/{id}/{status}`, and their short forms under `c///q` and `c///s`.
//! Does not own: what a command is (`landfall-hub`).

use landfall_event::{CommandId, CommandName};

/// The longest status that an answer's topic may name, in bytes.
pub const MAX_STATUS: usize = 64;

/// Which form of the request topic a device subscribed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RequestForm {
    /// `command///req/{id}/{name}`.
    Long,
    /// `c///q/{id}/{name}`.
    Short,
}

impl RequestForm {
    /// Both, the preferred one first.
    pub const ALL: [Self; 2] = [Self::Long, Self::Short];

    fn prefix(self) -> &'static str {
        match self {
            Self::Long => "command///req/",
            Self::Short => "c///q/",
        }
    }

    fn response_prefix(self) -> &'static str {
        match self {
            Self::Long => "command///res/",
            Self::Short => "c///s/",
        }
    }
}

/// The topic on which a command goes to a device.
pub fn request_topic(form: RequestForm, id: &CommandId, name: &CommandName) -> String {
    let (prefix, id, name) = (form.prefix(), id.as_str(), name.as_str());
    let mut topic = String::with_capacity(prefix.len() + id.len() + 1 + name.len());
    topic.push_str(prefix);
    topic.push_str(id);
    topic.push('/');
    topic.push_str(name);
    topic
}

/// The topic on which a device answers a command with a status. The caller sees to it that the status is one level.
pub fn response_topic(form: RequestForm, id: &CommandId, status: &str) -> String {
    format!("{}{}/{status}", form.response_prefix(), id.as_str())
}

/// The form to send a command in, asked of a question whether a topic is subscribed to; the long one when both are.
pub fn request_form(
    id: &CommandId,
    name: &CommandName,
    subscribed: impl Fn(&str) -> bool,
) -> Option<RequestForm> {
    RequestForm::ALL.into_iter().find(|form| subscribed(&request_topic(*form, id, name)))
}

/// Reads the topic of an answer: `command///res/{id}/{status}` or `c///s/{id}/{status}`. The status is one level of 1 to
/// [`MAX_STATUS`] bytes without control characters. Any other topic is a plain message.
pub fn parse_response(topic: &str) -> Option<(CommandId, &str)> {
    let rest = RequestForm::ALL.into_iter().find_map(|form| topic.strip_prefix(form.response_prefix()))?;
    let (id, status) = rest.split_once('/')?;
    let valid = (1..=MAX_STATUS).contains(&status.len())
        && !status.contains(['/', '+', '#'])
        && !status.chars().any(char::is_control);
    if valid { Some((id.parse().ok()?, status)) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> CommandId {
        text.parse().unwrap()
    }

    fn name(text: &str) -> CommandName {
        text.parse().unwrap()
    }

    #[test]
    fn requests_go_to_the_topic_of_their_form() {
        assert_eq!(request_topic(RequestForm::Long, &id("17"), &name("reboot")), "command///req/17/reboot");
        assert_eq!(request_topic(RequestForm::Short, &id("17"), &name("reboot")), "c///q/17/reboot");
    }

    #[test]
    fn the_form_is_the_one_that_is_subscribed_to_and_the_long_one_first() {
        for (filters, expected) in [
            (vec!["command///req/#"], Some(RequestForm::Long)),
            (vec!["c///q/#"], Some(RequestForm::Short)),
            (vec!["c/#", "command/#"], Some(RequestForm::Long)),
            (vec!["command///req/+/reboot"], Some(RequestForm::Long)),
            (vec!["command///req/+/update", "c///q/+/+"], Some(RequestForm::Short)),
            (vec!["#"], Some(RequestForm::Long)),
            (vec!["command///res/#"], None),
            (vec![], None),
        ] {
            let filters: Vec<landfall_event::TopicFilter> =
                filters.iter().map(|f| f.parse().unwrap()).collect();
            let form =
                request_form(&id("1"), &name("reboot"), |topic| filters.iter().any(|f| f.matches(topic)));
            assert_eq!(form, expected, "{filters:?}");
        }
    }

    #[test]
    fn answers_are_read_in_both_forms() {
        assert_eq!(parse_response("command///res/17/200"), Some((id("17"), "200")));
        assert_eq!(parse_response("c///s/a-b.c/failed"), Some((id("a-b.c"), "failed")));
    }

    #[test]
    fn other_topics_are_no_answers() {
        let long_id = format!("c///s/{}/200", "x".repeat(129));
        let long_status = format!("c///s/1/{}", "9".repeat(MAX_STATUS + 1));
        for topic in [
            "command///res/17",
            "command///res/17/",
            "command///res//200",
            "command///res/17/200/x",
            "command///res/17/2\n0",
            "command//res/17/200",
            "command///req/17/200",
            "/command///res/17/200",
            "c///s/+/200",
            "telemetry",
            "",
            &long_id,
            &long_status,
        ] {
            assert_eq!(parse_response(topic), None, "{topic:?}");
        }
    }
}

//! `docs/wire.md` says what the code does: its examples are made here (`LANDFALL_BLESS=1` writes them), and no field, word,
//! subject or stream is missing.

use std::fmt::Write as _;
use std::path::PathBuf;

use landfall_event::subject::{self, Subjects};
use landfall_event::{
    Event, Format, IdentifiedBy, Initiator, Outcome, Reason, RefusedCause, RefusedDetail, Stream, Transport,
    encode, encode_raw_upstream, json,
};
use serde_json::value::RawValue;

use crate::samples::{self, Sample};

const BEGIN: &str = "<!-- example: ";
const END: &str = "<!-- end -->";

/// Values up to this length stay on one line.
const LINE: usize = 100;

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/wire.md")
}

fn page() -> String {
    std::fs::read_to_string(path()).unwrap()
}

/// The members of a JSON object in their order, or the items of an array.
fn parts(document: &str) -> Option<(char, char, Vec<String>)> {
    /// Keeps the order, which a map of values does not.
    struct Members(Vec<(String, Box<RawValue>)>);
    impl<'de> serde::Deserialize<'de> for Members {
        fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            struct Visitor;
            impl<'de> serde::de::Visitor<'de> for Visitor {
                type Value = Members;
                fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    f.write_str("an object")
                }
                fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                    let mut members = Vec::new();
                    while let Some(member) = map.next_entry()? {
                        members.push(member);
                    }
                    Ok(Members(members))
                }
            }
            deserializer.deserialize_map(Visitor)
        }
    }
    if document.starts_with('{') {
        let members: Members = serde_json::from_str(document).unwrap();
        let lines = members.0.iter().map(|(name, value)| format!("\"{name}\": {}", value.get()));
        return Some(('{', '}', lines.collect()));
    }
    if document.starts_with('[') {
        let items: Vec<Box<RawValue>> = serde_json::from_str(document).unwrap();
        return Some(('[', ']', items.iter().map(|item| item.get().to_owned()).collect()));
    }
    None
}

/// The document with one member per line; what fits on a line stays as it is.
fn pretty(document: &str, indent: usize) -> String {
    if indent > 0 && document.len() <= LINE {
        return document.to_owned();
    }
    let Some((open, close, parts)) = parts(document) else { return document.to_owned() };
    let pad = " ".repeat(indent + 2);
    let lines: Vec<String> = parts
        .iter()
        .map(|part| match part.split_once("\": ") {
            Some((name, value)) if open == '{' => format!("{pad}{name}\": {}", pretty(value, indent + 2)),
            _ => format!("{pad}{}", pretty(part, indent + 2)),
        })
        .collect();
    format!("{open}\n{}\n{}{close}", lines.join(",\n"), " ".repeat(indent))
}

/// The example of that name, as a block of Markdown.
fn example(name: &str) -> String {
    let origin = samples::origin();
    let all = samples::samples();
    let find = |name: &str| all.iter().find(|sample| sample.name == name).unwrap_or_else(|| panic!("{name}"));
    let headers = |headers: &[(&'static str, String)]| {
        let mut text = "```text\n".to_owned();
        headers.iter().for_each(|(name, value)| writeln!(text, "{name}: {value}").unwrap());
        text + "```\n"
    };
    if let Some(name) = name.strip_suffix(".kaa-2017.headers") {
        let sample = find(name);
        return headers(&encode(Format::Kaa2017, &sample.occasion(&origin), &sample.event).headers);
    }
    if let Some(name) = name.strip_suffix(".raw.headers") {
        let sample = find(name);
        let Event::Upstream(upstream) = &sample.event else { panic!("{name} is no upstream") };
        return headers(&encode_raw_upstream(&sample.occasion(&origin), upstream).headers);
    }
    let sample = find(name);
    let body = json::encode(&sample.occasion(&origin), &sample.event);
    let shown = pretty(std::str::from_utf8(&body).unwrap(), 0);
    let same = |text: &[u8]| serde_json::from_slice::<serde_json::Value>(text).unwrap();
    assert_eq!(same(shown.as_bytes()), same(&body), "{name}: only white space was added");
    format!("```json\n{shown}\n```\n")
}

#[test]
fn the_examples_are_what_the_code_writes() {
    let page = page();
    let mut made = String::new();
    let mut rest = page.as_str();
    let mut names = Vec::new();
    while let Some((before, after)) = rest.split_once(BEGIN) {
        let (name, after) = after.split_once(" -->\n").unwrap();
        let (_, after) = after.split_once(END).unwrap();
        write!(made, "{before}{BEGIN}{name} -->\n{}{END}", example(name)).unwrap();
        names.push(name);
        rest = after;
    }
    made.push_str(rest);
    for sample in samples::samples() {
        assert!(names.contains(&sample.name), "{} has no example", sample.name);
    }
    if std::env::var_os("LANDFALL_BLESS").is_some() {
        std::fs::write(path(), &made).unwrap();
    } else {
        assert!(page == made, "docs/wire.md is behind the code; LANDFALL_BLESS=1 writes its examples");
    }
}

/// The text under a heading, up to the next of the same or a higher level.
fn section<'a>(page: &'a str, heading: &str) -> &'a str {
    let level = heading.bytes().take_while(|byte| *byte == b'#').count();
    let (_, text) = page.split_once(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("no {heading}"));
    let ends = (1..=level).filter_map(|level| text.find(&format!("\n{} ", "#".repeat(level))));
    &text[..ends.min().unwrap_or(text.len())]
}

/// The rows of a section's tables, each as its cells.
fn rows(section: &str) -> Vec<Vec<&str>> {
    let lines = section.lines().filter(|line| line.starts_with("| ") || line.starts_with("|-"));
    lines.map(|line| line.trim_matches('|').split('|').map(str::trim).collect()).collect()
}

fn names_in_first_cells(section: &str) -> Vec<&str> {
    let quoted = |cell: &&'_ str| cell.starts_with('`');
    let cells = rows(section).into_iter().filter_map(|row| row.first().copied()).filter(quoted);
    cells.flat_map(|cell| cell.split(", ")).map(|name| name.trim_matches('`')).collect()
}

fn heading(sample: &Sample) -> &'static str {
    match &sample.event {
        Event::Connected(_) => "### connected",
        Event::Disconnected(_) => "### disconnected",
        Event::Moved(_) => "### moved",
        Event::Dormant(_) => "### dormant",
        Event::Awake(_) => "### awake",
        Event::Upstream(_) => "### upstream",
        Event::Downstream(_) => "### downstream",
        Event::Refused(_) => "### refused",
        Event::Service(_) | Event::Dropped(_) => "### service",
    }
}

#[test]
fn every_field_and_subject_is_in_its_table() {
    let page = page();
    let origin = samples::origin();
    let head = names_in_first_cells(section(&page, "## The head"));
    assert_eq!(head.len(), 14);
    let subjects = Subjects::new(&origin.instance);
    for sample in samples::samples() {
        let text = section(&page, heading(&sample));
        let own = names_in_first_cells(text);
        let body = json::encode(&sample.occasion(&origin), &sample.event);
        let value: serde_json::Value = serde_json::from_slice(&body).unwrap();
        for name in value.as_object().unwrap().keys() {
            assert!(head.contains(&name.as_str()) || own.contains(&name.as_str()), "{}: {name}", sample.name);
        }
        let subject = subjects.of(&sample.event).replacen("landfall", "{instance}", 1);
        assert!(text.contains(&format!("`{subject}`")), "{subject}");
        // And the table lists the head in the order of the wire.
        let (_, _, members) = parts(std::str::from_utf8(&body).unwrap()).unwrap();
        let names = members.iter().filter_map(|member| member.trim_start_matches('"').split('"').next());
        let places: Vec<usize> =
            names.map_while(|name| head.iter().position(|known| *known == name)).collect();
        assert!(places.is_sorted(), "{}: {places:?}", sample.name);
        assert!(places.len() >= 7, "{}: the head comes first", sample.name);
    }
}

#[test]
fn every_reason_has_its_row_with_its_initiator() {
    let page = page();
    let table = rows(section(&page, "## Reasons"));
    let listed: Vec<(&str, &str)> = table
        .iter()
        .filter(|row| row.len() == 5)
        .map(|row| (row[0].trim_matches('`'), row[1].trim_matches('`')))
        .collect();
    let expected: Vec<(&str, &str)> =
        Reason::ALL.iter().map(|reason| (reason.as_str(), reason.initiator().as_str())).collect();
    assert_eq!(&listed[2..], expected, "below the table's head");
}

#[test]
fn every_word_and_stream_is_named() {
    let page = page();
    let words = [
        (Outcome::ALL.iter().map(|word| word.as_str()).collect::<Vec<_>>(), "### downstream"),
        (RefusedCause::ALL.iter().map(|word| word.as_str()).collect(), "### refused"),
        (RefusedDetail::ALL.iter().map(|word| word.as_str()).collect(), "### refused"),
        (Transport::ALL.iter().map(|word| word.as_str()).collect(), "## The head"),
        (IdentifiedBy::ALL.iter().map(|word| word.as_str()).collect(), "### connected"),
        (Initiator::ALL.iter().map(|word| word.as_str()).collect(), "### disconnected"),
        (vec!["json", "utf8", "base64"], "### upstream"),
        (Format::ALL.iter().skip(1).map(|format| format.as_str()).collect(), "## Avro bodies"),
    ];
    for (words, heading) in words {
        for word in words {
            assert!(section(&page, heading).contains(&format!("`{word}`")), "{heading}: {word}");
        }
    }
    let streams = section(&page, "## Streams");
    for stream in [Stream::Connectivity, Stream::Messages, Stream::Access] {
        let row = streams.lines().find(|line| line.contains(subject::stream_name(stream))).unwrap();
        let listed: Vec<&str> = row.split('`').skip(3).step_by(2).collect();
        assert_eq!(listed, subject::stream_subjects(stream));
    }
    for number in [json::MAX_DEPTH, Format::Json.max_sessions(), Format::KaaElce.max_sessions()] {
        assert!(page.contains(&format!(" {number} ")), "{number}");
    }
}

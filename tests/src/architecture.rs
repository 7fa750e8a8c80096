//! The shape of the house: who imports whom, what is pure, what stands in one place only.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use landfall_testkit::paths::repository;
use toml::Table;

use crate::metadata::{Kind, Metadata};

/// The ladder: a crate imports only from rows above its own.
const LADDER: &[&[&str]] = &[
    &["landfall-event"],
    &["landfall-session", "landfall-ledger", "landfall-mqtt-core", "landfall-coap-core"],
    &["landfall-net", "landfall-dtls", "landfall-spool"],
    &["landfall-hub"],
    &["landfall-channel"],
    &["landfall-mqtt", "landfall-coap", "landfall-udp", "landfall-nats"],
    &["landfall"],
    // Beside the house: nothing in it imports these, but for tests.
    &["landfall-testkit", "landfall-load", "landfall-examples", "landfall-tests"],
];

/// Bytes and `now` in, actions out.
const PURE: &[&str] =
    &["landfall-event", "landfall-session", "landfall-ledger", "landfall-mqtt-core", "landfall-coap-core"];

/// No file is longer.
const LINES: usize = 600;

#[test]
fn a_crate_imports_only_from_rows_above() {
    let metadata = Metadata::load();
    let row = |name: &str| {
        let found = LADDER.iter().position(|row| row.contains(&name));
        found.unwrap_or_else(|| panic!("{name} has no place in the ladder"))
    };
    let mut broken = Vec::new();
    for member in metadata.members() {
        let name = member["name"].as_str().unwrap();
        for above in metadata.local(name, Kind::Normal) {
            if row(&above) >= row(name) {
                broken.push(format!("{name} imports {above}"));
            }
            // The binary is the top, and what stands beside the house is for tests.
            if row(&above) >= 6 {
                broken.push(format!("{name} imports {above}, which nobody may"));
            }
        }
        for above in metadata.local(name, Kind::Dev) {
            if row(&above) >= row(name) && above != "landfall-testkit" {
                broken.push(format!("the tests of {name} import {above}"));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn pure_crates_have_no_runtime_below_them() {
    let metadata = Metadata::load();
    for member in metadata.members() {
        let name = member["name"].as_str().unwrap();
        if !PURE.contains(&name) {
            continue;
        }
        // The one exception: the MQTT codec implements the codec traits of tokio-util, and so drags tokio along; nothing
        // of ours uses more of it than these traits.
        let excepted = ["rmqtt-codec", "tokio-util"];
        let is_excepted = |below: &str| name == "landfall-mqtt-core" && excepted.contains(&below);
        let below = metadata.below(name, |below| !is_excepted(below));
        let names: Vec<String> = below.iter().map(|id| metadata.name(id)).collect();
        let banned = ["tokio", "tokio-util", "mio", "socket2", "async-nats", "rand", "rustls"];
        let is_banned = |name: &str| banned.contains(&name) && !is_excepted(name);
        let found: Vec<&String> = names.iter().filter(|name| is_banned(name)).collect();
        assert!(found.is_empty(), "{name} has {found:?} below it");
    }
}

#[test]
fn one_file_holds_the_subjects_and_one_the_codec() {
    let subject = format!("{}.{}", "kaa", "v1");
    for path in sources() {
        let place = relative(&path);
        // The kit and the tests read the wire as strangers do, and say subjects in full.
        if !place.starts_with("crates/") || place.starts_with("crates/testkit/") {
            continue;
        }
        let text = code(&path);
        if place != "crates/event/src/subject.rs" && place != "crates/event/src/subject/tests.rs" {
            assert!(!text.contains(&subject), "{place} forms or parses a subject");
        }
        if place != "crates/mqtt-core/src/codec.rs" {
            assert!(!text.contains("rmqtt_codec"), "{place} names the MQTT codec");
        }
        if place != "crates/coap-core/src/codec.rs" {
            assert!(!text.contains("coap_lite"), "{place} names the CoAP codec");
        }
    }
}

#[test]
fn pure_crates_repeat_the_shared_bans() {
    let root = table("clippy.toml");
    for member in Metadata::load().members() {
        let name = member["name"].as_str().unwrap();
        let folder = Path::new(member["manifest_path"].as_str().unwrap()).parent().unwrap();
        let own = folder.join("clippy.toml");
        if !own.exists() {
            assert!(!PURE.contains(&name), "{name} is pure and has no clippy.toml");
            continue;
        }
        let own: Table = fs::read_to_string(own).unwrap().parse().unwrap();
        for (key, value) in &root {
            if key != "disallowed-methods" {
                assert_eq!(own.get(key), Some(value), "{name}: clippy.toml does not repeat {key}");
            }
        }
        let banned = paths(&own);
        for path in paths(&root) {
            assert!(banned.contains(&path), "{name}: clippy.toml does not repeat the ban of {path}");
        }
        if PURE.contains(&name) {
            for clock in
                ["std::time::Instant::now", "std::time::Instant::elapsed", "std::time::SystemTime::now"]
            {
                assert!(banned.iter().any(|path| path == clock), "{name} may look at the clock: {clock}");
            }
        }
    }
}

#[test]
fn files_are_short() {
    let long: BTreeMap<String, usize> = sources()
        .into_iter()
        .map(|path| (relative(&path), fs::read_to_string(&path).unwrap().lines().count()))
        .filter(|(_, lines)| *lines > LINES)
        .collect();
    assert!(long.is_empty(), "longer than {LINES} lines: {long:#?}");
}

#[test]
fn modules_begin_with_what_they_are() {
    let bare: Vec<String> = sources()
        .into_iter()
        .filter(|path| !is_test_module(path))
        .filter(|path| !fs::read_to_string(path).unwrap().trim_start().starts_with("//!"))
        .map(|path| relative(&path))
        .collect();
    assert!(bare.is_empty(), "no module documentation: {bare:#?}");
}

#[test]
fn versions_stand_in_one_table() {
    for member in Metadata::load().members() {
        let name = member["name"].as_str().unwrap();
        let manifest: Table =
            fs::read_to_string(member["manifest_path"].as_str().unwrap()).unwrap().parse().unwrap();
        for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let Some(list) = manifest.get(section).and_then(toml::Value::as_table) else { continue };
            for (dependency, value) in list {
                let workspace = value.get("workspace").and_then(toml::Value::as_bool);
                assert_eq!(workspace, Some(true), "{name}: {dependency} is not the workspace's");
            }
        }
        let lints =
            manifest.get("lints").and_then(|lints| lints.get("workspace")).and_then(toml::Value::as_bool);
        assert_eq!(lints, Some(true), "{name} does not take the workspace's lints");
    }
}

#[test]
fn nothing_is_unsafe_and_a_panic_unwinds() {
    let root = table("Cargo.toml");
    assert_eq!(root["workspace"]["lints"]["rust"]["unsafe_code"].as_str(), Some("forbid"));
    for profile in ["dev", "release"] {
        assert_eq!(root["profile"][profile]["panic"].as_str(), Some("unwind"), "profile {profile}");
    }
    let word = format!("{}{}", "un", "safe ");
    for path in sources() {
        assert!(!code(&path).contains(&word), "{} is not safe", relative(&path));
    }
}

#[test]
fn an_allowance_says_why() {
    for path in sources() {
        let text = fs::read_to_string(&path).unwrap();
        // `todo` and its kin never reach the main line; a lint bans the macros, this bans the words in comments.
        for word in [format!("{}DO", "TO"), format!("FIX{}", "ME"), format!("X{}X", "X")] {
            let found = text.lines().find(|line| line.contains(&format!("// {word}")));
            assert!(found.is_none(), "{}: {found:?}", relative(&path));
        }
    }
}

/// Every Rust source file of the repository.
fn sources() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders: Vec<PathBuf> =
        ["crates", "tests", "examples", "fuzz"].iter().map(|name| repository().join(name)).collect();
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for path in entries.flatten().map(|entry| entry.path()) {
            if path.is_dir() && !path.ends_with("target") {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    assert!(found.len() > 20, "the sources are found");
    found
}

fn relative(path: &Path) -> String {
    path.strip_prefix(repository()).unwrap().to_str().unwrap().to_owned()
}

/// A sibling file of tests says in its module what it tests.
fn is_test_module(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    relative(path).starts_with("fuzz/") || name == "tests.rs" || name.ends_with("_tests.rs")
}

/// A file without its comment lines: prose may name what code may not.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

fn table(name: &str) -> Table {
    fs::read_to_string(repository().join(name)).unwrap().parse().unwrap()
}

fn paths(clippy: &Table) -> Vec<String> {
    let methods =
        clippy.get("disallowed-methods").and_then(toml::Value::as_array).cloned().unwrap_or_default();
    methods.iter().filter_map(|method| method.get("path")?.as_str().map(str::to_owned)).collect()
}

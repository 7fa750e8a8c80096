//! `docs/configuration.md` says what the code does.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

use landfall::auth::DevicesAuth;
use landfall::settings::{Environment, File, Settings};

const BEGIN: &str = "<!-- keys: begin -->\n";
const END: &str = "<!-- keys: end -->";

fn page() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md")
}

/// The fenced blocks of the page that begin with this line.
fn blocks(text: &str, fence: &str) -> Vec<String> {
    let opening = format!("```{fence}\n");
    let found = text.split(&opening).skip(1).map(|rest| rest.split("```").next().unwrap().to_owned());
    found.collect()
}

#[test]
fn the_tables_are_those_of_the_code() {
    let text = std::fs::read_to_string(page()).unwrap();
    let (before, rest) = text.split_once(BEGIN).expect("the begin mark");
    let (_, after) = rest.split_once(END).expect("the end mark");
    let tables = Settings::load(None, &Environment::default()).unwrap().reference();
    let wanted = format!("{before}{BEGIN}\n{tables}\n{END}{after}");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(page(), &wanted).unwrap();
        return;
    }
    assert!(
        text == wanted,
        "docs/configuration.md is old: UPDATE_DOCS=1 cargo test -p landfall --test configuration"
    );
}

#[test]
fn the_examples_are_valid() {
    let text = std::fs::read_to_string(page()).unwrap();
    let examples = blocks(&text, "toml");
    assert!(!examples.is_empty());
    for example in examples {
        let file = File { path: "example.toml".into(), text: example };
        Settings::load(Some(&file), &Environment::default())
            .unwrap_or_else(|problems| panic!("{problems}\n{}", file.text));
    }
    let directory = tempfile::tempdir().unwrap();
    for example in blocks(&text, "toml devices") {
        let path = directory.path().join("devices.toml");
        std::fs::write(&path, &example).unwrap();
        let devices =
            DevicesAuth::open(&path, (1, 64)).unwrap_or_else(|problems| panic!("{problems}\n{example}"));
        assert_eq!(devices.devices(), 2);
    }
}

#[test]
fn every_key_of_a_table_is_in_the_page() {
    let text = std::fs::read_to_string(page()).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("devices.toml");
    for table in ["device", "tenant"] {
        std::fs::write(&path, format!("[[{table}]]\nnope = 1\n")).unwrap();
        let problems = DevicesAuth::open(&path, (1, 64)).unwrap_err().to_string();
        let keys = problems.split(&format!("the keys of a {table} are ")).nth(1).expect("the list of keys");
        for key in keys.trim().split(", ") {
            let shown = if table == "device" { format!("| `{key}` |") } else { format!("`{key}`") };
            assert!(text.contains(&shown), "{key}");
        }
    }
}

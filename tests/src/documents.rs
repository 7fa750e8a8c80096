//! What the pages say of this repository is there: links, paths, commands, the changelog's sections.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use landfall_testkit::paths::repository;

/// The most lines of an example.
const EXAMPLE_LINES: usize = 80;

#[test]
fn links_lead_somewhere() {
    let mut broken = Vec::new();
    for page in pages() {
        let text = prose(&page);
        let folder = page.parent().unwrap();
        for target in links(&text) {
            let (path, anchor) = target.split_once('#').unwrap_or((&target, ""));
            let file = if path.is_empty() { page.clone() } else { folder.join(path) };
            if !file.exists() {
                broken.push(format!("{}: {target}", relative(&page)));
            } else if !anchor.is_empty() && !anchors(&file).contains(anchor) {
                broken.push(format!("{}: {target} has no such heading", relative(&page)));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn paths_that_are_named_are_there() {
    let roots = ["crates/", "tests/", "examples/", "fuzz/", "scripts/", "docs/", ".ci/", ".config/"];
    let mut missing = Vec::new();
    for page in pages() {
        for code in quoted(&prose(&page)) {
            // A pattern, or a path with a hole to fill, is no path.
            let plain = code.bytes().all(|b| b.is_ascii_alphanumeric() || b"/._-".contains(&b));
            if plain && roots.iter().any(|root| code.starts_with(root)) && !repository().join(&code).exists()
            {
                missing.push(format!("{}: {code}", relative(&page)));
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn make_has_every_target_that_a_page_names() {
    let makefile = fs::read_to_string(repository().join("Makefile")).unwrap();
    for page in pages() {
        for code in quoted(&prose(&page)) {
            let Some(target) = code.strip_prefix("make ") else { continue };
            let rule = format!("\n{target}:");
            assert!(makefile.contains(&rule), "{}: `{code}`", relative(&page));
        }
    }
}

#[test]
fn every_release_speaks_of_the_wire() {
    let changelog = fs::read_to_string(repository().join("CHANGELOG.md")).unwrap();
    let mut releases = changelog.split("\n## ").skip(1).peekable();
    assert!(
        releases.peek().is_some_and(|first| first.starts_with("[Unreleased]")),
        "the next release comes first"
    );
    for release in releases {
        let name = release.lines().next().unwrap_or_default();
        let wire = release.split("\n### Wire\n").nth(1);
        let said =
            wire.and_then(|wire| wire.split("\n### ").next()).is_some_and(|wire| wire.contains("\n- "));
        assert!(said, "{name} has no section \"Wire\" with an entry");
    }
}

#[test]
fn decisions_are_numbered_without_gaps() {
    let folder = repository().join("docs/adr");
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    for (index, name) in names.iter().enumerate() {
        assert!(name.starts_with(&format!("{:04}-", index + 1)), "{names:?}");
    }
}

#[test]
fn examples_are_short() {
    let folder = repository().join("examples/src/bin");
    let others = ["examples/python", "examples/c"].map(|folder| repository().join(folder));
    let folders = std::iter::once(folder).chain(others);
    for path in folders.flat_map(|folder| fs::read_dir(folder).unwrap()).map(|entry| entry.unwrap().path()) {
        let lines = fs::read_to_string(&path).unwrap().lines().count();
        assert!(lines <= EXAMPLE_LINES, "{}: {lines} lines", relative(&path));
    }
}

/// Every page in Markdown.
fn pages() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![repository().join("docs")];
    let top = fs::read_dir(repository()).unwrap().flatten().map(|entry| entry.path());
    found.extend(top.filter(|path| is_page(path)));
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path()) {
            if path.is_dir() {
                folders.push(path);
            } else if is_page(&path) {
                found.push(path);
            }
        }
    }
    assert!(found.len() > 5, "the pages are found");
    found.sort();
    found
}

fn is_page(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "md")
}

fn relative(path: &Path) -> String {
    path.strip_prefix(repository()).unwrap().display().to_string()
}

/// A page without its blocks of code.
fn prose(page: &Path) -> String {
    let text = fs::read_to_string(page).unwrap();
    let mut outside = true;
    let lines = text.lines().filter(|line| {
        let fence = line.trim_start().starts_with("```");
        outside ^= fence;
        outside && !fence
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// The targets of links that stay in this repository.
fn links(text: &str) -> Vec<String> {
    let ends = text.match_indices("](").map(|(at, _)| &text[at + 2..]);
    let targets = ends.filter_map(|rest| rest.split_once(')')).map(|(target, _)| target);
    targets.filter(|target| !target.contains("://")).map(str::to_owned).collect()
}

/// What stands between backticks.
fn quoted(text: &str) -> Vec<String> {
    let lines = text.lines().flat_map(|line| line.split('`').skip(1).step_by(2));
    lines.map(str::to_owned).collect()
}

/// The anchors of a page's headings, as the common renderers make them.
fn anchors(page: &Path) -> BTreeSet<String> {
    let text = prose(page);
    let headings =
        text.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    let anchor = |heading: &str| {
        let kept = heading
            .to_lowercase()
            .chars()
            .filter(|c| c.is_alphanumeric() || " -_".contains(*c))
            .collect::<String>();
        kept.replace(' ', "-")
    };
    headings.map(anchor).collect()
}

//! What the workspace is made of: licences, sources and double versions, held against a list.

use std::collections::{BTreeMap, BTreeSet};

use landfall_testkit::paths::repository;

use crate::metadata::Metadata;

/// Crates that the gateway contains in two versions, each because two dependencies have not yet met. A pair that is gone
/// is taken out here, a new one is looked at before it is let in.
const TWICE: &[&str] = &[
    "base64",
    "block-buffer",
    "coap-message",
    "const-oid",
    "cpufeatures",
    "crypto-common",
    "digest",
    "getrandom",
    "rand",
    "rand_core",
    "syn",
    "synstructure",
    "thiserror",
    "thiserror-impl",
];

/// The licences that deny.toml allows: one list for both checks.
fn allowed() -> BTreeSet<String> {
    let text = std::fs::read_to_string(repository().join("deny.toml")).unwrap();
    let rules: toml::Table = text.parse().unwrap();
    let list = rules["licenses"]["allow"].as_array().unwrap().iter();
    list.map(|name| name.as_str().unwrap().to_owned()).collect()
}

#[test]
fn every_licence_is_allowed() {
    let allowed = allowed();
    let mut refused = Vec::new();
    for package in Metadata::load().packages() {
        let licence = package["license"].as_str().unwrap_or_default();
        if !satisfied(licence, &allowed) {
            refused.push(format!("{} {}: {licence:?}", package["name"], package["version"]));
        }
    }
    assert!(refused.is_empty(), "{refused:#?}");
}

#[test]
fn everything_comes_from_the_registry() {
    for package in Metadata::load().packages() {
        let source = package["source"].as_str();
        // A member has no source; everything else comes from the default registry.
        assert!(
            source.is_none_or(|source| source.starts_with("registry+")),
            "{} comes from {source:?}",
            package["name"]
        );
    }
}

#[test]
fn the_gateway_contains_nothing_twice_unnoticed() {
    let metadata = Metadata::load();
    let mut versions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for id in metadata.below("landfall", |_| true) {
        versions.entry(metadata.name(&id)).or_default().insert(metadata.version(&id));
    }
    let twice: BTreeMap<_, _> = versions.into_iter().filter(|(_, all)| all.len() > 1).collect();
    let unknown: Vec<_> = twice.iter().filter(|(name, _)| !TWICE.contains(&name.as_str())).collect();
    assert!(unknown.is_empty(), "in two versions: {unknown:#?}");
    let gone: Vec<_> = TWICE.iter().filter(|name| !twice.contains_key(**name)).collect();
    assert!(gone.is_empty(), "no longer in two versions: {gone:?}");
}

/// Does an SPDX expression hold with the licences at hand? `OR` asks for one side, `AND` for both; the old `/` is an `OR`.
fn satisfied(expression: &str, allowed: &BTreeSet<String>) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let tokens: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = tokens.as_slice();
    let holds = either(&mut rest, allowed);
    !tokens.is_empty() && rest.is_empty() && holds
}

fn either(rest: &mut &[&str], allowed: &BTreeSet<String>) -> bool {
    let mut holds = both(rest, allowed);
    while rest.first() == Some(&"OR") {
        *rest = &rest[1..];
        holds |= both(rest, allowed);
    }
    holds
}

fn both(rest: &mut &[&str], allowed: &BTreeSet<String>) -> bool {
    let mut holds = one(rest, allowed);
    while rest.first() == Some(&"AND") {
        *rest = &rest[1..];
        holds &= one(rest, allowed);
    }
    holds
}

fn one(rest: &mut &[&str], allowed: &BTreeSet<String>) -> bool {
    let Some((first, after)) = rest.split_first() else { return false };
    *rest = after;
    if *first == "(" {
        let holds = either(rest, allowed);
        *rest = rest.split_first().map_or(&[], |(_, after)| after);
        return holds;
    }
    let mut name = (*first).to_owned();
    if let ["WITH", exception, after @ ..] = rest {
        name = format!("{name} WITH {exception}");
        *rest = after;
    }
    allowed.contains(&name)
}

#[test]
fn expressions_are_read_as_spdx_means_them() {
    let allowed = BTreeSet::from(["MIT", "ISC", "Apache-2.0 WITH LLVM-exception"].map(str::to_owned));
    for (expression, holds) in [
        ("MIT", true),
        ("GPL-3.0", false),
        ("MIT OR GPL-3.0", true),
        ("GPL-3.0/MIT", true),
        ("MIT AND GPL-3.0", false),
        ("MIT AND ISC", true),
        ("(GPL-3.0 OR MIT) AND ISC", true),
        ("(GPL-3.0 OR MIT) AND BSD", false),
        ("Apache-2.0 WITH LLVM-exception", true),
        ("Apache-2.0", false),
        ("", false),
        ("MIT MIT", false),
    ] {
        assert_eq!(satisfied(expression, &allowed), holds, "{expression}");
    }
}

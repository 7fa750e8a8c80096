//! What cargo says of the workspace, for the tests that hold its shape.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use landfall_testkit::paths::repository;
use serde_json::Value;

/// `cargo metadata` of this workspace, as resolved for this platform.
#[derive(Debug)]
pub(crate) struct Metadata {
    packages: BTreeMap<String, Value>,
    nodes: BTreeMap<String, Value>,
    members: BTreeSet<String>,
}

/// Which dependencies are followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// What ends up in the binary.
    Normal,
    /// What tests need besides.
    Dev,
}

impl Metadata {
    /// Asks cargo, without a network: whatever the tests were built from is here.
    pub(crate) fn load() -> Self {
        let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
        let host = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
        let output = Command::new(cargo)
            .args(["metadata", "--format-version", "1", "--locked", "--offline", "--filter-platform", &host])
            .current_dir(repository())
            .output()
            .expect("cargo runs");
        assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
        let all: Value = serde_json::from_slice(&output.stdout).expect("JSON of cargo");
        let by_id = |list: &Value| {
            let list = list.as_array().expect("a list of cargo").iter();
            list.map(|item| (item["id"].as_str().expect("an id").to_owned(), item.clone())).collect()
        };
        let members = all["workspace_members"].as_array().expect("members").iter();
        Self {
            packages: by_id(&all["packages"]),
            nodes: by_id(&all["resolve"]["nodes"]),
            members: members.map(|id| id.as_str().expect("an id").to_owned()).collect(),
        }
    }

    /// Every package of the workspace: its name and its manifest's folder.
    pub(crate) fn members(&self) -> impl Iterator<Item = &Value> {
        self.members.iter().map(|id| &self.packages[id])
    }

    /// Every package there is.
    pub(crate) fn packages(&self) -> impl Iterator<Item = &Value> {
        self.packages.values()
    }

    /// The direct local dependencies of a member, by name.
    pub(crate) fn local(&self, name: &str, kind: Kind) -> BTreeSet<String> {
        let id = self.id(name);
        self.direct(&id, kind)
            .into_iter()
            .filter(|id| self.members.contains(id))
            .map(|id| self.name(&id))
            .collect()
    }

    /// Everything below a member through normal dependencies, as resolved: package ids. `through` says whether to go below
    /// a package.
    pub(crate) fn below(&self, name: &str, through: impl Fn(&str) -> bool) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        let mut next = vec![self.id(name)];
        while let Some(id) = next.pop() {
            for below in self.direct(&id, Kind::Normal) {
                if found.insert(below.clone()) && through(&self.name(&below)) {
                    next.push(below);
                }
            }
        }
        found
    }

    /// A package's name.
    pub(crate) fn name(&self, id: &str) -> String {
        self.packages[id]["name"].as_str().expect("a name").to_owned()
    }

    /// A package's version.
    pub(crate) fn version(&self, id: &str) -> String {
        self.packages[id]["version"].as_str().expect("a version").to_owned()
    }

    fn id(&self, name: &str) -> String {
        let found = self.members.iter().find(|id| self.name(id) == name);
        found.unwrap_or_else(|| panic!("{name} is no member of the workspace")).clone()
    }

    fn direct(&self, id: &str, kind: Kind) -> Vec<String> {
        let deps = self.nodes[id]["deps"].as_array().expect("dependencies").iter();
        let of_kind = |dep: &&Value| {
            let kinds = dep["dep_kinds"].as_array().expect("kinds").iter();
            kinds.map(|entry| entry["kind"].as_str()).any(|is| match kind {
                Kind::Normal => is.is_none(),
                Kind::Dev => is == Some("dev"),
            })
        };
        deps.filter(of_kind).map(|dep| dep["pkg"].as_str().expect("an id").to_owned()).collect()
    }
}

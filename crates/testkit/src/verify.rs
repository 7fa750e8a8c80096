//! `landfall verify`, the user's own proof, at the end of a test.
//!
//! Owns: running the program, and showing what stands in the streams about whom it complains. Does not own: what it finds.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::paths;
use crate::recorder::Seen;
use crate::streams::{CONNECTIVITY, MESSAGES, stored_at};

/// Events of one stream that are shown of a device.
const SHOWN: usize = 40;

/// What `landfall verify --json` says.
#[derive(Clone, Debug)]
pub struct Report {
    /// Its exit status was 0.
    pub is_well: bool,
    /// Its JSON.
    pub json: Value,
}

impl Report {
    /// A count by its name.
    ///
    /// # Panics
    /// When there is none of that name.
    pub fn count(&self, name: &str) -> u64 {
        self.json[name].as_u64().unwrap_or_else(|| panic!("no {name} in {}", self.json))
    }
}

/// Runs it over the streams at this URL, with the journals of clients.
///
/// # Panics
/// When it cannot run or prints no JSON.
pub async fn verify(nats: &str, journals: &[&Path]) -> Report {
    let mut command = Command::new(paths::binary("landfall"));
    command.args(["verify", "--json", "--all-instances", "--nats", nats]);
    for journal in journals {
        command.arg("--journal").arg(journal);
    }
    let output = tokio::task::spawn_blocking(move || command.output());
    let output = output.await.expect("no panic").expect("landfall runs");
    let json = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!(
            "{error}: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        )
    });
    Report { is_well: output.status.success(), json }
}

/// Finds nothing wrong.
///
/// # Panics
/// When it finds something; shows the first violations.
pub async fn assert_verified(nats: &str, journals: &[&Path]) -> Report {
    let report = verify(nats, journals).await;
    if !report.is_well {
        let first: Vec<String> = report.json["violations"]
            .as_array()
            .map(|all| all.iter().take(20).map(ToString::to_string).collect())
            .unwrap_or_default();
        panic!(
            "landfall verify: {} violations:\n  {}\n{}",
            report.json["violationCount"],
            first.join("\n  "),
            story(nats, &report.json).await
        );
    }
    report
}

/// What the streams hold about the first device that it complains of.
async fn story(nats: &str, report: &Value) -> String {
    let Some(name) = report["violations"][0]["device"].as_str() else { return String::new() };
    let device = name.split('@').next().unwrap_or(name);
    let mut lines = vec![format!("what is stored of {device}, the newest {SHOWN} of each stream:")];
    for stream in [CONNECTIVITY, MESSAGES] {
        let all = stored_at(nats, stream).await;
        let its: Vec<&Seen> = all.iter().filter(|event| event.is_about(device)).collect();
        lines.extend(its[its.len().saturating_sub(SHOWN)..].iter().map(|event| told(event, device)));
    }
    lines.join("\n  ")
}

/// One event on one line, as far as it is about the device.
fn told(event: &Seen, device: &str) -> String {
    let many = event.json["sessions"].as_array();
    let one =
        many.and_then(|many| many.iter().find(|one| one["endpointId"] == device)).unwrap_or(&event.json);
    let field = |name: &str| if one[name].is_null() { &event.json[name] } else { &one[name] };
    let fields = ["timestamp", "sessionId", "epoch", "seq", "reason", "payload", "incarnation"];
    let values: Vec<String> = fields
        .into_iter()
        .filter(|name| !field(name).is_null())
        .map(|name| format!("{name}={}", field(name)))
        .collect();
    format!("{} {}", event.kind(), values.join(" "))
}

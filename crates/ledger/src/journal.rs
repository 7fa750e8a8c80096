//! What clients saw acknowledged, to be looked for in the stream.
//!
//! Owns: the form of a journal. One JSON object on a line: `device`, `payload` (a text), and `tenant` where it is not the
//! default one. Other fields are passed over. A payload that is JSON is compared without the white space around it, which an event
//! does not keep.

use std::collections::HashMap;
use std::sync::Arc;

use landfall_event::TenantId;
use serde::Deserialize;
use serde::de::IgnoredAny;

/// A line that is none of a journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalError {
    /// Its number, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub why: String,
}

impl std::fmt::Display for JournalError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "line {}: {}", self.line, self.why)
    }
}

impl std::error::Error for JournalError {}

#[derive(Deserialize)]
struct Line {
    #[serde(default)]
    tenant: TenantId,
    device: String,
    payload: String,
}

/// Messages that clients saw acknowledged.
#[derive(Clone, Debug, Default)]
pub struct Journal {
    /// By device: payload, and whether it was seen in the stream.
    devices: HashMap<Arc<str>, HashMap<String, bool>>,
    count: u64,
}

/// A device's name with its tenant.
pub(crate) fn name(tenant: &str, device: &str) -> String {
    format!("{device}@{tenant}")
}

/// The payload without the white space around it, if it is a JSON value.
fn essential(payload: &str) -> &str {
    let value = payload.trim_matches([' ', '\t', '\n', '\r']);
    let is_json = || serde_json::from_str::<IgnoredAny>(value).is_ok();
    if value.len() < payload.len() && is_json() { value } else { payload }
}

impl Journal {
    /// Adds the lines of one journal. A last line without a line feed is passed over: its writer was cut off.
    ///
    /// # Errors
    /// The first line that cannot be read.
    pub fn add(&mut self, text: &str) -> Result<(), JournalError> {
        let whole = text.rfind('\n').map_or("", |end| text.get(..end).unwrap_or_default());
        for (number, line) in (1..).zip(whole.lines()).filter(|(_, line)| !line.trim().is_empty()) {
            let line: Line = serde_json::from_str(line)
                .map_err(|error| JournalError { line: number, why: error.to_string() })?;
            let device: Arc<str> = name(line.tenant.as_str(), &line.device).into();
            let payload = essential(&line.payload).to_owned();
            if self.devices.entry(device).or_default().insert(payload, false).is_none() {
                self.count += 1;
            }
        }
        Ok(())
    }

    pub(crate) fn len(&self) -> u64 {
        self.count
    }

    /// The stream has this message.
    pub(crate) fn stored(&mut self, device: &str, payload: &[u8]) {
        if let Some(payloads) = self.devices.get_mut(device)
            && let Ok(text) = std::str::from_utf8(payload)
            && let Some(seen) = payloads.get_mut(essential(text))
        {
            *seen = true;
        }
    }

    /// Device and payload of each message that the stream does not have.
    pub(crate) fn lost(&self) -> impl Iterator<Item = (String, String)> {
        let mut lost: Vec<(String, String)> = Vec::new();
        for (device, payloads) in &self.devices {
            let missing = payloads.iter().filter(|(_, seen)| !**seen);
            lost.extend(missing.map(|(payload, _)| (device.to_string(), payload.clone())));
        }
        lost.sort();
        lost.into_iter()
    }
}

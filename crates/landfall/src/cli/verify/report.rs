//! What was found, for people and for programs.

use landfall_event::SessionId;
use landfall_event::subject::stream_name;
use landfall_ledger::{Counts, Violation};
use serde::Serialize;

use super::super::output::{Colour, Output};
use crate::Failure;
use crate::text::{shortened, visible};

/// Violations that are printed one by one; of more, how many there are.
const MOST: usize = 100;
/// Characters of a detail that are shown.
const DETAIL: usize = 160;

/// Prints what is found, at once or at the end.
pub(super) struct Report {
    json: bool,
    /// Printed so far.
    shown: usize,
    /// Found so far.
    count: usize,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Whole<'a> {
    #[serde(flatten)]
    counts: Counts,
    foreign: u64,
    /// All of them, also those that were printed while following.
    violation_count: usize,
    violations: &'a [Violation],
}

impl Report {
    pub(super) fn new(json: bool) -> Self {
        Self { json, shown: 0, count: 0 }
    }

    /// Prints violations as they are found.
    pub(super) fn found(&mut self, found: &[Violation], out: &mut Output) -> Result<(), Failure> {
        for violation in found {
            self.count += 1;
            if self.json {
                out.line(&serde_json::to_string(violation).unwrap_or_default())?;
            } else if self.shown < MOST {
                self.shown += 1;
                let line = line(violation, out);
                out.line(&line)?;
            }
        }
        Ok(())
    }

    /// Prints the whole; the answer is no if anything was found.
    pub(super) fn end(
        mut self,
        counts: Counts,
        foreign: u64,
        found: &[Violation],
        out: &mut Output,
    ) -> Result<(), Failure> {
        if self.json {
            let violation_count = self.count + found.len();
            let whole = Whole { counts, foreign, violation_count, violations: found };
            out.line(&serde_json::to_string(&whole).unwrap_or_default())?;
            return if violation_count == 0 { Ok(()) } else { Err(Failure::No) };
        }
        self.found(found, out)?;
        if self.count > self.shown {
            out.line(&format!("and {} more", self.count - self.shown))?;
        }
        for (count, what) in rows(&counts, foreign) {
            out.line(&format!("{count:>10}  {what}"))?;
        }
        if self.count == 0 {
            let ok = out.paint(Colour::Green, "nothing is wrong");
            return out.line(&ok);
        }
        let wrong = out.paint(Colour::Red, &format!("{} violations", self.count));
        out.line(&wrong)?;
        Err(Failure::No)
    }
}

/// What is always said, and what only where there is any.
fn rows(counts: &Counts, foreign: u64) -> Vec<(u64, &'static str)> {
    let always = [
        (counts.connected, "connected"),
        (counts.disconnected, "disconnected"),
        (counts.open, "open now"),
        (counts.messages, "messages"),
    ];
    let perhaps = [
        (counts.gateway_lost, "closed for a gateway that was gone"),
        (counts.acknowledged, "acknowledged messages looked for"),
        (counts.dropped_sessions, "whole sessions that were dropped, and told"),
        (counts.dropped_messages, "messages that were dropped, and told"),
        (counts.overlaps, "sessions that began while another gateway had one of the device"),
        (counts.partial, "sessions that began before what was read"),
        (foreign, "messages that are no events"),
    ];
    always.into_iter().chain(perhaps.into_iter().filter(|(count, _)| *count > 0)).collect()
}

fn line(violation: &Violation, out: &Output) -> String {
    let kind = out.paint(Colour::Red, &format!("{:<30}", violation.kind.as_str()));
    let place = match violation.place {
        0 => stream_name(violation.stream).to_owned(),
        place => format!("{}:{place}", stream_name(violation.stream)),
    };
    let session = violation.session.as_ref().map(SessionId::to_string).unwrap_or_default();
    let (device, detail) = (visible(&violation.device), shortened(&violation.detail, DETAIL));
    let fields = [place, device.into_owned(), session, visible(&detail).into_owned()];
    let fields: Vec<String> = fields.into_iter().filter(|field| !field.is_empty()).collect();
    format!("{kind}  {}", fields.join("  "))
}

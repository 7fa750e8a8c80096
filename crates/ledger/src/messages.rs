//! The message stream: each session's messages by their numbers, and what a client saw acknowledged.

use landfall_event::SessionId;
use landfall_event::wire::{Downstream, Session, Upstream};

use crate::{Kind, Missing, SLACK_MS, Stored, Verifier};

impl Verifier {
    pub(crate) fn upstream(&mut self, stored: &Stored<'_>, upstream: &Upstream) {
        let session = &upstream.session;
        self.counts.messages += 1;
        let device = self.name(session);
        self.journal.stored(&device, &upstream.payload.bytes);
        self.message(stored, session, upstream.details.will);
    }

    pub(crate) fn downstream(&mut self, stored: &Stored<'_>, downstream: &Downstream) {
        self.counts.messages += 1;
        if let Some(session) = &downstream.session {
            self.message(stored, session, false);
        }
    }

    fn message(&mut self, stored: &Stored<'_>, session: &Session, is_will: bool) {
        let (id, device) = (session.session_id, self.name(session));
        if !self.is_known(stored, session, &device, Kind::WithoutConnected) {
            return;
        }
        let at = stored.stored_at;
        let Some(known) = self.sessions.get_mut(&id) else { return };
        // A will comes after the end.
        if !is_will {
            known.heard_at = at;
        }
        let may_have_gone = known.next_message == 1 && known.begun_at <= self.messages_since;
        if known.next_message == 0 || may_have_gone {
            known.next_message = session.seq;
        }
        let (expected, ended_at) = (known.next_message, known.ended_at);
        known.next_message = expected.max(session.seq.saturating_add(1));
        if !is_will && ended_at.is_some_and(|ended| at > ended.saturating_add(SLACK_MS)) {
            self.report(Kind::AfterEnd, Some(id), &device, stored, format!("message {}", session.seq));
        }
        if session.seq > expected {
            let (from, to) = (expected, session.seq - 1);
            self.missing.push(Missing { session: id, from, to, place: stored.place, at });
        } else if session.seq < expected {
            let kind = if self.was_missing(id, session.seq) { Kind::SeqOrder } else { Kind::Duplicate };
            let detail = format!("message {} after {}", session.seq, expected - 1);
            self.report(kind, Some(id), &device, stored, detail);
        }
    }

    /// A number that was missing has come late: it is missing no more.
    fn was_missing(&mut self, session: SessionId, seq: u64) -> bool {
        let holds =
            |missing: &Missing| missing.session == session && (missing.from..=missing.to).contains(&seq);
        let Some(at) = self.missing.iter().position(holds) else { return false };
        let whole = self.missing.swap_remove(at);
        let parts = [Missing { to: seq - 1, ..whole }, Missing { from: seq + 1, ..whole }];
        self.missing.extend(parts.into_iter().filter(|part| part.from <= part.to));
        true
    }

    /// Are all these numbers told as dropped?
    pub(crate) fn judge(&mut self, missing: Missing) {
        let mut told: Vec<(u64, u64)> = self
            .dropped
            .iter()
            .filter(|(session, ..)| *session == missing.session)
            .map(|(_, from, to)| (*from, *to))
            .collect();
        told.sort_unstable();
        let mut next = missing.from;
        for (from, to) in told {
            if from <= next && to >= next {
                next = to.saturating_add(1);
            }
        }
        if next > missing.to {
            return;
        }
        let device = self.sessions.get(&missing.session).map(|known| known.device.to_string());
        let numbers =
            if next == missing.to { format!("{next}") } else { format!("{next} to {}", missing.to) };
        self.found.push(crate::Violation {
            kind: Kind::SeqGap,
            session: Some(missing.session),
            device: device.unwrap_or_default(),
            stream: landfall_event::Stream::Messages,
            place: missing.place,
            detail: format!("message {numbers} is missing"),
        });
    }
}

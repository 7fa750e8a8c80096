//! The promises that hold between events: who was connected ends exactly once, and every numbering is without gaps.
//!
//! Owns: folding the two streams as stored. Does not own: one event's own form ([`crate::contract`]).

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::NatsServer;
use crate::recorder::Seen;
use crate::streams::{self, CONNECTIVITY, MESSAGES};

/// May sessions still be open when the ledger is read?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Open {
    /// Every session must have ended.
    None,
    /// Some may live on.
    Some,
}

/// What is known of one session.
#[derive(Debug, Default)]
struct Session {
    device: String,
    family: String,
    next: u64,
    ended: bool,
    next_message: u64,
}

/// Reads both streams and finds every promise kept.
///
/// # Panics
/// When one is broken; names each.
pub async fn assert_kept(server: &NatsServer, open: Open) {
    let connectivity = streams::stored(server, CONNECTIVITY).await;
    let messages = streams::stored(server, MESSAGES).await;
    let found = violations(&connectivity, &messages, open);
    assert!(found.is_empty(), "the ledger is broken:\n  {}", found.join("\n  "));
}

/// Which promises the stored events break; empty when none.
pub fn violations(connectivity: &[Seen], messages: &[Seen], open: Open) -> Vec<String> {
    let mut fold = Fold::default();
    for event in connectivity {
        fold.unique(event);
        match event.kind() {
            "connected" => fold.connected(event),
            "disconnected" => match event.json["sessions"].as_array() {
                Some(many) => many.iter().for_each(|one| fold.ended(event, one)),
                None => fold.ended(event, &event.json),
            },
            _ => {}
        }
    }
    for event in messages {
        fold.unique(event);
        fold.message(event);
    }
    if open == Open::None {
        let left = fold.sessions.iter().filter(|(_, session)| !session.ended);
        let left: Vec<String> =
            left.map(|(id, session)| format!("{id} of {} never ended", session.device)).collect();
        fold.found.extend(left);
    }
    fold.found
}

#[derive(Debug, Default)]
struct Fold {
    found: Vec<String>,
    ids: BTreeSet<String>,
    sessions: BTreeMap<String, Session>,
    /// Who is present: device and family -> session.
    present: BTreeMap<(String, String), String>,
    epochs: BTreeMap<String, u64>,
}

impl Fold {
    fn unique(&mut self, event: &Seen) {
        let id = event.header("Nats-Msg-Id");
        if !id.is_empty() && !self.ids.insert(id.to_owned()) {
            self.found.push(format!("{id} is stored twice"));
        }
    }

    fn connected(&mut self, event: &Seen) {
        let id = event.text("sessionId").to_owned();
        let device = device_of(&event.json);
        let family = event.text("transport").split(['-', 's']).next().unwrap_or_default().to_owned();
        if event.json["seq"] != 1 {
            self.found.push(format!("{id}: connected is not its number 1"));
        }
        let epoch = event.json["epoch"].as_u64().unwrap_or(0);
        if self.epochs.insert(device.clone(), epoch).is_some_and(|before| before >= epoch) {
            self.found.push(format!("{id}: the epoch of {device} did not rise"));
        }
        if let Some(other) = self.present.insert((device.clone(), family.clone()), id.clone()) {
            self.found.push(format!("{id}: began while {other} of {device} was open"));
        }
        let session = Session { device, family, next: 2, next_message: 1, ..Session::default() };
        if self.sessions.insert(id.clone(), session).is_some() {
            self.found.push(format!("{id}: connected twice"));
        }
    }

    fn ended(&mut self, event: &Seen, one: &Value) {
        let id = one["sessionId"].as_str().unwrap_or_default().to_owned();
        let Some(session) = self.sessions.get_mut(&id) else {
            self.found.push(format!("{id}: disconnected without connected: {}", event.json));
            return;
        };
        if session.ended {
            self.found.push(format!("{id}: disconnected twice"));
        }
        if one["seq"].as_u64() != Some(session.next) {
            self.found.push(format!("{id}: {} where {} was next", one["seq"], session.next));
        }
        session.next += 1;
        session.ended = true;
        let key = (session.device.clone(), session.family.clone());
        if self.present.get(&key) == Some(&id) {
            self.present.remove(&key);
        }
    }

    fn message(&mut self, event: &Seen) {
        let raw = event.json.get("sessionId").is_none();
        let id = if raw { event.header("Landfall-Session-Id") } else { event.text("sessionId") };
        if id.is_empty() {
            // A command for a device that is not here has no session.
            return;
        }
        let seq = if raw { event.header("Landfall-Seq").parse().ok() } else { event.json["seq"].as_u64() };
        match self.sessions.get_mut(id) {
            None => self.found.push(format!("{id}: a message of a session that never began: {}", event.json)),
            Some(session) => {
                if seq != Some(session.next_message) {
                    self.found.push(format!("{id}: message {seq:?} where {} was next", session.next_message));
                }
                session.next_message = seq.unwrap_or(session.next_message) + 1;
            }
        }
    }
}

/// A device's name with its tenant.
fn device_of(json: &Value) -> String {
    format!("{}@{}", json["endpointId"].as_str().unwrap_or("?"), json["tenant"].as_str().unwrap_or("?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: &str, id: &str, body: &Value) -> Seen {
        let mut headers = async_nats::HeaderMap::new();
        headers.insert("Nats-Msg-Id", id);
        let subject = format!("kaa.v1.events.i.endpoint.x.{kind}");
        Seen::new(subject, Some(headers), body.to_string().into_bytes().into())
    }

    fn of(session: &str, epoch: u64, seq: u64) -> Value {
        serde_json::json!({
            "sessionId": session, "epoch": epoch, "seq": seq, "tenant": "t", "endpointId": "d", "transport": "mqtt-ws",
        })
    }

    #[test]
    fn an_orderly_history_passes() {
        let story = [
            event("connected", "1", &of("a", 1, 1)),
            event("disconnected", "2", &of("a", 1, 2)),
            event("connected", "3", &of("b", 2, 1)),
        ];
        let messages = [event("upstream", "4", &of("a", 1, 1)), event("upstream", "5", &of("a", 1, 2))];
        assert_eq!(violations(&story, &messages, Open::Some), Vec::<String>::new());
        assert_eq!(violations(&story, &messages, Open::None).len(), 1);
    }

    #[test]
    fn each_broken_promise_is_told() {
        let twice = [
            event("connected", "1", &of("a", 1, 1)),
            event("disconnected", "2", &of("a", 1, 2)),
            event("disconnected", "3", &of("a", 1, 3)),
        ];
        assert_eq!(violations(&twice, &[], Open::None).len(), 1);
        let overlap = [event("connected", "1", &of("a", 1, 1)), event("connected", "2", &of("b", 2, 1))];
        assert_eq!(violations(&overlap, &[], Open::Some).len(), 1);
        let same_epoch = [
            event("connected", "1", &of("a", 1, 1)),
            event("disconnected", "2", &of("a", 1, 2)),
            event("connected", "3", &of("b", 1, 1)),
        ];
        assert_eq!(violations(&same_epoch, &[], Open::Some).len(), 1);
        let gap = [event("upstream", "4", &of("a", 1, 1)), event("upstream", "5", &of("a", 1, 3))];
        assert_eq!(violations(&overlap[..1], &gap, Open::Some).len(), 1);
        let orphan = [event("disconnected", "2", &of("a", 1, 2))];
        assert_eq!(violations(&orphan, &[], Open::Some).len(), 1);
        let stored_twice = [event("connected", "1", &of("a", 1, 1)), event("join", "1", &Value::Null)];
        assert_eq!(violations(&stored_twice, &[], Open::Some).len(), 1);
    }
}

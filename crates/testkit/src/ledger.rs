//! The promises that hold between events: who was connected ends exactly once, and every numbering is without gaps.
//!
//! Owns: folding the two streams of sessions as stored. Does not own: one event's own form ([`crate::contract`]).

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
    address: String,
    dormant: bool,
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
            "moved" | "dormant" | "awake" => fold.going_on(event),
            "events-dropped" => fold.dropped(event),
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
    /// Messages that the gateway has told to be dropped.
    dropped: BTreeSet<(String, u64)>,
}

impl Fold {
    fn unique(&mut self, event: &Seen) {
        let id = event.header("Nats-Msg-Id");
        if !id.is_empty() && !self.ids.insert(id.to_owned()) {
            self.found.push(format!("{id} is stored twice"));
        }
    }

    /// Numbers that will not come, for want of room while NATS was away.
    fn dropped(&mut self, event: &Seen) {
        for gap in event.json["gaps"].as_array().into_iter().flatten() {
            let session = gap["sessionId"].as_str().unwrap_or_default();
            let (from, to) = (gap["from"].as_u64().unwrap_or(1), gap["to"].as_u64().unwrap_or(0));
            self.dropped.extend((from..=to).map(|number| (session.to_owned(), number)));
        }
    }

    fn connected(&mut self, event: &Seen) {
        let id = event.text("sessionId").to_owned();
        let device = device_of(&event.json);
        let family = match event.text("transport") {
            "udp" | "dtls" => "udp".to_owned(),
            other => other.split(['-', 's']).next().unwrap_or_default().to_owned(),
        };
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
        let address = event.text("remoteAddress").to_owned();
        let session = Session { device, family, next: 2, address, next_message: 1, ..Session::default() };
        if self.sessions.insert(id.clone(), session).is_some() {
            self.found.push(format!("{id}: connected twice"));
        }
    }

    /// What happens to a session between its two ends: numbered like them, and each following from what was before.
    fn going_on(&mut self, event: &Seen) {
        let (id, kind) = (event.text("sessionId"), event.kind());
        let Some(session) = self.sessions.get_mut(id) else {
            self.found.push(format!("{id}: {kind} without connected: {}", event.json));
            return;
        };
        if session.ended {
            self.found.push(format!("{id}: {kind} after disconnected"));
        }
        if event.json["seq"].as_u64() != Some(session.next) {
            self.found.push(format!("{id}: {kind} {} where {} was next", event.json["seq"], session.next));
        }
        session.next += 1;
        if kind == "moved" {
            let (from, to) = (event.text("previousAddress"), event.text("remoteAddress"));
            if from != session.address {
                self.found.push(format!("{id}: moved from {from}, but it was at {}", session.address));
            }
            to.clone_into(&mut session.address);
        } else {
            let slept = std::mem::replace(&mut session.dormant, kind == "dormant");
            if slept == session.dormant {
                self.found.push(format!("{id}: {kind} twice"));
            }
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
                while self.dropped.contains(&(id.to_owned(), session.next_message)) {
                    session.next_message += 1;
                }
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

    /// The session's event of that kind, with its address before and after.
    fn ongoing(kind: &str, seq: u64, from: &str, to: &str) -> Seen {
        let mut body = of("a", 1, seq);
        (body["previousAddress"], body["remoteAddress"]) = (from.into(), to.into());
        event(kind, &format!("a.c.{seq}"), &body)
    }

    #[test]
    fn a_session_that_goes_on_is_numbered_without_gaps() {
        let story = || {
            vec![
                ongoing("connected", 1, "", "x"),
                ongoing("moved", 2, "x", "y"),
                ongoing("dormant", 3, "", ""),
                ongoing("awake", 4, "", ""),
                ongoing("moved", 5, "y", "x"),
                ongoing("dormant", 6, "", ""),
                ongoing("disconnected", 7, "", ""),
            ]
        };
        assert_eq!(violations(&story(), &[], Open::None), Vec::<String>::new());
        let without = |at: usize| {
            let mut story = story();
            story.remove(at);
            violations(&story, &[], Open::None)
        };
        for at in 1..6 {
            assert!(!without(at).is_empty(), "number {} is missing", at + 1);
        }
        assert_eq!(without(0).len(), 6, "nothing of a session that never began");
        for (at, wrong, what) in [
            (1, ongoing("moved", 2, "y", "x"), "moved from where it was not"),
            (2, ongoing("awake", 3, "", ""), "awake without sleep"),
            (3, ongoing("dormant", 4, "", ""), "asleep twice"),
        ] {
            let mut story = story();
            story[at] = wrong;
            assert!(!violations(&story, &[], Open::None).is_empty(), "{what}");
        }
        let mut late = story();
        late.push(ongoing("awake", 8, "", ""));
        assert_eq!(violations(&late, &[], Open::None).len(), 1, "after the end");
    }

    #[test]
    fn dtls_and_udp_are_one_family() {
        let of_transport = |session: &str, epoch: u64, transport: &str| {
            let mut body = of(session, epoch, 1);
            body["transport"] = transport.into();
            event("connected", session, &body)
        };
        let both = [of_transport("a", 1, "udp"), of_transport("b", 2, "dtls")];
        assert_eq!(violations(&both, &[], Open::Some).len(), 1);
        let side_by_side = [of_transport("a", 1, "udp"), of_transport("b", 2, "coaps")];
        assert_eq!(violations(&side_by_side, &[], Open::Some), Vec::<String>::new());
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

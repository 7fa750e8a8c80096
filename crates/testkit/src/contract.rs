//! The wire's contract, written down a second time: which fields each event has, of which type, and how they agree.
//!
//! Owns: judging one event on its own. Does not own: judging many against each other ([`crate::ledger`]).

use serde_json::{Map, Value};

use crate::recorder::Seen;

/// Why a session may end.
pub const REASONS: &[&str] = &[
    "client-closed",
    "connection-lost",
    "keep-alive-timeout",
    "idle-timeout",
    "lifetime-expired",
    "deregistered",
    "taken-over",
    "protocol-error",
    "not-authorized",
    "credentials-revoked",
    "credentials-expired",
    "kicked",
    "rate-limited",
    "slow-consumer",
    "secure-channel-closed",
    "gateway-draining",
    "gateway-lost",
];

const INITIATORS: &[&str] = &["device", "gateway", "operator", "network"];
const TRANSPORTS: &[&str] = &["mqtt", "mqtts", "mqtt-ws", "mqtt-wss", "coap", "coaps", "udp", "dtls"];
const IDENTITIES: &[&str] = &["anonymous", "password", "token", "certificate", "psk", "address"];
const ENCODINGS: &[&str] = &["json", "utf8", "base64"];
const OUTCOMES: &[&str] =
    &["delivered", "acknowledged", "answered", "expired", "not-connected", "busy", "rejected", "failed"];
const CAUSES: &[&str] = &[
    "bad-credentials",
    "unknown-device",
    "not-authorized",
    "malformed",
    "tls-failed",
    "rate-limited",
    "limit-reached",
    "unsupported-version",
];

/// 2024-01-01 in Unix ms: no clock of a test stands before it.
const EARLIEST: u64 = 1_704_067_200_000;

/// What a field holds.
#[derive(Clone, Copy, Debug)]
enum Holds {
    Anything,
    Text,
    Name,
    OneOf(&'static [&'static str]),
    Exactly(u64),
    Number,
    Positive,
    AtMost(u64),
    Time,
    Flag,
    Names,
    Address,
    Uuid7,
    Sessions,
}

use Holds::{
    Address, Anything, AtMost, Exactly, Flag, Name, Names, Number, OneOf, Positive, Sessions, Text, Time,
    Uuid7,
};

/// A field's name, what it holds, and whether it must be there.
type Field = (&'static str, Holds, bool);

/// Every JSON event begins so.
const HEAD: &[Field] = &[
    ("type", Name, true),
    ("id", Name, true),
    ("correlationId", Name, true),
    ("timestamp", Time, true),
    ("timeout", Exactly(0), true),
    ("originatorReplicaId", Name, true),
    ("incarnation", Name, true),
];

/// An event of one session goes on so.
const OF_SESSION: &[Field] = &[
    ("tenant", Name, true),
    ("endpointId", Name, true),
    ("appVersionName", Text, true),
    ("sessionId", Uuid7, true),
    ("epoch", Positive, true),
    ("seq", Positive, true),
    ("transport", OneOf(TRANSPORTS), true),
];

/// The same where the session may be unknown.
const OF_SESSION_IF_KNOWN: &[Field] = &[
    ("tenant", Name, false),
    ("endpointId", Name, false),
    ("appVersionName", Text, false),
    ("sessionId", Uuid7, false),
    ("epoch", Positive, false),
    ("seq", Positive, false),
    ("transport", OneOf(TRANSPORTS), false),
];

const CONNECTED: &[Field] = &[
    ("protocol", OneOf(&["MQTT/3.1.1", "MQTT/5.0"]), true),
    ("remoteId", Text, true),
    ("remoteAddress", Address, true),
    ("identifiedBy", OneOf(IDENTITIES), true),
    ("keepAliveMs", Positive, false),
    ("inferred", Flag, true),
    ("cleanStart", Flag, true),
];

const ENDED: &[Field] = &[
    ("reason", OneOf(REASONS), true),
    ("initiator", OneOf(INITIATORS), true),
    ("inferred", Flag, true),
    ("connectedAt", Time, true),
    ("lastSeenAt", Time, false),
    ("durationMs", Number, true),
    ("messagesIn", Number, false),
    ("messagesOut", Number, false),
    ("bytesIn", Number, false),
    ("bytesOut", Number, false),
];

const UPSTREAM: &[Field] = &[
    ("messageId", Name, true),
    ("topic", Name, true),
    ("qos", AtMost(2), true),
    ("retain", Flag, false),
    ("will", Flag, false),
    ("contentType", Text, false),
    ("userProperties", Anything, false),
    ("payload", Anything, true),
    ("payloadEncoding", OneOf(ENCODINGS), true),
];

const DOWNSTREAM: &[Field] = &[
    ("commandId", Name, true),
    ("name", Name, true),
    ("outcome", OneOf(OUTCOMES), true),
    ("latencyMs", Number, true),
    ("attempts", Number, true),
    ("response", Anything, false),
    ("responseEncoding", OneOf(ENCODINGS), false),
    ("status", Text, false),
];

const REFUSED: &[Field] = &[
    ("cause", OneOf(CAUSES), true),
    ("remoteAddress", Address, true),
    ("count", Positive, true),
    ("firstAt", Time, true),
    ("lastAt", Time, true),
];

const SERVICE: &[Field] =
    &[("version", Name, false), ("startedAt", Time, false), ("sessions", Number, false)];

/// What is wrong with an event; empty when nothing is.
pub fn violations(event: &Seen) -> Vec<String> {
    let Some(body) = event.json.as_object() else { return vec!["the body is no JSON object".to_owned()] };
    let mut found = Vec::new();
    let mut tables = vec![HEAD];
    match event.kind() {
        "connected" => tables.extend([OF_SESSION, CONNECTED]),
        "disconnected" if body.contains_key("sessions") => {
            tables.push(&[("endpointIds", Names, true), ("sessions", Sessions, true)]);
            // What holds for all of them may stand in the head once more.
            tables.extend([OF_SESSION_IF_KNOWN, &OPTIONAL_ENDED]);
        }
        "disconnected" => tables.extend([OF_SESSION, ENDED, &[("endpointIds", Names, true)]]),
        "upstream" => tables.extend([OF_SESSION, UPSTREAM]),
        "downstream" => {
            tables.extend([
                OF_SESSION_IF_KNOWN,
                DOWNSTREAM,
                &[("tenant", Name, true), ("endpointId", Name, true)],
            ]);
        }
        "refused" => tables.extend([OF_SESSION_IF_KNOWN, REFUSED]),
        "join" | "keep-alive" | "leave" => tables.push(SERVICE),
        other => found.push(format!("an event of an unknown type {other:?}")),
    }
    check_fields(body, &tables, &mut found);
    check_agreement(event, body, &mut found);
    found.into_iter().map(|what| format!("{}: {what}: {}", event.subject, event.json)).collect()
}

/// The fields of an ended session, none of them required.
const OPTIONAL_ENDED: [Field; ENDED.len()] = {
    let mut fields = [("", Anything, false); ENDED.len()];
    let mut at = 0;
    while at < ENDED.len() {
        fields[at] = (ENDED[at].0, ENDED[at].1, false);
        at += 1;
    }
    fields
};

fn check_fields(body: &Map<String, Value>, tables: &[&[Field]], found: &mut Vec<String>) {
    let fields = || tables.iter().flat_map(|table| table.iter());
    for (name, holds, required) in fields() {
        match body.get(*name) {
            None if *required => found.push(format!("{name} is missing")),
            None => {}
            Some(value) if fits(value, *holds) => {}
            Some(value) => found.push(format!("{name} is {value}, which is no {holds:?}")),
        }
    }
    for name in body.keys().filter(|name| !fields().any(|(known, ..)| known == name)) {
        found.push(format!("{name} is no field of the contract"));
    }
}

fn fits(value: &Value, holds: Holds) -> bool {
    let text = value.as_str();
    let number = value.as_u64();
    match holds {
        Anything => true,
        Text => text.is_some(),
        Name => text.is_some_and(|text| !text.is_empty()),
        OneOf(list) => text.is_some_and(|text| list.contains(&text)),
        Exactly(n) => number == Some(n),
        Number => number.is_some(),
        Positive => number.is_some_and(|n| n > 0),
        AtMost(most) => number.is_some_and(|n| n <= most),
        Time => number.is_some_and(|n| n > EARLIEST),
        Flag => value.is_boolean(),
        Names => value.as_array().is_some_and(|all| !all.is_empty() && all.iter().all(|v| fits(v, Name))),
        Address => text.is_some_and(|text| text.parse::<std::net::SocketAddr>().is_ok()),
        Uuid7 => text.is_some_and(is_uuid7),
        Sessions => value.as_array().is_some_and(|all| !all.is_empty() && all.iter().all(is_ended_session)),
    }
}

/// One of the many that a `disconnected` names.
fn is_ended_session(value: &Value) -> bool {
    let of_one = [("endpointId", Name), ("sessionId", Uuid7), ("epoch", Positive), ("seq", Positive)];
    of_one.iter().all(|(name, holds)| fits(&value[*name], *holds))
        && ENDED.iter().all(|(name, holds, _)| value.get(*name).is_none_or(|value| fits(value, *holds)))
}

/// True for the canonical text of a version 7 UUID.
pub fn is_uuid7(text: &str) -> bool {
    let groups: Vec<&str> = text.split('-').collect();
    groups.iter().map(|group| group.len()).eq([8, 4, 4, 4, 12])
        && text.bytes().all(|b| b == b'-' || b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        && groups[2].starts_with('7')
        && groups[3].starts_with(['8', '9', 'a', 'b'])
}

/// How the fields agree with each other, with the subject and with the headers.
fn check_agreement(event: &Seen, body: &Map<String, Value>, found: &mut Vec<String>) {
    let number = |name: &str| body.get(name).and_then(Value::as_u64);
    let mut hold = |holds: bool, what: &str| {
        if !holds {
            found.push(what.to_owned());
        }
    };
    hold(event.text("type") == event.kind(), "type is not the subject's last token");
    hold(event.header("Nats-Msg-Id") == event.text("id"), "id is not the Nats-Msg-Id");
    match event.kind() {
        "connected" => hold(number("seq") == Some(1), "a connected whose seq is not 1"),
        "disconnected" if !body.contains_key("sessions") => {
            let (from, to) = (number("connectedAt"), number("timestamp"));
            let duration = to.zip(from).map(|(to, from)| to.saturating_sub(from));
            hold(duration == number("durationMs"), "durationMs is not timestamp - connectedAt");
            hold(from <= to, "it ended before it began");
            if let Some(seen) = number("lastSeenAt") {
                hold(from <= Some(seen) && Some(seen) <= to, "lastSeenAt lies outside the session");
            }
            hold(
                body["endpointIds"] == serde_json::json!([event.text("endpointId")]),
                "endpointIds is not the one",
            );
        }
        "upstream" => {
            let is_text = body.get("payload").is_some_and(Value::is_string);
            hold(event.text("payloadEncoding") == "json" || is_text, "an encoded payload that is no text");
        }
        "downstream" => {
            let both = body.contains_key("response") == body.contains_key("responseEncoding");
            hold(both, "response without responseEncoding, or the other way round");
            let answered = event.text("outcome") == "answered";
            hold(answered || !body.contains_key("response"), "a response without an answer");
        }
        "refused" => hold(number("firstAt") <= number("lastAt"), "the last was before the first"),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(subject: &str, body: &Value) -> Seen {
        let mut headers = async_nats::HeaderMap::new();
        headers.insert("Nats-Msg-Id", "1");
        Seen::new(subject.to_owned(), Some(headers), body.to_string().into_bytes().into())
    }

    fn upstream() -> Value {
        serde_json::json!({
            "type": "upstream", "id": "1", "correlationId": "c", "timestamp": 1_800_000_000_000_u64, "timeout": 0,
            "originatorReplicaId": "r", "incarnation": "n", "tenant": "default", "endpointId": "d",
            "appVersionName": "", "sessionId": "01890a5d-ac96-774b-bcce-b302099a8057", "epoch": 1, "seq": 1,
            "transport": "mqtt", "messageId": "m", "topic": "t", "qos": 1, "payload": {"a": 1},
            "payloadEncoding": "json",
        })
    }

    #[test]
    fn a_whole_event_passes() {
        assert_eq!(
            violations(&seen("kaa.v1.events.i.endpoint.message.upstream", &upstream())),
            Vec::<String>::new()
        );
    }

    #[test]
    fn every_missing_wrong_or_unknown_field_is_told() {
        for (field, value) in [
            ("seq", Value::Null),
            ("seq", 0.into()),
            ("transport", "carrier pigeon".into()),
            ("sessionId", "01890a5d-ac96-474b-bcce-b302099a8057".into()),
            ("qos", 3.into()),
            ("more", 1.into()),
            ("id", "2".into()),
            ("type", "connected".into()),
        ] {
            let mut event = upstream();
            event[field] = value.clone();
            let found = violations(&seen("kaa.v1.events.i.endpoint.message.upstream", &event));
            assert_eq!(found.len(), 1, "{field} = {value}: {found:?}");
        }
        let mut event = upstream();
        event.as_object_mut().unwrap().remove("epoch");
        assert_eq!(violations(&seen("kaa.v1.events.i.endpoint.message.upstream", &event)).len(), 1);
    }
}

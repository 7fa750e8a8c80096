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
    "not-admitted",
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
    Evidence,
    Gaps,
}

use Holds::{
    Address, Anything, AtMost, Evidence, Exactly, Flag, Gaps, Name, Names, Number, OneOf, Positive, Sessions,
    Text, Time, Uuid7,
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
    ("protocol", OneOf(&["MQTT/3.1", "MQTT/3.1.1", "MQTT/5.0", "CoAP", "UDP"]), true),
    ("remoteId", Text, true),
    ("remoteAddress", Address, true),
    ("identifiedBy", OneOf(IDENTITIES), true),
    ("keepAliveMs", Positive, false),
    ("inferred", Flag, true),
    ("cleanStart", Flag, false),
];

const MOVED: &[Field] = &[("remoteAddress", Address, true), ("previousAddress", Address, true)];

const DORMANT: &[Field] = &[("sleepMs", Positive, true), ("wakeBy", Time, true)];

const AWAKE: &[Field] = &[("dormantMs", Number, true)];

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
    ("evidence", Evidence, false),
    ("detail", Name, false),
];

const UPSTREAM: &[Field] = &[
    ("messageId", Name, true),
    ("topic", Name, false),
    ("qos", AtMost(2), false),
    ("retain", Flag, false),
    ("will", Flag, false),
    ("contentType", Text, false),
    ("userProperties", Anything, false),
    ("responseTopic", Text, false),
    ("correlationData", Text, false),
    ("messageExpiryMs", Number, false),
    ("payloadFormat", Text, false),
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
    ("detail", Text, false),
    ("claimedId", Text, false),
    ("otherClaims", Positive, false),
    ("topic", Text, false),
    ("otherTopics", Positive, false),
    ("remoteAddress", Address, true),
    ("count", Positive, true),
    ("firstAt", Time, true),
    ("lastAt", Time, true),
];

const DROPPED: &[Field] = &[("sessions", Number, true), ("messages", Number, true), ("gaps", Gaps, true)];

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
        "moved" => tables.extend([OF_SESSION, MOVED]),
        "dormant" => tables.extend([OF_SESSION, DORMANT]),
        "awake" => tables.extend([OF_SESSION, AWAKE]),
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
        "events-dropped" => tables.push(DROPPED),
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
        Evidence => is_evidence(value),
        Gaps => value.as_array().is_some_and(|all| all.iter().all(is_gap)),
        Sessions => value.as_array().is_some_and(|all| !all.is_empty() && all.iter().all(is_ended_session)),
    }
}

/// Numbers that are missing, from the first to the last.
fn is_gap(value: &Value) -> bool {
    let numbers = (value["from"].as_u64(), value["to"].as_u64());
    fits(&value["sessionId"], Uuid7) && matches!(numbers, (Some(from), Some(to)) if 0 < from && from <= to)
}

/// What a silence was measured against: these members and no other.
fn is_evidence(value: &Value) -> bool {
    let phi = value["phi"].as_f64().is_some_and(|phi| (0.0..=1_000.0).contains(&phi));
    let ms = fits(&value["intervalMs"], Positive) && fits(&value["silentMs"], Positive);
    phi && ms && value.as_object().is_some_and(|members| members.len() == 3)
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
    let mqtt = is_mqtt(body);
    match event.kind() {
        "connected" => {
            hold(number("seq") == Some(1), "a connected whose seq is not 1");
            hold(
                body.get("inferred").and_then(Value::as_bool).is_some_and(|told| {
                    // A handshake of DTLS that says who it is can be seen; a later word on its channel is concluded from.
                    let is_shaken = matches!(event.text("transport"), "coaps" | "dtls")
                        && matches!(event.text("identifiedBy"), "psk" | "certificate");
                    is_shaken || told != mqtt
                }),
                "inferred is not the protocol's having no connect",
            );
            hold(body.contains_key("cleanStart") == mqtt, "cleanStart is MQTT's, and only MQTT's");
            hold(mqtt == event.text("protocol").starts_with("MQTT/"), "protocol and transport are two");
            hold(mqtt || body.contains_key("keepAliveMs"), "no silence ends a session that has no other end");
        }
        "disconnected" => {
            if body.contains_key("sessions") {
                let entries = body["sessions"].as_array().into_iter().flatten().filter_map(Value::as_object);
                entries.for_each(|entry| check_end(entry, &mut hold));
            } else {
                check_end(body, &mut hold);
                let ids = serde_json::json!([event.text("endpointId")]);
                hold(body["endpointIds"] == ids, "endpointIds is not the one");
            }
        }
        "moved" | "dormant" | "awake" => check_going_on(event, body, &mut hold),
        "upstream" => {
            let is_text = body.get("payload").is_some_and(Value::is_string);
            hold(event.text("payloadEncoding") == "json" || is_text, "an encoded payload that is no text");
            hold(body.contains_key("qos") == mqtt, "qos is MQTT's, and only MQTT's");
            hold(!mqtt || body.contains_key("topic"), "an MQTT message without a topic");
            let udp = matches!(event.text("transport"), "udp" | "dtls");
            // An answer to a command that is not under way is told apart by it.
            let plain = !body.contains_key("topic") || event.text("topic").starts_with("command/res/");
            hold(!udp || plain, "a UDP message with a topic");
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

fn is_mqtt(body: &Map<String, Value>) -> bool {
    body.get("transport").and_then(Value::as_str).is_some_and(|transport| transport.starts_with("mqtt"))
}

/// How the fields of one session's end agree, in an event of its own or in one that names many.
fn check_end(end: &Map<String, Value>, hold: &mut impl FnMut(bool, &str)) {
    let number = |name: &str| end.get(name).and_then(Value::as_u64);
    let (from, to) = (number("connectedAt"), number("timestamp"));
    let duration = to.zip(from).map(|(to, from)| to.saturating_sub(from));
    hold(duration == number("durationMs"), "durationMs is not timestamp - connectedAt");
    hold(from <= to, "it ended before it began");
    if let Some(seen) = number("lastSeenAt") {
        hold(from <= Some(seen) && Some(seen) <= to, "lastSeenAt lies outside the session");
    }
    hold(number("seq") != Some(1), "an end whose seq is that of connected");
    let reason = end.get("reason").and_then(Value::as_str).unwrap_or_default();
    let inferred = match reason {
        "gateway-lost" => true,
        "idle-timeout" | "lifetime-expired" => !is_mqtt(end),
        _ => false,
    };
    hold(end.get("inferred") == Some(&inferred.into()), "inferred does not fit the reason");
    if end.contains_key("detail") {
        let broken = matches!(reason, "protocol-error" | "not-authorized") && is_mqtt(end);
        hold(broken, "a broken rule where none was broken");
    }
    if let Some(evidence) = end.get("evidence") {
        hold(reason == "idle-timeout" && inferred, "evidence of something else than silence");
        let longer = evidence["silentMs"].as_u64() > evidence["intervalMs"].as_u64();
        hold(longer, "evidence of a silence that is none");
    }
}

/// How the fields of an event between `connected` and `disconnected` agree.
fn check_going_on(event: &Seen, body: &Map<String, Value>, hold: &mut impl FnMut(bool, &str)) {
    let number = |name: &str| body.get(name).and_then(Value::as_u64);
    let (session, seq) = (event.text("sessionId"), number("seq").unwrap_or(0));
    hold(event.text("id") == format!("{session}.c.{seq}"), "id is not made of session and seq");
    hold(event.text("correlationId") == session, "correlationId is not the session");
    hold(seq > 1, "a session that goes on before it began");
    hold(!is_mqtt(body), "an event of stateless devices over a connection");
    match event.kind() {
        "moved" => hold(event.text("remoteAddress") != event.text("previousAddress"), "it did not move"),
        "dormant" => {
            let slept =
                number("timestamp").zip(number("sleepMs")).map(|(at, sleep)| at.saturating_add(sleep));
            hold(slept <= number("wakeBy"), "it is to wake before it has slept");
        }
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
            ("transport", "mqtt-pigeon".into()),
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

    const SESSION: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

    /// An event of a CoAP session: the fields that every one has, and its own.
    fn coap(kind: &str, seq: u64, own: &Value) -> Value {
        let mut event = serde_json::json!({
            "type": kind, "id": "1", "correlationId": SESSION, "timestamp": 1_800_000_000_000_u64, "timeout": 0,
            "originatorReplicaId": "r", "incarnation": "n", "tenant": "default", "endpointId": "d",
            "appVersionName": "", "sessionId": SESSION, "epoch": 1, "seq": seq, "transport": "coap",
        });
        for (name, value) in own.as_object().unwrap() {
            event[name] = value.clone();
        }
        event
    }

    fn told(kind: &str, body: &Value) -> Vec<String> {
        let mut headers = async_nats::HeaderMap::new();
        headers.insert("Nats-Msg-Id", body["id"].as_str().unwrap());
        let subject = format!("kaa.v1.events.i.endpoint.connectivity.{kind}");
        violations(&Seen::new(subject, Some(headers), body.to_string().into_bytes().into()))
    }

    /// Each with what may stand in its place, of which nothing is right.
    fn stateless() -> Vec<(Value, Vec<(&'static str, Value)>)> {
        use serde_json::json;
        let id = format!("{SESSION}.c.2");
        let (one, other) = ("192.0.2.1:1", "192.0.2.1:2");
        let evidence = json!({"intervalMs": 1_000, "silentMs": 2_000, "phi": 8.5});
        vec![
            (
                coap(
                    "connected",
                    1,
                    &json!({
                        "protocol": "CoAP", "remoteId": "d", "remoteAddress": one, "identifiedBy": "password",
                        "keepAliveMs": 300_000, "inferred": true,
                    }),
                ),
                vec![
                    ("inferred", false.into()),
                    ("cleanStart", true.into()),
                    ("protocol", "MQTT/5.0".into()),
                ],
            ),
            (
                coap("moved", 2, &json!({"id": id, "remoteAddress": one, "previousAddress": other})),
                vec![
                    ("remoteAddress", other.into()),
                    ("previousAddress", "x".into()),
                    ("seq", 3.into()),
                    ("transport", "mqtt".into()),
                    ("correlationId", "x".into()),
                    ("sleepMs", 1.into()),
                ],
            ),
            (
                coap("dormant", 2, &json!({"id": id, "sleepMs": 1_000, "wakeBy": 1_800_000_001_000_u64})),
                vec![("sleepMs", 0.into()), ("sleepMs", 1_001.into()), ("wakeBy", 1.5.into())],
            ),
            (coap("awake", 2, &json!({"id": id, "dormantMs": 0})), vec![("dormantMs", (-1).into())]),
            (
                coap(
                    "disconnected",
                    5,
                    &json!({
                        "endpointIds": ["d"], "reason": "idle-timeout", "initiator": "gateway", "inferred": true,
                        "connectedAt": 1_799_999_990_000_u64, "lastSeenAt": 1_799_999_998_000_u64, "durationMs": 10_000,
                        "evidence": evidence,
                    }),
                ),
                vec![
                    ("inferred", false.into()),
                    ("evidence", json!({"intervalMs": 1_000, "silentMs": 2_000})),
                    ("evidence", json!({"intervalMs": 1_000, "silentMs": 2_000, "phi": 1_001})),
                    ("evidence", json!({"intervalMs": 1_000, "silentMs": 2_000, "phi": 8, "more": 1})),
                    ("evidence", json!({"intervalMs": 2_000, "silentMs": 1_000, "phi": 8})),
                ],
            ),
        ]
    }

    #[test]
    fn stateless_sessions_have_their_own_rules() {
        for (event, wrong) in stateless() {
            let kind = event["type"].as_str().unwrap();
            assert_eq!(told(kind, &event), Vec::<String>::new());
            for (field, value) in wrong {
                let mut event = event.clone();
                event[field] = value.clone();
                assert!(!told(kind, &event).is_empty(), "{kind} with {field} = {value}");
            }
        }
        let (mut kicked, _) = stateless().pop().unwrap();
        kicked["reason"] = "kicked".into();
        kicked["inferred"] = false.into();
        assert_eq!(told("disconnected", &kicked).len(), 1, "an operator needs no evidence");
        kicked.as_object_mut().unwrap().remove("evidence");
        assert_eq!(told("disconnected", &kicked), Vec::<String>::new());
    }
}

//! Arbitrary events, hostile texts among them, and what a reader must see of each.

use std::net::SocketAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use landfall_event::json::PayloadEncoding;
use landfall_event::{
    Awake, Connected, Counters, DeviceId, Disconnected, Dormant, Downstream, Dropped, Ended, Epoch, Event,
    EventId, Evidence, Gap, IdentifiedBy, Identity, Initiator, Moved, Outcome, PublishProperties, Reason,
    Refused, RefusedCause, RefusedDetail, Service, ServiceKind, SessionId, SessionInfo, SessionRef, Stream,
    TenantId, Transport, Upstream, wire,
};
use proptest::prelude::*;
use proptest::sample::select;

use crate::samples::{Sample, origin};

/// Texts that have broken somebody's JSON, log or subject before.
const HOSTILE: &[&str] = &[
    "\"",
    "\\",
    "\\\"",
    "\",\"type\":\"disconnected",
    "\r\nNats-Msg-Id: forged",
    "\0\u{1}\u{1f}\u{7f}\u{80}\u{85}\u{9f}",
    "\u{2028}\u{2029}\u{feff}\u{202e}",
    "\\u0022",
    "\\ud800",
    "%00%",
    " a ",
    "pump.*.>",
    "🛰️ \u{10ffff}",
    "</script><!--",
    "\u{1b}[31m",
];

/// Any text at all.
/// Boxed, as are the events: the nested types would fill a test thread's stack.
pub(crate) fn text() -> BoxedStrategy<String> {
    prop_oneof![
        select(HOSTILE).prop_map(str::to_owned),
        proptest::collection::vec(any::<char>(), 0..24).prop_map(String::from_iter),
        "[ -~]{0,24}",
    ]
    .boxed()
}

/// A text that is a valid id.
pub(crate) fn id_text() -> impl Strategy<Value = String> {
    text().prop_map(|text| {
        let mut id: String = text.chars().filter(|c| !c.is_control()).collect();
        id.push('x');
        id
    })
}

pub(crate) fn tenant() -> impl Strategy<Value = TenantId> {
    id_text().prop_map(|text| text.parse().unwrap())
}

pub(crate) fn device() -> impl Strategy<Value = DeviceId> {
    id_text().prop_map(|text| text.parse().unwrap())
}

/// Milliseconds and counts: JSON readers are exact up to 2^53.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![0..1_u64 << 53, Just(0), Just((1 << 53) - 1)]
}

fn uuid() -> impl Strategy<Value = SessionId> {
    (0..1_u64 << 48, any::<[u8; 10]>()).prop_map(|(now, random)| SessionId::new(now, random))
}

prop_compose! {
    fn session()(
        tenant in tenant(), device in device(), app_version in text(), session in uuid(), epoch in number(),
        transport in select(Transport::ALL),
    ) -> SessionRef {
        SessionRef::from(SessionInfo {
            tenant, device, app_version: app_version.into(), identity: Identity::new(session, Epoch(epoch)), transport,
        })
    }
}

prop_compose! {
    fn connected()(
        session in session(), protocol in select(&["MQTT/5.0", "MQTT/3.1.1", "CoAP"]), remote_id in text(),
        remote_address in any::<SocketAddr>(), identified_by in select(IdentifiedBy::ALL),
        keep_alive_ms in proptest::option::of(number()), inferred in any::<bool>(),
        clean_start in any::<Option<bool>>(),
    ) -> Event {
        Event::Connected(Connected {
            session, protocol, remote_id: remote_id.into(), remote_address, identified_by, keep_alive_ms, inferred,
            clean_start,
        })
    }
}

/// In thousandths, as the wire tells it; and what cannot be told so.
fn phi() -> impl Strategy<Value = f64> {
    prop_oneof![
        (0..1_000_000_u32).prop_map(|thousandths| f64::from(thousandths) / 1_000.0),
        select(&[0.0, -0.0, -1.5, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::MAX, 1e-300][..]),
    ]
}

prop_compose! {
    fn evidence()(interval_ms in number(), silent_ms in number(), phi in phi()) -> Evidence {
        Evidence { interval_ms, silent_ms, phi }
    }
}

prop_compose! {
    fn ended()(
        session in session(), seq in number(), reason in select(Reason::ALL), initiator in select(Initiator::ALL),
        inferred in any::<bool>(), connected_at in number(), last_seen_at in proptest::option::of(number()),
        at in number(), counters in proptest::option::of([number(), number(), number(), number()]),
        evidence in proptest::option::of(evidence()),
        detail in proptest::option::of(text()),
    ) -> Ended {
        let counters = counters.map(|[messages_in, messages_out, bytes_in, bytes_out]| {
            Counters { messages_in, messages_out, bytes_in, bytes_out }
        });
        let detail = detail.map(|detail| (*detail).into());
        Ended {
            session,
            seq,
            reason,
            initiator,
            inferred,
            connected_at,
            last_seen_at,
            at,
            counters,
            evidence,
            detail,
        }
    }
}

/// The connectivity events of a session that goes on.
fn going_on() -> impl Strategy<Value = Event> {
    let addresses = (any::<SocketAddr>(), any::<SocketAddr>());
    prop_oneof![
        (session(), number(), addresses).prop_map(|(session, seq, (from, to))| Event::Moved(Moved {
            session,
            seq,
            from,
            to
        })),
        (session(), number(), number(), number()).prop_map(|(session, seq, sleep_ms, wake_by)| {
            Event::Dormant(Dormant { session, seq, sleep_ms, wake_by })
        }),
        (session(), number(), number()).prop_map(|(session, seq, dormant_ms)| Event::Awake(Awake {
            session,
            seq,
            dormant_ms
        })),
    ]
}

/// Any bytes; often text, often JSON.
pub(crate) fn payload() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..64).prop_map(Bytes::from),
        text().prop_map(Bytes::from),
        text().prop_map(|text| Bytes::from(serde_json::to_vec(&text).unwrap())),
        select(&[" {\"a\": [1, 2.50, null]}\r\n", "1e999", "\"\\ud800\"", "{\"a\":1}}", "null", ""][..])
            .prop_map(Bytes::from),
    ]
}

prop_compose! {
    fn publish()(
        response_topic in proptest::option::of(text()), expiry_ms in proptest::option::of(number()),
        correlation_data in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..16)),
        is_utf8 in any::<bool>(),
    ) -> PublishProperties {
        let correlation_data = correlation_data.map(Bytes::from);
        PublishProperties { response_topic: response_topic.map(Into::into), correlation_data, expiry_ms, is_utf8 }
    }
}

prop_compose! {
    fn upstream()(
        session in session(), seq in number(), topic in text(), qos in proptest::option::of(0..3_u8),
        retain in any::<bool>(), will in any::<bool>(), content_type in proptest::option::of(text()),
        properties in proptest::collection::vec((text(), text()), 0..3), payload in payload(),
        publish in publish(),
    ) -> Event {
        Event::Upstream(Upstream {
            session, seq, topic: topic.into(), qos, retain, will, content_type: content_type.map(Into::into),
            publish: publish.said(),
            properties: properties.into_iter().map(|(name, value)| (name.into(), value.into())).collect(), payload,
        })
    }
}

prop_compose! {
    fn downstream()(
        tenant in tenant(), device in device(), session in proptest::option::of((session(), number())),
        command in "[a-z0-9\"\\\\é ]{1,16}", name in "[a-z0-9\"\\\\é ]{1,16}", outcome in select(Outcome::ALL),
        latency_ms in number(), attempts in any::<u32>(), response in proptest::option::of(payload()),
        status in proptest::option::of(text()),
    ) -> Event {
        let (tenant, device) = match &session {
            Some((info, _)) => (info.tenant.clone(), info.device.clone()),
            None => (tenant, device),
        };
        Event::Downstream(Downstream {
            tenant, device, session, command: command.parse().unwrap(), name: name.parse().unwrap(), outcome,
            latency_ms, attempts, response, status: status.map(Into::into),
        })
    }
}

prop_compose! {
    fn refused()(
        cause in select(RefusedCause::ALL), transport in select(Transport::ALL),
        remote_address in any::<SocketAddr>(), device in proptest::option::of((tenant(), device())),
        detail in proptest::option::of(select(RefusedDetail::ALL)),
        claimed in proptest::option::of((".{0,40}", number())), topic in proptest::option::of((".{0,40}", number())),
        count in number(), first_at in number(), last_at in number(),
    ) -> Event {
        let detail = detail.map(RefusedDetail::as_str);
        let (claimed, other_claims) = claimed.unzip();
        let (topic, other_topics) = topic.unzip();
        Event::Refused(Refused {
            cause, transport, remote_address, device, detail,
            claimed: claimed.map(Into::into), other_claims: other_claims.unwrap_or(0),
            topic: topic.map(Into::into), other_topics: other_topics.unwrap_or(0),
            count, first_at, last_at,
        })
    }
}

fn service() -> impl Strategy<Value = Event> {
    const KINDS: &[ServiceKind] = &[ServiceKind::Join, ServiceKind::KeepAlive, ServiceKind::Leave];
    (select(KINDS), number(), number()).prop_map(|(kind, sessions, started_at)| {
        Event::Service(Service { kind, version: "0.1.0-\"rc\"", sessions, started_at })
    })
}

fn dropped() -> impl Strategy<Value = Event> {
    let gap = (uuid(), number(), number()).prop_map(|(session, from, to)| Gap { session, from, to });
    (number(), number(), proptest::collection::vec(gap, 0..3))
        .prop_map(|(sessions, messages, gaps)| Event::Dropped(Dropped { sessions, messages, gaps }))
}

/// Any event under any id that fits it.
pub(crate) fn sample() -> impl Strategy<Value = Sample> {
    let disconnected = prop_oneof![
        ended().prop_map(|ended| vec![ended]),
        proptest::collection::vec(ended(), 2..5),
        Just(Vec::new()),
    ];
    let event = prop_oneof![
        connected().boxed(),
        disconnected.prop_map(|ended| Event::Disconnected(Disconnected { ended })).boxed(),
        going_on().boxed(),
        upstream().boxed(),
        downstream().boxed(),
        refused().boxed(),
        service().boxed(),
        dropped().boxed(),
    ];
    (event, number(), number()).prop_map(|(event, n, at)| {
        let id = match &event {
            Event::Connected(connected) => {
                EventId::Session(connected.session.session(), Stream::Connectivity, 1)
            }
            Event::Moved(Moved { session, seq, .. })
            | Event::Dormant(Dormant { session, seq, .. })
            | Event::Awake(Awake { session, seq, .. }) => {
                EventId::Session(session.session(), Stream::Connectivity, *seq)
            }
            Event::Upstream(upstream) => {
                EventId::Session(upstream.session.session(), Stream::Messages, upstream.seq)
            }
            _ => EventId::Gateway(origin().incarnation, n),
        };
        // One session's end happens when its event does.
        let at = match &event {
            Event::Disconnected(Disconnected { ended }) if ended.len() == 1 => ended[0].at,
            _ => at,
        };
        Sample { name: "generated", id, at, event }
    })
}

/// What a reader must see of a session.
fn seen_session(info: &SessionInfo, seq: u64) -> wire::Session {
    wire::Session {
        tenant: info.tenant.clone(),
        endpoint_id: info.device.clone(),
        app_version_name: info.app_version.to_string(),
        session_id: info.session(),
        epoch: info.epoch(),
        seq,
        transport: info.transport,
    }
}

fn seen_phi(phi: f64) -> f64 {
    match phi {
        phi if phi.is_nan() || phi < 0.001 => 0.0,
        phi => phi.min(1_000.0),
    }
}

fn seen_ended(ended: &Ended) -> wire::Ended {
    wire::Ended {
        session: seen_session(&ended.session, ended.seq),
        details: wire::EndedDetails {
            timestamp: ended.at,
            reason: ended.reason,
            initiator: ended.initiator,
            inferred: ended.inferred,
            connected_at: ended.connected_at,
            last_seen_at: ended.last_seen_at,
            duration_ms: ended.at.saturating_sub(ended.connected_at),
            messages_in: ended.counters.map(|counters| counters.messages_in),
            messages_out: ended.counters.map(|counters| counters.messages_out),
            bytes_in: ended.counters.map(|counters| counters.bytes_in),
            bytes_out: ended.counters.map(|counters| counters.bytes_out),
            evidence: ended.evidence.map(|evidence| wire::Evidence {
                interval_ms: evidence.interval_ms,
                silent_ms: evidence.silent_ms,
                phi: seen_phi(evidence.phi),
            }),
            detail: ended.detail.as_deref().map(str::to_owned),
        },
    }
}

/// The payload as embedded: judged by another JSON parser.
pub(crate) fn seen_payload(bytes: &[u8]) -> wire::Payload {
    let trimmed = bytes.trim_ascii_start().trim_ascii_end();
    match std::str::from_utf8(bytes) {
        Err(_) => wire::Payload { encoding: PayloadEncoding::Base64, bytes: bytes.to_vec() },
        Ok(_) if serde_json::from_slice::<serde_json::Value>(bytes).is_ok() => {
            wire::Payload { encoding: PayloadEncoding::Json, bytes: trimmed.to_vec() }
        }
        Ok(_) => wire::Payload { encoding: PayloadEncoding::Utf8, bytes: bytes.to_vec() },
    }
}

fn seen_upstream(id: EventId, event: &Upstream) -> wire::Upstream {
    let publish = event.publish.clone().unwrap_or_default();
    wire::Upstream {
        session: seen_session(&event.session, event.seq),
        details: wire::UpstreamDetails {
            message_id: id,
            topic: event.topic.to_string(),
            qos: event.qos,
            retain: event.retain,
            will: event.will,
            content_type: event.content_type.as_deref().map(str::to_owned),
            user_properties: event
                .properties
                .iter()
                .map(|(name, value)| wire::UserProperty { name: name.to_string(), value: value.to_string() })
                .collect(),
            response_topic: publish.response_topic.as_deref().map(str::to_owned),
            correlation_data: publish.correlation_data.map(|data| STANDARD.encode(data)),
            message_expiry_ms: publish.expiry_ms,
            payload_format: publish.is_utf8.then(|| "utf8".to_owned()),
        },
        payload: seen_payload(&event.payload),
    }
}

fn seen_going_on(event: &Event) -> wire::Body {
    match event {
        Event::Moved(event) => wire::Body::Moved(Box::new(wire::Moved {
            session: seen_session(&event.session, event.seq),
            details: wire::MovedDetails {
                remote_address: event.to.to_string(),
                previous_address: event.from.to_string(),
            },
        })),
        Event::Dormant(event) => wire::Body::Dormant(Box::new(wire::Dormant {
            session: seen_session(&event.session, event.seq),
            details: wire::DormantDetails { sleep_ms: event.sleep_ms, wake_by: event.wake_by },
        })),
        Event::Awake(event) => wire::Body::Awake(Box::new(wire::Awake {
            session: seen_session(&event.session, event.seq),
            details: wire::AwakeDetails { dormant_ms: event.dormant_ms },
        })),
        other => panic!("ends or begins: {other:?}"),
    }
}

fn seen_refused(event: &Refused) -> wire::Refused {
    wire::Refused {
        tenant: event.device.as_ref().map(|(tenant, _)| tenant.clone()),
        endpoint_id: event.device.as_ref().map(|(_, device)| device.clone()),
        transport: event.transport,
        cause: event.cause,
        detail: event.detail.map(str::to_owned),
        claimed_id: event.claimed.as_deref().map(str::to_owned),
        other_claims: event.other_claims,
        topic: event.topic.as_deref().map(str::to_owned),
        other_topics: event.other_topics,
        remote_address: event.remote_address.to_string(),
        count: event.count,
        first_at: event.first_at,
        last_at: event.last_at,
    }
}

fn seen_body(sample: &Sample) -> wire::Body {
    match &sample.event {
        Event::Connected(event) => wire::Body::Connected(Box::new(wire::Connected {
            session: seen_session(&event.session, 1),
            details: wire::ConnectedDetails {
                protocol: event.protocol.to_owned(),
                remote_id: event.remote_id.to_string(),
                remote_address: event.remote_address.to_string(),
                identified_by: event.identified_by,
                keep_alive_ms: event.keep_alive_ms,
                inferred: event.inferred,
                clean_start: event.clean_start,
            },
        })),
        Event::Disconnected(event) => wire::Body::Disconnected(event.ended.iter().map(seen_ended).collect()),
        Event::Moved(_) | Event::Dormant(_) | Event::Awake(_) => seen_going_on(&sample.event),
        Event::Upstream(event) => wire::Body::Upstream(Box::new(seen_upstream(sample.id, event))),
        Event::Downstream(event) => wire::Body::Downstream(Box::new(wire::Downstream {
            details: wire::DownstreamDetails {
                tenant: event.tenant.clone(),
                endpoint_id: event.device.clone(),
                command_id: event.command.clone(),
                name: event.name.clone(),
                outcome: event.outcome,
                latency_ms: event.latency_ms,
                attempts: event.attempts,
                status: event.status.as_deref().map(str::to_owned),
            },
            session: event.session.as_ref().map(|(info, seq)| seen_session(info, *seq)),
            response: event.response.as_deref().map(seen_payload),
        })),
        Event::Refused(event) => wire::Body::Refused(Box::new(seen_refused(event))),
        Event::Dropped(event) => wire::Body::Dropped(wire::Dropped {
            sessions: event.sessions,
            messages: event.messages,
            gaps: event
                .gaps
                .iter()
                .map(|gap| wire::Gap { session_id: gap.session, from: gap.from, to: gap.to })
                .collect(),
        }),
        Event::Service(event) => wire::Body::Service(wire::Service {
            kind: event.kind,
            details: wire::ServiceDetails {
                version: event.version.to_owned(),
                sessions: event.sessions,
                started_at: event.started_at,
            },
        }),
    }
}

/// What a reader must see of an event.
pub(crate) fn seen(sample: &Sample) -> wire::Event {
    let origin = origin();
    let own = sample.id.to_string();
    let (kind, correlation_id) = match &sample.event {
        Event::Connected(event) => ("connected", event.session.session().to_string()),
        Event::Disconnected(Disconnected { ended }) if ended.len() == 1 => {
            ("disconnected", ended[0].session.session().to_string())
        }
        Event::Disconnected(_) => ("disconnected", own),
        Event::Moved(event) => ("moved", event.session.session().to_string()),
        Event::Dormant(event) => ("dormant", event.session.session().to_string()),
        Event::Awake(event) => ("awake", event.session.session().to_string()),
        Event::Upstream(_) => ("upstream", own),
        Event::Downstream(event) => ("downstream", event.command.to_string()),
        Event::Refused(_) => ("refused", own),
        Event::Dropped(_) => ("events-dropped", own),
        Event::Service(Service { kind: ServiceKind::Join, .. }) => ("join", own),
        Event::Service(Service { kind: ServiceKind::KeepAlive, .. }) => ("keep-alive", own),
        Event::Service(Service { kind: ServiceKind::Leave, .. }) => ("leave", own),
    };
    wire::Event {
        head: wire::Head {
            kind: kind.to_owned(),
            id: sample.id,
            correlation_id,
            timestamp: sample.at,
            timeout: 0,
            originator_replica_id: origin.replica,
            incarnation: origin.incarnation,
        },
        body: seen_body(sample),
    }
}

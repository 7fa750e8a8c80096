//! Which event carries which fields, in the order of the wire.
//!
//! Owns: the events' layout, the same for JSON and for headers. Does not own: payloads, which only JSON embeds.

use std::net::SocketAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::write::{JsonObject, Shown};
use crate::field::{self, Fields};
use crate::{
    Awake, Connected, DeviceId, Disconnected, Dormant, Downstream, Dropped, Ended, Event, Evidence, Moved,
    Occasion, PublishProperties, Refused, Service, ServiceKind, SessionInfo, TenantId, UnixMs, Upstream,
};

/// Kaa's `timeout`: 0 is never.
const NEVER: u64 = 0;

/// Writes everything but a payload.
pub(super) fn event(out: &mut impl Fields, occasion: &Occasion<'_>, event: &Event) {
    match event {
        Event::Connected(connected) => self::connected(out, occasion, connected),
        Event::Disconnected(disconnected) => self::disconnected(out, occasion, disconnected),
        Event::Moved(moved) => self::moved(out, occasion, moved),
        Event::Dormant(dormant) => self::dormant(out, occasion, dormant),
        Event::Awake(awake) => self::awake(out, occasion, awake),
        Event::Upstream(upstream) => self::upstream(out, occasion, upstream),
        Event::Downstream(downstream) => self::downstream(out, occasion, downstream),
        Event::Refused(refused) => self::refused(out, occasion, refused),
        Event::Service(service) => self::service(out, occasion, service),
        Event::Dropped(dropped) => self::dropped(out, occasion, dropped),
    }
}

/// What an event belongs to; its own id where there is nothing else.
enum Correlation<'a> {
    Own,
    To(&'a str),
}

fn head(out: &mut impl Fields, occasion: &Occasion<'_>, kind: &str, correlation: &Correlation<'_>) {
    let id = Shown::new(occasion.id);
    out.text(&field::TYPE, kind);
    out.text(&field::ID, id.as_str());
    match correlation {
        Correlation::Own => out.text(&field::CORRELATION_ID, id.as_str()),
        Correlation::To(other) => out.text(&field::CORRELATION_ID, other),
    }
    out.number(&field::TIMESTAMP, occasion.at);
    out.number(&field::TIMEOUT, NEVER);
    out.text(&field::ORIGINATOR_REPLICA_ID, occasion.origin.replica.as_str());
    out.text(&field::INCARNATION, Shown::uuid(&occasion.origin.incarnation).as_str());
}

fn device(out: &mut impl Fields, tenant: &TenantId, device: &DeviceId, app_version: &str) {
    out.text(&field::TENANT, tenant.as_str());
    out.text(&field::ENDPOINT_ID, device.as_str());
    out.text(&field::APP_VERSION_NAME, app_version);
}

fn session(out: &mut impl Fields, info: &SessionInfo, seq: u64) {
    device(out, &info.tenant, &info.device, &info.app_version);
    out.text(&field::SESSION_ID, Shown::uuid(&info.session()).as_str());
    out.number(&field::EPOCH, info.epoch().0);
    out.number(&field::SEQ, seq);
    out.text(&field::TRANSPORT, info.transport.as_str());
}

fn optional(out: &mut impl Fields, field: &field::Field, value: Option<u64>) {
    if let Some(value) = value {
        out.number(field, value);
    }
}

fn address(out: &mut impl Fields, field: &field::Field, value: &SocketAddr) {
    out.text(field, Shown::new(value).as_str());
}

/// The head of a connectivity event of one session, which is what it belongs to.
fn of_session(out: &mut impl Fields, occasion: &Occasion<'_>, kind: &str, info: &SessionInfo, seq: u64) {
    head(out, occasion, kind, &Correlation::To(Shown::uuid(&info.session()).as_str()));
    session(out, info, seq);
}

fn connected(out: &mut impl Fields, occasion: &Occasion<'_>, event: &Connected) {
    of_session(out, occasion, "connected", &event.session, 1);
    out.text(&field::PROTOCOL, event.protocol);
    out.text(&field::REMOTE_ID, &event.remote_id);
    address(out, &field::REMOTE_ADDRESS, &event.remote_address);
    out.text(&field::IDENTIFIED_BY, event.identified_by.as_str());
    optional(out, &field::KEEP_ALIVE_MS, event.keep_alive_ms);
    out.flag(&field::INFERRED, event.inferred);
    if let Some(clean_start) = event.clean_start {
        out.flag(&field::CLEAN_START, clean_start);
    }
}

fn disconnected(out: &mut impl Fields, occasion: &Occasion<'_>, event: &Disconnected) {
    let mut ids = Vec::with_capacity(event.ended.len() * 40);
    super::write::array(&mut ids, &event.ended, |out, ended| {
        super::write::string(out, ended.session.device.as_str());
    });
    if let [ended] = event.ended.as_slice() {
        of_session(out, occasion, "disconnected", &ended.session, ended.seq);
        out.json(&field::ENDPOINT_IDS, &ids);
        self::ended(out, ended);
        return;
    }
    head(out, occasion, "disconnected", &Correlation::Own);
    out.json(&field::ENDPOINT_IDS, &ids);
    let mut sessions = Vec::with_capacity(event.ended.len() * 512);
    super::write::array(&mut sessions, &event.ended, |out, ended| {
        let mut object = JsonObject::onto(std::mem::take(out));
        session(&mut object, &ended.session, ended.seq);
        object.number(&field::TIMESTAMP, ended.at);
        self::ended(&mut object, ended);
        *out = object.into_vec();
    });
    out.json(&field::SESSIONS, &sessions);
}

fn ended(out: &mut impl Fields, event: &Ended) {
    out.text(&field::REASON, event.reason.as_str());
    out.text(&field::INITIATOR, event.initiator.as_str());
    out.flag(&field::INFERRED, event.inferred);
    out.number(&field::CONNECTED_AT, event.connected_at);
    optional(out, &field::LAST_SEEN_AT, event.last_seen_at);
    out.number(&field::DURATION_MS, duration(event.connected_at, event.at));
    if let Some(counters) = &event.counters {
        out.number(&field::MESSAGES_IN, counters.messages_in);
        out.number(&field::MESSAGES_OUT, counters.messages_out);
        out.number(&field::BYTES_IN, counters.bytes_in);
        out.number(&field::BYTES_OUT, counters.bytes_out);
    }
    if let Some(evidence) = &event.evidence {
        out.json(&field::EVIDENCE, &self::evidence(evidence));
    }
    if let Some(detail) = &event.detail {
        out.text(&field::DETAIL, detail);
    }
}

fn evidence(evidence: &Evidence) -> Vec<u8> {
    let mut object = JsonObject::with_capacity(96);
    object.number(&field::INTERVAL_MS, evidence.interval_ms);
    object.number(&field::SILENT_MS, evidence.silent_ms);
    object.decimal(&field::PHI, evidence.phi);
    object.into_vec()
}

fn moved(out: &mut impl Fields, occasion: &Occasion<'_>, event: &Moved) {
    of_session(out, occasion, "moved", &event.session, event.seq);
    address(out, &field::REMOTE_ADDRESS, &event.to);
    address(out, &field::PREVIOUS_ADDRESS, &event.from);
}

fn dormant(out: &mut impl Fields, occasion: &Occasion<'_>, event: &Dormant) {
    of_session(out, occasion, "dormant", &event.session, event.seq);
    out.number(&field::SLEEP_MS, event.sleep_ms);
    out.number(&field::WAKE_BY, event.wake_by);
}

fn awake(out: &mut impl Fields, occasion: &Occasion<'_>, event: &Awake) {
    of_session(out, occasion, "awake", &event.session, event.seq);
    out.number(&field::DORMANT_MS, event.dormant_ms);
}

/// A clock that was set back does not make a session shorter than nothing.
fn duration(from: UnixMs, to: UnixMs) -> u64 {
    to.saturating_sub(from)
}

pub(super) fn upstream(out: &mut impl Fields, occasion: &Occasion<'_>, event: &Upstream) {
    head(out, occasion, "upstream", &Correlation::Own);
    session(out, &event.session, event.seq);
    out.text(&field::MESSAGE_ID, Shown::new(occasion.id).as_str());
    if !event.topic.is_empty() {
        out.text(&field::TOPIC, &event.topic);
    }
    optional(out, &field::QOS, event.qos.map(u64::from));
    if event.retain {
        out.flag(&field::RETAIN, true);
    }
    if event.will {
        out.flag(&field::WILL, true);
    }
    if let Some(content_type) = &event.content_type {
        out.text(&field::CONTENT_TYPE, content_type);
    }
    if !event.properties.is_empty() {
        let mut pairs = Vec::with_capacity(event.properties.len() * 64);
        super::write::array(&mut pairs, &event.properties, |out, (name, value)| {
            out.extend_from_slice(b"{\"name\":");
            super::write::string(out, name);
            out.extend_from_slice(b",\"value\":");
            super::write::string(out, value);
            out.push(b'}');
        });
        out.json(&field::USER_PROPERTIES, &pairs);
    }
    if let Some(publish) = &event.publish {
        self::publish(out, publish);
    }
}

fn publish(out: &mut impl Fields, publish: &PublishProperties) {
    if let Some(topic) = &publish.response_topic {
        out.text(&field::RESPONSE_TOPIC, topic);
    }
    if let Some(data) = &publish.correlation_data {
        out.text(&field::CORRELATION_DATA, &STANDARD.encode(data));
    }
    optional(out, &field::MESSAGE_EXPIRY_MS, publish.expiry_ms);
    if publish.is_utf8 {
        out.text(&field::PAYLOAD_FORMAT, "utf8");
    }
}

fn downstream(out: &mut impl Fields, occasion: &Occasion<'_>, event: &Downstream) {
    head(out, occasion, "downstream", &Correlation::To(event.command.as_str()));
    match &event.session {
        Some((info, seq)) => session(out, info, *seq),
        None => device(out, &event.tenant, &event.device, ""),
    }
    out.text(&field::COMMAND_ID, event.command.as_str());
    out.text(&field::NAME, event.name.as_str());
    out.text(&field::OUTCOME, event.outcome.as_str());
    out.number(&field::LATENCY_MS, event.latency_ms);
    out.number(&field::ATTEMPTS, u64::from(event.attempts));
    if let Some(status) = &event.status {
        out.text(&field::STATUS, status);
    }
}

fn refused(out: &mut impl Fields, occasion: &Occasion<'_>, event: &Refused) {
    head(out, occasion, "refused", &Correlation::Own);
    if let Some((tenant, device)) = &event.device {
        self::device(out, tenant, device, "");
    }
    out.text(&field::TRANSPORT, event.transport.as_str());
    out.text(&field::CAUSE, event.cause.as_str());
    if let Some(detail) = event.detail {
        out.text(&field::DETAIL, detail);
    }
    if let Some(claimed) = &event.claimed {
        out.text(&field::CLAIMED_ID, claimed);
        optional(out, &field::OTHER_CLAIMS, Some(event.other_claims).filter(|others| *others > 0));
    }
    if let Some(topic) = &event.topic {
        out.text(&field::TOPIC, topic);
        optional(out, &field::OTHER_TOPICS, Some(event.other_topics).filter(|others| *others > 0));
    }
    address(out, &field::REMOTE_ADDRESS, &event.remote_address);
    out.number(&field::COUNT, event.count);
    out.number(&field::FIRST_AT, event.first_at);
    out.number(&field::LAST_AT, event.last_at);
}

fn service(out: &mut impl Fields, occasion: &Occasion<'_>, event: &Service) {
    let kind = match event.kind {
        ServiceKind::Join => "join",
        ServiceKind::KeepAlive => "keep-alive",
        ServiceKind::Leave => "leave",
    };
    head(out, occasion, kind, &Correlation::Own);
    out.text(&field::VERSION, event.version);
    out.number(&field::OPEN_SESSIONS, event.sessions);
    out.number(&field::STARTED_AT, event.started_at);
}

fn dropped(out: &mut impl Fields, occasion: &Occasion<'_>, event: &Dropped) {
    head(out, occasion, "events-dropped", &Correlation::Own);
    out.number(&field::DROPPED_SESSIONS, event.sessions);
    out.number(&field::DROPPED_MESSAGES, event.messages);
    let mut gaps = Vec::with_capacity(event.gaps.len() * 96);
    super::write::array(&mut gaps, &event.gaps, |out, gap| {
        let mut object = JsonObject::onto(std::mem::take(out));
        object.text(&field::SESSION_ID, Shown::uuid(&gap.session).as_str());
        object.number(&field::FROM, gap.from);
        object.number(&field::TO, gap.to);
        *out = object.into_vec();
    });
    out.json(&field::GAPS, &gaps);
}

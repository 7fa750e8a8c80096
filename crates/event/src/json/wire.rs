//! Reading what Landfall publishes: strict on types and closed lists, tolerant of fields that a newer gateway adds.
//!
//! Owns: the shape that readers see (`landfall watch`, `landfall verify`, the ledger's fold). Does not own: writing.

mod service;

use std::borrow::Cow;
use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::PayloadEncoding;
use super::write::{JsonObject, array, string, unescape_header};
use crate::avro::{AvroError, Dialect, Endpoints, Kind as AvroKind, Record};
use crate::field::{self, Fields as _, Kind};
use crate::format::FORMAT_HEADER;
use crate::{
    CommandId, CommandName, DeviceId, Epoch, EventId, Format, IdentifiedBy, Incarnation, Initiator, Outcome,
    Reason, RefusedCause, ReplicaId, ServiceKind, SessionId, TenantId, Transport, UnixMs,
};

pub use service::{Dropped, Gap, Service, ServiceDetails};

/// Why a message is not an event that this reader knows.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The body is no JSON, or a field is absent or of the wrong type.
    #[error("is no event: {0}")]
    Json(#[from] serde_json::Error),
    /// The body is no UTF-8.
    #[error("is no event: {0}")]
    Utf8(#[from] std::str::Utf8Error),
    /// The `type` is none of Landfall's.
    #[error("is of the unknown type {0:?}")]
    Type(String),
    /// A header is not what [`crate::encode`] writes.
    #[error("has a bad header {0}")]
    Header(&'static str),
    /// An Avro body is not the record that its headers say.
    #[error("its Avro body {0}")]
    Avro(#[from] AvroError),
    /// An Avro body names other devices than its headers.
    #[error("names other devices in its Avro body than in its headers")]
    Endpoints,
    /// A payload is not written in its encoding.
    #[error("its payload is not {0}")]
    Payload(String),
}

/// An event as a reader sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// What every event has.
    pub head: Head,
    /// What its type adds.
    pub body: Body,
}

/// What every event has.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Head {
    /// The last token of its subject.
    #[serde(rename = "type")]
    pub kind: String,
    /// Unique; also the `Nats-Msg-Id`.
    pub id: EventId,
    /// What the event belongs to: a session, a command, itself.
    pub correlation_id: String,
    /// When it happened.
    pub timestamp: UnixMs,
    /// Milliseconds until it is void; 0 is never.
    pub timeout: u64,
    /// The replica that published it.
    pub originator_replica_id: ReplicaId,
    /// That start of the replica.
    pub incarnation: Incarnation,
}

/// The session that an event belongs to.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Session {
    /// The device's tenant.
    pub tenant: TenantId,
    /// The device.
    pub endpoint_id: DeviceId,
    /// Its application version; "" when unknown.
    pub app_version_name: String,
    /// The session.
    pub session_id: SessionId,
    /// Its place among all sessions of its device.
    pub epoch: Epoch,
    /// The event's number in its session and stream.
    pub seq: u64,
    /// How the device reached the gateway.
    pub transport: Transport,
}

/// What an event's type adds.
#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    /// `connected`.
    Connected(Box<Connected>),
    /// `disconnected`: of one session or of several.
    Disconnected(Vec<Ended>),
    /// `moved`.
    Moved(Box<Moved>),
    /// `dormant`.
    Dormant(Box<Dormant>),
    /// `awake`.
    Awake(Box<Awake>),
    /// `upstream`.
    Upstream(Box<Upstream>),
    /// `downstream`.
    Downstream(Box<Downstream>),
    /// `refused`.
    Refused(Box<Refused>),
    /// `join`, `keep-alive`, `leave`.
    Service(Service),
    /// `events-dropped`.
    Dropped(Dropped),
}

/// `connected`.
#[derive(Clone, Debug, PartialEq)]
pub struct Connected {
    /// The session that began.
    pub session: Session,
    /// How.
    pub details: ConnectedDetails,
}

/// How a session began.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConnectedDetails {
    /// The protocol and its version.
    pub protocol: String,
    /// What the protocol calls the device.
    pub remote_id: String,
    /// `ip:port`.
    pub remote_address: String,
    /// What its identity rests on.
    pub identified_by: IdentifiedBy,
    /// The silence that ends the session.
    pub keep_alive_ms: Option<u64>,
    /// True where the protocol has no connect.
    pub inferred: bool,
    /// MQTT's clean start.
    pub clean_start: Option<bool>,
}

/// One session's end.
#[derive(Clone, Debug, PartialEq)]
pub struct Ended {
    /// The session.
    pub session: Session,
    /// How it ended.
    pub details: EndedDetails,
}

/// How a session ended.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndedDetails {
    /// When the session ended.
    pub timestamp: UnixMs,
    /// Why.
    pub reason: Reason,
    /// Who ended it.
    pub initiator: Initiator,
    /// True when the end was concluded from silence or from a dead gateway.
    pub inferred: bool,
    /// When the session began.
    pub connected_at: UnixMs,
    /// When the device was last heard.
    pub last_seen_at: Option<UnixMs>,
    /// How long the session lasted.
    pub duration_ms: u64,
    /// Messages from the device.
    pub messages_in: Option<u64>,
    /// Messages to the device.
    pub messages_out: Option<u64>,
    /// Payload bytes from the device.
    pub bytes_in: Option<u64>,
    /// Payload bytes to the device.
    pub bytes_out: Option<u64>,
    /// Why the silence counted as the end, where the device's own habit decided.
    pub evidence: Option<Evidence>,
    /// The rule that the device broke, where it broke its protocol.
    pub detail: Option<String>,
}

/// What a silence was measured against.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Evidence {
    /// The device's usual interval.
    pub interval_ms: u64,
    /// How long it had been silent.
    pub silent_ms: u64,
    /// Minus the decimal logarithm of the probability of so long a silence.
    pub phi: f64,
}

/// `moved`.
#[derive(Clone, Debug, PartialEq)]
pub struct Moved {
    /// The session, which goes on.
    pub session: Session,
    /// From where to where.
    pub details: MovedDetails,
}

/// From where to where a device moved.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MovedDetails {
    /// Where it is heard now: `ip:port`.
    pub remote_address: String,
    /// Where it was heard before: `ip:port`.
    pub previous_address: String,
}

/// `dormant`.
#[derive(Clone, Debug, PartialEq)]
pub struct Dormant {
    /// The session, which goes on.
    pub session: Session,
    /// For how long.
    pub details: DormantDetails,
}

/// For how long a device sleeps.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DormantDetails {
    /// How long it said that it would.
    pub sleep_ms: u64,
    /// When the session ends unless it is heard before.
    pub wake_by: UnixMs,
}

/// `awake`.
#[derive(Clone, Debug, PartialEq)]
pub struct Awake {
    /// The session, which goes on.
    pub session: Session,
    /// After how long.
    pub details: AwakeDetails,
}

/// After how long a device woke.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AwakeDetails {
    /// How long it was dormant.
    pub dormant_ms: u64,
}

/// A payload or a response, decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload {
    /// How it stood in the event.
    pub encoding: PayloadEncoding,
    /// Its bytes; of a JSON value without the white space around it.
    pub bytes: Vec<u8>,
}

/// `upstream`.
#[derive(Clone, Debug, PartialEq)]
pub struct Upstream {
    /// The session that sent it.
    pub session: Session,
    /// What came with it.
    pub details: UpstreamDetails,
    /// What the device sent.
    pub payload: Payload,
}

/// What comes with a message.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UpstreamDetails {
    /// The event's id.
    pub message_id: EventId,
    /// MQTT topic or CoAP path; "" where the protocol has none.
    #[serde(default)]
    pub topic: String,
    /// MQTT quality of service.
    pub qos: Option<u8>,
    /// The device asked that it be retained.
    #[serde(default)]
    pub retain: bool,
    /// The gateway sends it in the device's name, as its will.
    #[serde(default)]
    pub will: bool,
    /// The content type that the device named.
    pub content_type: Option<String>,
    /// MQTT 5 user properties, in order.
    #[serde(default)]
    pub user_properties: Vec<UserProperty>,
    /// MQTT 5: where the device expects an answer.
    pub response_topic: Option<String>,
    /// MQTT 5: what the answer is to bring with it, in Base64.
    pub correlation_data: Option<String>,
    /// MQTT 5: for how long the message is of use, by its sender.
    pub message_expiry_ms: Option<u64>,
    /// MQTT 5: `utf8` where the device says that the payload is text.
    pub payload_format: Option<String>,
}

/// One MQTT 5 user property.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct UserProperty {
    /// Its name; names may come again.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// `downstream`.
#[derive(Clone, Debug, PartialEq)]
pub struct Downstream {
    /// What became of the command.
    pub details: DownstreamDetails,
    /// The session that it went to.
    pub session: Option<Session>,
    /// The device's answer.
    pub response: Option<Payload>,
}

/// What became of a command.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DownstreamDetails {
    /// The device's tenant.
    pub tenant: TenantId,
    /// The device.
    pub endpoint_id: DeviceId,
    /// The command.
    pub command_id: CommandId,
    /// Its name.
    pub name: CommandName,
    /// What became of it.
    pub outcome: Outcome,
    /// From the command's arrival to its outcome.
    pub latency_ms: u64,
    /// How often it was sent.
    pub attempts: u32,
    /// The device's status of its answer, or a word on why the outcome is what it is.
    pub status: Option<String>,
}

/// `refused`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Refused {
    /// The device's tenant, where proven.
    pub tenant: Option<TenantId>,
    /// The device, where proven.
    pub endpoint_id: Option<DeviceId>,
    /// How the attempts came.
    pub transport: Transport,
    /// Why they were turned away.
    pub cause: RefusedCause,
    /// What was wrong.
    pub detail: Option<String>,
    /// What the first called itself, unproven.
    pub claimed_id: Option<String>,
    /// How many gave another name.
    #[serde(default)]
    pub other_claims: u64,
    /// The first topic that was denied.
    pub topic: Option<String>,
    /// How many were denied another one.
    #[serde(default)]
    pub other_topics: u64,
    /// Where the last of them came from: `ip:port`.
    pub remote_address: String,
    /// How many.
    pub count: u64,
    /// When the first of them came.
    pub first_at: UnixMs,
    /// When the last of them came.
    pub last_at: UnixMs,
}

/// Reads a JSON body.
///
/// # Errors
/// What [`WireError`] lists, and nothing by panic, whatever the bytes are.
pub fn decode(body: &[u8]) -> Result<Event, WireError> {
    let text = std::str::from_utf8(body)?;
    let head: Head = serde_json::from_str(text)?;
    let body = match head.kind.as_str() {
        "connected" => Body::Connected(Box::new(Connected {
            session: serde_json::from_str(text)?,
            details: serde_json::from_str(text)?,
        })),
        "disconnected" => Body::Disconnected(disconnected(text)?),
        "moved" => Body::Moved(Box::new(Moved {
            session: serde_json::from_str(text)?,
            details: serde_json::from_str(text)?,
        })),
        "dormant" => Body::Dormant(Box::new(Dormant {
            session: serde_json::from_str(text)?,
            details: serde_json::from_str(text)?,
        })),
        "awake" => Body::Awake(Box::new(Awake {
            session: serde_json::from_str(text)?,
            details: serde_json::from_str(text)?,
        })),
        "upstream" => Body::Upstream(Box::new(upstream(text)?)),
        "downstream" => Body::Downstream(Box::new(downstream(text)?)),
        "refused" => Body::Refused(serde_json::from_str(text)?),
        "join" => service(ServiceKind::Join, text)?,
        "keep-alive" => service(ServiceKind::KeepAlive, text)?,
        "leave" => service(ServiceKind::Leave, text)?,
        "events-dropped" => Body::Dropped(serde_json::from_str(text)?),
        _ => return Err(WireError::Type(head.kind)),
    };
    Ok(Event { head, body })
}

fn service(kind: ServiceKind, text: &str) -> Result<Body, WireError> {
    Ok(Body::Service(Service { kind, details: serde_json::from_str(text)? }))
}

fn disconnected(text: &str) -> Result<Vec<Ended>, WireError> {
    #[derive(Deserialize)]
    struct Many<'a> {
        #[serde(borrow)]
        sessions: Option<Vec<&'a RawValue>>,
    }
    let one = |text| Ok(Ended { session: serde_json::from_str(text)?, details: serde_json::from_str(text)? });
    match serde_json::from_str::<Many<'_>>(text)?.sessions {
        None => Ok(vec![one(text)?]),
        Some(many) => many.into_iter().map(|entry| one(entry.get())).collect(),
    }
}

fn upstream(text: &str) -> Result<Upstream, WireError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Embedded<'a> {
        #[serde(borrow)]
        payload: &'a RawValue,
        payload_encoding: Cow<'a, str>,
    }
    let embedded: Embedded<'_> = serde_json::from_str(text)?;
    Ok(Upstream {
        session: serde_json::from_str(text)?,
        details: serde_json::from_str(text)?,
        payload: payload(embedded.payload, &embedded.payload_encoding)?,
    })
}

fn downstream(text: &str) -> Result<Downstream, WireError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Optional<'a> {
        session_id: Option<SessionId>,
        #[serde(borrow)]
        response: Option<&'a RawValue>,
        response_encoding: Option<Cow<'a, str>>,
    }
    let optional: Optional<'_> = serde_json::from_str(text)?;
    let response = match (optional.response, optional.response_encoding) {
        (Some(value), Some(encoding)) => Some(payload(value, &encoding)?),
        // A response that is JSON's null reads like an absent one, but its encoding is there.
        (None, Some(encoding)) if encoding == PayloadEncoding::Json.as_str() => {
            Some(Payload { encoding: PayloadEncoding::Json, bytes: b"null".to_vec() })
        }
        (None, None) => None,
        _ => return Err(WireError::Payload("given with its encoding".to_owned())),
    };
    let session = optional.session_id.map(|_| serde_json::from_str(text)).transpose()?;
    Ok(Downstream { details: serde_json::from_str(text)?, session, response })
}

fn payload(value: &RawValue, encoding: &str) -> Result<Payload, WireError> {
    let (encoding, bytes) = match encoding {
        "json" => (PayloadEncoding::Json, value.get().as_bytes().to_vec()),
        "utf8" => (PayloadEncoding::Utf8, serde_json::from_str::<String>(value.get())?.into_bytes()),
        "base64" => {
            let text: String = serde_json::from_str(value.get())?;
            let bytes =
                STANDARD.decode(text).map_err(|error| WireError::Payload(format!("Base64: {error}")))?;
            (PayloadEncoding::Base64, bytes)
        }
        other => return Err(WireError::Payload(format!("in the encoding {other:?}"))),
    };
    Ok(Payload { encoding, bytes })
}

/// The event as a JSON document, whatever its format: a JSON body as it is, an Avro body or a raw payload put together
/// with its `Landfall-*` headers. `header` looks a header up by its name.
///
/// # Errors
/// As [`read`]; but a JSON body is not looked at.
pub fn to_json<'a, 'h>(
    header: impl Fn(&str) -> Option<&'h str>,
    body: &'a [u8],
) -> Result<Cow<'a, [u8]>, WireError> {
    let Some(kind) = header(field::TYPE.header) else { return Ok(Cow::Borrowed(body)) };
    let mut object = JsonObject::with_capacity(1024 + body.len());
    for field in field::ALL {
        let Some(value) = header(field.header) else { continue };
        let bad = || WireError::Header(field.header);
        match field.kind {
            Kind::Text => object.text(field, &unescape_header(value).ok_or_else(bad)?),
            Kind::Number => object.number(field, value.parse().map_err(|_| bad())?),
            Kind::Flag => object.flag(field, value.parse().map_err(|_| bad())?),
            Kind::Json => {
                let text = unescape_header(value).ok_or_else(bad)?;
                let value: &RawValue = serde_json::from_str(&text).map_err(|_| bad())?;
                object.json(field, value.get().as_bytes());
            }
            Kind::Body => {}
        }
    }
    match header(FORMAT_HEADER) {
        None => object.payload(&field::PAYLOAD, body),
        Some(format) => {
            let ids = endpoint_ids(&header, &avro_endpoints(format, kind, body)?)?;
            if kind == "disconnected" {
                object.json(&field::ENDPOINT_IDS, &ids);
            }
        }
    }
    Ok(Cow::Owned(object.into_vec()))
}

fn avro_endpoints(format: &str, kind: &str, body: &[u8]) -> Result<Endpoints, WireError> {
    let dialect = match format.parse() {
        Ok(Format::Kaa2017) => Dialect::Kaa2017,
        Ok(Format::KaaElce) => Dialect::KaaElce,
        Ok(Format::Json) | Err(_) => return Err(WireError::Header(FORMAT_HEADER)),
    };
    let kind = match kind {
        "connected" => AvroKind::Connected,
        "disconnected" => AvroKind::Disconnected,
        other => return Err(WireError::Type(other.to_owned())),
    };
    Ok(Record::decode(dialect, kind, body)?.endpoints)
}

/// The devices that the headers name, in their order; they must be those of the Avro body.
fn endpoint_ids<'h>(
    header: &impl Fn(&str) -> Option<&'h str>,
    endpoints: &Endpoints,
) -> Result<Vec<u8>, WireError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Named {
        endpoint_id: String,
    }
    let text = |field: &field::Field| header(field.header).and_then(unescape_header);
    let named = match text(&field::SESSIONS) {
        Some(sessions) => serde_json::from_str(&sessions)?,
        None => {
            text(&field::ENDPOINT_ID).into_iter().map(|endpoint_id| Named { endpoint_id }).collect::<Vec<_>>()
        }
    };
    let in_headers: BTreeSet<&str> = named.iter().map(|one| one.endpoint_id.as_str()).collect();
    if in_headers != endpoints.ids().into_iter().collect() {
        return Err(WireError::Endpoints);
    }
    let mut ids = Vec::new();
    array(&mut ids, &named, |out, one| string(out, &one.endpoint_id));
    Ok(ids)
}

/// Reads an event in any format that Landfall publishes. `header` looks a header up by its name.
///
/// # Errors
/// What [`WireError`] lists, and nothing by panic, whatever the bytes are.
pub fn read<'h>(header: impl Fn(&str) -> Option<&'h str>, body: &[u8]) -> Result<Event, WireError> {
    let raw = header(field::TYPE.header).is_some() && header(FORMAT_HEADER).is_none();
    let mut event = decode(&to_json(header, body)?)?;
    if let (true, Body::Upstream(upstream)) = (raw, &mut event.body) {
        upstream.payload = Payload { encoding: PayloadEncoding::Raw, bytes: body.to_vec() };
    }
    Ok(event)
}

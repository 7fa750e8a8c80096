//! Landfall's vocabulary: who a device is, what can happen to it, and how that is written on the wire.
//!
//! Owns: ids, reasons, the one event enum, the NATS subjects, the JSON and Avro encodings, topic filters.
//! Does not own: when an event happens (`landfall-session`, the protocol cores) or how it travels (`landfall-nats`).
//! Pure: no clock, socket, task or randomness.

pub mod avro;
mod event;
mod field;
mod filter;
mod format;
mod id;
pub mod json;
mod memo;
mod reason;
mod reissue;
pub mod subject;

pub use event::{
    Awake, Connected, Counters, Describe, Disconnected, Dormant, Downstream, Dropped, Ended, Event, EventId,
    Evidence, Gap, Identity, Moved, Occasion, Origin, PublishProperties, Refused, Service, ServiceKind,
    SessionInfo, SessionRef, Stream, Upstream,
};
pub use field::header_name;
pub use filter::{MAX_LEVELS, MAX_TOPIC, TopicError, TopicFilter, check_topic_name, topic_of};
pub use format::{Encoded, Format, UnknownFormat, encode};
pub use id::{
    CommandId, CommandName, DeviceId, Epoch, IdError, Incarnation, InstanceName, ReplicaId, SessionId,
    TenantId, UnixMs,
};
pub use json::{encode_raw_upstream, wire};
pub use memo::Memo;
pub use reason::{Family, IdentifiedBy, Initiator, Outcome, Reason, RefusedCause, RefusedDetail, Transport};
pub use reissue::{Fate, Renewal, reissue};
pub use subject::Subjects;

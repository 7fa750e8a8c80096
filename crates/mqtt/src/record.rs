//! How a session and a waiting command are written into the `SessionStore`.
//!
//! Owns: the stored form, its version, and reading it back. Does not own: the store.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use landfall_event::{DeviceId, TenantId, UnixMs};
use landfall_hub::{Command, StoredQueue, Wait};
use landfall_mqtt_core::SessionState;
use serde::{Deserialize, Serialize};

use crate::flights::FlightRecord;

/// The only version of both records so far.
const VERSION: u32 = 1;

/// A record that cannot be read back.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecordError {
    #[error("not the record's JSON: {0}")]
    Json(#[from] serde_json::Error),
    #[error("version {0} is not known, only {VERSION} is")]
    Version(u32),
    #[error("field {0} is not valid")]
    Field(&'static str),
}

/// A persistent session.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SessionRecord {
    version: u32,
    pub(crate) state: SessionState,
    /// Seconds that the session outlives its connection.
    pub(crate) expiry_s: u32,
    /// When its connection ended; absent while one holds it, and so after a crash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) left_at: Option<UnixMs>,
    /// The commands that the device has or may get, and that have no outcome.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) flights: Vec<FlightRecord>,
}

impl SessionRecord {
    pub(crate) fn new(state: SessionState, expiry_s: u32, left_at: Option<UnixMs>) -> Self {
        Self { version: VERSION, state, expiry_s, left_at, flights: Vec::new() }
    }

    /// With the commands that are under way.
    pub(crate) fn with(self, flights: Vec<FlightRecord>) -> Self {
        Self { flights, ..self }
    }

    /// The stored bytes; `None` when the state cannot be written, which no state is known to be.
    pub(crate) fn encode(&self) -> Option<Bytes> {
        // Boxed: a connection remembers the bytes for as long as it lives.
        serde_json::to_vec(self).ok().map(|bytes| Bytes::from(bytes.into_boxed_slice()))
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let record: Self = serde_json::from_slice(bytes)?;
        if record.version == VERSION { Ok(record) } else { Err(RecordError::Version(record.version)) }
    }

    /// When the session ends if its device stays away. After a crash, the absence begins `now`.
    pub(crate) fn expires_at(&self, now: UnixMs) -> UnixMs {
        self.left_at.unwrap_or(now).saturating_add(u64::from(self.expiry_s) * 1000)
    }
}

/// A command in a device's offline queue.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct QueuedCommand {
    version: u32,
    pub(crate) id: String,
    name: String,
    wait: Wait,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    topic: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    content_type: Option<String>,
    /// Base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    correlation_data: Option<String>,
    /// Base64.
    payload: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reply: Option<String>,
    pub(crate) received_at: UnixMs,
    expires_at: UnixMs,
}

impl QueuedCommand {
    pub(crate) fn new(command: &Command) -> Self {
        Self { payload: STANDARD.encode(&command.payload), ..Self::without_payload(command) }
    }

    /// Of one whose payload is kept elsewhere.
    pub(crate) fn without_payload(command: &Command) -> Self {
        let owned = |text: &Option<std::sync::Arc<str>>| text.as_deref().map(str::to_owned);
        Self {
            version: VERSION,
            id: command.id.to_string(),
            name: command.name.to_string(),
            wait: command.wait,
            topic: owned(&command.topic),
            content_type: owned(&command.content_type),
            correlation_data: command.correlation_data.as_ref().map(|data| STANDARD.encode(data)),
            payload: String::new(),
            reply: owned(&command.reply),
            received_at: command.received_at,
            expires_at: command.expires_at,
        }
    }

    pub(crate) fn encode(&self) -> Option<Bytes> {
        serde_json::to_vec(self).ok().map(Bytes::from)
    }

    pub(crate) fn decode(stored: &StoredQueue) -> Result<Command, RecordError> {
        let record: Self = serde_json::from_slice(&stored.entry)?;
        record.command(stored.tenant.clone(), stored.device.clone())
    }

    /// The device's command again.
    pub(crate) fn command(self, tenant: TenantId, device: DeviceId) -> Result<Command, RecordError> {
        let record = self;
        if record.version != VERSION {
            return Err(RecordError::Version(record.version));
        }
        Ok(Command {
            tenant,
            device,
            id: record.id.parse().map_err(|_| RecordError::Field("id"))?,
            name: record.name.parse().map_err(|_| RecordError::Field("name"))?,
            wait: record.wait,
            topic: record.topic.map(Into::into),
            content_type: record.content_type.map(Into::into),
            correlation_data: decode(record.correlation_data, "correlation_data")?,
            payload: decode(Some(record.payload), "payload")?.unwrap_or_default(),
            reply: record.reply.map(Into::into),
            received_at: record.received_at,
            expires_at: record.expires_at,
        })
    }
}

fn decode(text: Option<String>, field: &'static str) -> Result<Option<Bytes>, RecordError> {
    text.map(|text| STANDARD.decode(text).map(Bytes::from).map_err(|_| RecordError::Field(field))).transpose()
}

//! A session as an operator sees it.

use landfall_event::{Counters, UnixMs};
use landfall_session::{Tick, Vitals};
use serde::{Deserialize, Serialize};

use crate::session::Session;

/// One open session; the field names are those of the events.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionView {
    /// The device's tenant.
    pub tenant: String,
    /// The device.
    pub endpoint_id: String,
    /// The session.
    pub session_id: String,
    /// Its epoch.
    pub epoch: u64,
    /// How the device reached the gateway.
    pub transport: String,
    /// The protocol and its version.
    pub protocol: String,
    /// What the protocol calls the device.
    pub remote_id: String,
    /// Where it connects from.
    pub remote_address: String,
    /// What its identity rests on.
    pub identified_by: String,
    /// The silence that ends the session, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_alive_ms: Option<u64>,
    /// When it began, Unix ms.
    pub connected_at: UnixMs,
    /// When the device was last heard, Unix ms.
    pub last_seen_at: UnixMs,
    /// Messages from the device.
    pub messages_in: u64,
    /// Messages to the device.
    pub messages_out: u64,
    /// Payload bytes from the device.
    pub bytes_in: u64,
    /// Payload bytes to the device.
    pub bytes_out: u64,
}

impl SessionView {
    pub(crate) fn new(session: &Session, vitals: &Vitals, tick: Tick, unix: UnixMs) -> Self {
        let Counters { messages_in, messages_out, bytes_in, bytes_out } = vitals.counters();
        Self {
            tenant: session.info.tenant.to_string(),
            endpoint_id: session.info.device.to_string(),
            session_id: session.info.session.to_string(),
            epoch: session.info.epoch.0,
            transport: session.info.transport.to_string(),
            protocol: session.protocol.to_owned(),
            remote_id: session.remote_id.to_string(),
            remote_address: session.remote_address.to_string(),
            identified_by: session.identified_by().to_string(),
            keep_alive_ms: session.keep_alive_ms,
            connected_at: session.opened_at,
            last_seen_at: unix
                .saturating_sub(tick.saturating_sub(vitals.last_seen()))
                .max(session.opened_at.min(unix)),
            messages_in,
            messages_out,
            bytes_in,
            bytes_out,
        }
    }
}

//! A session as an operator sees it.

use landfall_event::{Counters, UnixMs};
use std::net::SocketAddr;
use std::sync::Arc;

use landfall_session::{Live, Tick};
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
    /// True while the device sleeps as it announced; its `keepAliveMs` allows for that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dormant: Option<bool>,
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
    pub(crate) fn new(live: &Live<'_, Arc<Session>>, tick: Tick, unix: UnixMs) -> Self {
        let session = live.tag;
        let Counters { messages_in, messages_out, bytes_in, bytes_out } = session.vitals.counters();
        let (remote, asleep, protocol, identified_by, remote_id) = {
            let lane = session.lane.lock();
            (
                lane.remote,
                lane.asleep().is_some(),
                lane.protocol,
                lane.identified_by,
                session.remote_id(&lane),
            )
        };
        Self {
            tenant: session.info.tenant.to_string(),
            endpoint_id: session.info.device.to_string(),
            session_id: session.info.session().to_string(),
            epoch: session.info.epoch().0,
            transport: session.info.transport.to_string(),
            protocol: protocol.as_str().to_owned(),
            remote_id: remote_id.to_string(),
            remote_address: SocketAddr::from(remote).to_string(),
            identified_by: identified_by.to_string(),
            keep_alive_ms: live.terms.silence_ms,
            dormant: asleep.then_some(true),
            connected_at: session.opened_at(),
            last_seen_at: unix
                .saturating_sub(tick.saturating_sub(session.vitals.last_seen()))
                .max(session.opened_at().min(unix)),
            messages_in,
            messages_out,
            bytes_in,
            bytes_out,
        }
    }
}

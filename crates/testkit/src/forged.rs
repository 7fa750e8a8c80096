//! Events as a gateway would tell them, made by hand.
//!
//! Owns: whatever is in them that a test of histories does not care about. Does not own: when one is told, and in which order.

use bytes::Bytes;
use landfall_event::{
    Connected, Ended, Event, IdentifiedBy, Identity, Reason, SessionInfo, SessionRef, Transport, Upstream,
};

/// A session of a device of the default tenant.
///
/// # Panics
/// When that is no device's name.
pub fn session(device: &str, identity: Identity, transport: Transport) -> SessionRef {
    SessionRef::from(SessionInfo {
        tenant: "default".parse().unwrap(),
        device: device.parse().unwrap(),
        app_version: "".into(),
        identity,
        transport,
    })
}

/// Its beginning.
pub fn connected(session: &SessionRef) -> Event {
    Event::Connected(Connected {
        session: session.clone(),
        protocol: "MQTT/5.0",
        remote_id: "x".into(),
        remote_address: ([127, 0, 0, 1], 7).into(),
        identified_by: IdentifiedBy::Anonymous,
        keep_alive_ms: None,
        inferred: false,
        clean_start: None,
    })
}

/// Its end, by the device.
pub fn ended(session: &SessionRef, seq: u64, at: u64) -> Ended {
    let reason = Reason::ClientClosed;
    Ended {
        session: session.clone(),
        seq,
        reason,
        initiator: reason.initiator(),
        inferred: false,
        connected_at: session.session().began_at(),
        last_seen_at: None,
        at,
        counters: None,
        evidence: None,
        detail: None,
    }
}

/// A message of it.
pub fn upstream(session: &SessionRef, seq: u64, payload: impl Into<Bytes>) -> Upstream {
    Upstream {
        session: session.clone(),
        seq,
        topic: "t".into(),
        qos: Some(1),
        retain: false,
        will: false,
        content_type: None,
        properties: Vec::new(),
        publish: None,
        payload: payload.into(),
    }
}

//! What is kept beside an event until it is stored, so that its message is known again when its device sends it once more.
//!
//! Owns: the fields and their form. Does not own: what makes them and what they mean (`landfall-mqtt-core`), where they are kept
//! (`landfall-nats`).

use serde::{Deserialize, Serialize};

/// A QoS 2 message of a session that outlives its connection. Nothing of it is part of the event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Memo {
    /// The number of the MQTT session.
    pub session: u64,
    /// The message's own in that session; a later message has a higher one.
    pub number: u64,
    /// Its packet id.
    pub packet_id: u16,
    /// The keyed hash of topic and payload.
    pub mark: u64,
}

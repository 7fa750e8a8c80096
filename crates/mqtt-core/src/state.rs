//! What outlives a connection: the session state of MQTT 5.0 section 4.1.

use serde::{Deserialize, Serialize};

use crate::{DeliveryToken, Message, QoS, Subscription};

/// A session without a connection: what `session_state` gives and `accept` takes. Serialise it to keep it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionState {
    /// The subscriptions.
    pub subscriptions: Vec<Subscription>,
    /// Packet ids of QoS 2 messages that were stored and not yet released by a PUBREL.
    #[serde(default)]
    pub(crate) received: Vec<u16>,
    /// Messages to the client that it has not finished with, in the order of sending.
    #[serde(default)]
    pub(crate) in_flight: Vec<InFlight>,
    #[serde(default)]
    pub(crate) last_packet_id: u16,
    #[serde(default)]
    pub(crate) last_token: u64,
}

impl SessionState {
    /// The QoS that a message of this topic would be sent with at most; `None` if no subscription matches. Tells whether a
    /// message is worth queueing while the client is away.
    pub fn granted(&self, topic: &str) -> Option<QoS> {
        self.subscriptions.iter().filter(|s| s.filter.matches(topic)).map(|s| s.qos).max()
    }

    /// The messages under way whose receipt the client has not confirmed.
    pub fn in_flight(&self) -> impl Iterator<Item = (DeliveryToken, &Message)> {
        self.in_flight.iter().filter_map(|f| f.message.as_ref().map(|m| (f.token, &**m)))
    }

    /// Takes the seconds that the session waited off the messages' expiry [MQTT-3.3.2-6]. Their delivery had begun, so none
    /// is dropped.
    pub fn wait(&mut self, seconds: u32) {
        for left in self.in_flight.iter_mut().filter_map(|f| f.message.as_mut()?.message_expiry.as_mut()) {
            *left = left.saturating_sub(seconds);
        }
    }
}

/// How far a message to the client has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Stage {
    /// PUBLISH is due: a resumed session, and the window is full.
    Due,
    /// PUBLISH was sent: waiting for PUBACK or PUBREC.
    Published,
    /// PUBREC came and PUBREL was sent: waiting for PUBCOMP. The message itself is gone.
    Released,
}

/// One QoS 1 or 2 message to the client that it has not finished with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct InFlight {
    pub(crate) token: DeliveryToken,
    pub(crate) packet_id: u16,
    pub(crate) qos: QoS,
    pub(crate) stage: Stage,
    /// It holds a share of the client's Receive Maximum on this connection.
    #[serde(skip)]
    pub(crate) counted: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) message: Option<Box<Message>>,
}

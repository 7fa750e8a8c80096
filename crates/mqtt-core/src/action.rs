//! What the machine tells its shell: an [`Action`] and the parts of each.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use landfall_event::Reason;

use crate::subscribe::SubscribeRequest;
use crate::{DeliveryToken, Fault, QoS, Token, UserProperties, Version};

/// One thing that the client's bytes mean.
#[derive(Debug)]
pub enum Action {
    /// The client asks to be let in: answer with `accept` or `refuse`. Nothing more is read until then.
    Connect(Box<ConnectRequest>),
    /// A message from the client: store it, then call `stored` or `publish_failed`.
    Publish(Inbound),
    /// The client asks for subscriptions: decide, then call `subscribed`.
    Subscribe(SubscribeRequest),
    /// Subscriptions were removed and UNSUBACK is in `out`: the session state has changed.
    Unsubscribed,
    /// A message to the client reached its end.
    Acknowledged(DeliveryToken, Ack),
    /// After [`Delivery::Full`]: there is room again.
    WindowOpened,
    /// The client said goodbye. Nothing more is read.
    Disconnect(Goodbye),
    /// The client broke the protocol. Send what is in `out`, then close. Nothing more is read.
    Fault(Fault),
}

/// A valid CONNECT.
#[derive(Clone, PartialEq, Eq)]
pub struct ConnectRequest {
    /// The protocol version.
    pub version: Version,
    /// The client id as sent; may be empty (then the shell makes one). Unchecked beyond UTF-8 without U+0000.
    pub client_id: Arc<str>,
    /// Clean Start (5.0) or Clean Session (3.1.1).
    pub clean_start: bool,
    /// Seconds; 0 for none. What holds in the end: `Connection::keep_alive`.
    pub keep_alive: u16,
    /// The user name.
    pub username: Option<Arc<str>>,
    /// The password: a secret, left out of `Debug`.
    pub password: Option<Bytes>,
    /// The will.
    pub will: Option<Will>,
    /// Seconds that the session is to outlive the connection, `u32::MAX` for ever. 3.1.1: 0 with a clean session, else for
    /// ever. What holds in the end: `Connection::session_expiry`.
    pub session_expiry: u32,
    /// User properties (5.0).
    pub user_properties: UserProperties,
}

impl fmt::Debug for ConnectRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectRequest")
            .field("version", &self.version)
            .field("client_id", &self.client_id)
            .field("clean_start", &self.clean_start)
            .field("keep_alive", &self.keep_alive)
            .field("username", &self.username)
            .field("password", &self.password.as_ref().map(|_| ".."))
            .field("will", &self.will)
            .field("session_expiry", &self.session_expiry)
            .field("user_properties", &self.user_properties)
            .finish()
    }
}

/// The message that a client leaves behind in case it vanishes; its topic name, QoS and payload format are checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Will {
    /// The topic name.
    pub topic: Arc<str>,
    /// The payload.
    pub payload: Bytes,
    /// Its quality of service.
    pub qos: QoS,
    /// The client asks that it be retained.
    pub retain: bool,
    /// Seconds to wait after the connection's end (5.0), and no longer than the session lives [MQTT-3.1.3-9].
    pub delay: u32,
    /// Content Type (5.0).
    pub content_type: Option<Arc<str>>,
    /// Response Topic (5.0), a valid topic name.
    pub response_topic: Option<Arc<str>>,
    /// Correlation Data (5.0).
    pub correlation_data: Option<Bytes>,
    /// User properties (5.0).
    pub user_properties: UserProperties,
    /// Message Expiry Interval (5.0) in seconds.
    pub message_expiry: Option<u32>,
    /// Payload Format Indicator 1: the payload is UTF-8, and that was checked.
    pub payload_is_utf8: bool,
}

/// A message from the client. `payload` and `correlation_data` are slices of the input buffer: keep them long and they keep
/// that buffer alive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inbound {
    /// Names the message in `stored` and `publish_failed`.
    pub token: Token,
    /// The topic name, its alias resolved.
    pub topic: Arc<str>,
    /// The payload, untouched.
    pub payload: Bytes,
    /// Its quality of service.
    pub qos: QoS,
    /// The client asks that it be retained; nothing is.
    pub retain: bool,
    /// The client may have sent it before.
    pub dup: bool,
    /// Content Type (5.0).
    pub content_type: Option<Arc<str>>,
    /// Response Topic (5.0), a valid topic name.
    pub response_topic: Option<Arc<str>>,
    /// Correlation Data (5.0).
    pub correlation_data: Option<Bytes>,
    /// User properties (5.0).
    pub user_properties: UserProperties,
    /// Message Expiry Interval (5.0) in seconds.
    pub message_expiry: Option<u32>,
    /// Payload Format Indicator 1: the payload is UTF-8, and that was checked.
    pub payload_is_utf8: bool,
}

/// How a message to the client ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ack {
    /// PUBACK or PUBCOMP.
    Done,
    /// PUBACK or PUBREC with a reason code of 0x80 or above (5.0): the client has it and does not take it.
    Refused(u8),
    /// On resume: larger than the client's Maximum Packet Size has become, so dropped [MQTT-3.1.2-25].
    TooLarge,
    /// After a resume: its time was over before it could be sent again ([`crate::Connection::lapse`]).
    Lapsed,
}

/// What became of a message handed to `deliver`.
#[derive(Debug, PartialEq, Eq)]
pub enum Delivery {
    /// It is in `out`.
    Sent {
        /// The quality of service that it was sent with.
        qos: QoS,
        /// Comes back in [`Action::Acknowledged`]; `None` for QoS 0.
        token: Option<DeliveryToken>,
    },
    /// No subscription of the session matches its topic.
    NotSubscribed(crate::Message),
    /// As many messages are in flight as may be: wait for [`Action::WindowOpened`] and try again.
    Full(crate::Message),
    /// It is larger than the client takes [MQTT-3.1.2-24] and was dropped.
    TooLarge,
    /// Its topic is no topic name, or one of its texts is longer than 65,535 bytes: it can never be sent.
    Invalid,
    /// There is no accepted connection, or no longer.
    Closed(crate::Message),
}

/// The client's DISCONNECT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Goodbye {
    /// The reason code; 0 on 3.1.1.
    pub code: u8,
    /// The will is to be published: the code is not 0 [MQTT-3.14.4-3].
    pub with_will: bool,
    /// Seconds that the session lives on, as changed by the DISCONNECT.
    pub session_expiry: u32,
}

impl Goodbye {
    /// The `disconnected` reason.
    pub fn reason(self) -> Reason {
        Reason::ClientClosed
    }
}

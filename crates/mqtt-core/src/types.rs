//! The words of the protocol: version, quality of service, texts, tokens.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The protocol version that a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Version {
    /// MQTT 3.1 (`MQIsdp`), protocol level 3: held to the rules of 3.1.1 but where it has its own.
    V31,
    /// MQTT 3.1.1, protocol level 4.
    V311,
    /// MQTT 5.0, protocol level 5.
    V5,
}

impl Version {
    /// The name in the `protocol` field of a `connected` event.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V31 => "MQTT/3.1",
            Self::V311 => "MQTT/3.1.1",
            Self::V5 => "MQTT/5.0",
        }
    }

    /// Has it properties, reason codes and a DISCONNECT from the server? The earlier versions have none of them.
    pub fn is_5(self) -> bool {
        self == Self::V5
    }
}

/// Quality of service (MQTT 5.0 section 4.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub enum QoS {
    /// 0: sent once, never acknowledged.
    #[default]
    AtMostOnce,
    /// 1: acknowledged by PUBACK.
    AtLeastOnce,
    /// 2: PUBREC, PUBREL, PUBCOMP.
    ExactlyOnce,
}

impl QoS {
    /// 0, 1 or 2.
    pub fn level(self) -> u8 {
        match self {
            Self::AtMostOnce => 0,
            Self::AtLeastOnce => 1,
            Self::ExactlyOnce => 2,
        }
    }

    /// Reads 0, 1 or 2; 3 is malformed [MQTT-3.3.1-4].
    pub fn from_level(level: u8) -> Option<Self> {
        match level {
            0 => Some(Self::AtMostOnce),
            1 => Some(Self::AtLeastOnce),
            2 => Some(Self::ExactlyOnce),
            _ => None,
        }
    }
}

impl From<QoS> for u8 {
    fn from(qos: QoS) -> Self {
        qos.level()
    }
}

impl TryFrom<u8> for QoS {
    type Error = &'static str;

    fn try_from(level: u8) -> Result<Self, Self::Error> {
        Self::from_level(level).ok_or("a quality of service is 0, 1 or 2")
    }
}

/// User properties in the order of the packet (MQTT 5.0 section 3.3.2.3.7); a name may come several times.
pub type UserProperties = Vec<(Arc<str>, Arc<str>)>;

/// Stands for one PUBLISH of the client on one connection, until the shell says what became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token(pub u64);

impl Token {
    /// A QoS 0 message: there is nothing to acknowledge.
    pub(crate) const NONE: Self = Self(0);
}

/// Stands for one QoS 1 or 2 message on its way to the client; unique in its session, over reconnects too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DeliveryToken(pub u64);

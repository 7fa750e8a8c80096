//! A message on its way to the client, and how it is kept while it is under way.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{QoS, UserProperties};

/// A message for the client. A 3.1.1 client gets topic, payload and QoS; a 5.0 client all of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// The topic name.
    pub topic: Arc<str>,
    /// The payload.
    #[serde(with = "base64_bytes")]
    pub payload: Bytes,
    /// The highest quality of service to send it with; the subscription may lower it.
    pub qos: QoS,
    /// Content Type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<Arc<str>>,
    /// Response Topic: a topic name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_topic: Option<Arc<str>>,
    /// Correlation Data.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "base64_option")]
    pub correlation_data: Option<Bytes>,
    /// User properties, sent in this order [MQTT-3.3.2-18].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub user_properties: UserProperties,
    /// Message Expiry Interval: the seconds that are left when it is handed over; 0 is sent as 1. Dropping what has
    /// expired before that is the shell's part, which has a clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_expiry: Option<u32>,
    /// When it is void, in Unix milliseconds: from then on it is not sent again. No client is told of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<u64>,
    /// Declare the payload as UTF-8.
    #[serde(default)]
    pub payload_is_utf8: bool,
}

impl Message {
    /// A message without properties.
    pub fn new(topic: impl Into<Arc<str>>, payload: impl Into<Bytes>, qos: QoS) -> Self {
        Self {
            topic: topic.into(),
            payload: payload.into(),
            qos,
            content_type: None,
            response_topic: None,
            correlation_data: None,
            user_properties: Vec::new(),
            message_expiry: None,
            expires_at: None,
            payload_is_utf8: false,
        }
    }

    /// Can it be written as a packet at all: valid topic names, no text above 65,535 bytes.
    pub(crate) fn is_sendable(&self) -> bool {
        let fits = |len: usize| len <= usize::from(u16::MAX);
        landfall_event::check_topic_name(&self.topic).is_ok()
            && self.response_topic.as_ref().is_none_or(|t| landfall_event::check_topic_name(t).is_ok())
            && self.content_type.as_ref().is_none_or(|t| fits(t.len()) && !t.contains('\0'))
            && self.correlation_data.as_ref().is_none_or(|d| fits(d.len()))
            && self.user_properties.iter().all(|(name, value)| {
                fits(name.len()) && fits(value.len()) && !name.contains('\0') && !value.contains('\0')
            })
    }
}

/// Bytes as base64 text: a number per byte would be three times as long.
mod base64_bytes {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use bytes::Bytes;
    use serde::{Deserialize as _, Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(bytes: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
        let text = String::deserialize(deserializer)?;
        STANDARD.decode(text).map(Bytes::from).map_err(de::Error::custom)
    }
}

mod base64_option {
    use bytes::Bytes;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    struct Wrapped(#[serde(with = "super::base64_bytes")] Bytes);

    pub(super) fn serialize<S: Serializer>(bytes: &Option<Bytes>, serializer: S) -> Result<S::Ok, S::Error> {
        bytes.clone().map(Wrapped).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Bytes>, D::Error> {
        Ok(Option::<Wrapped>::deserialize(deserializer)?.map(|w| w.0))
    }
}

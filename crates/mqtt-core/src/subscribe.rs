//! Subscriptions: what a SUBSCRIBE asks for, and the table of what was granted.
//!
//! Owns: which subscriptions a session has and what matches. Does not own: who may subscribe to what (the shell).

use std::num::NonZeroU32;

use landfall_event::TopicFilter;
use serde::{Deserialize, Serialize};

use crate::{QoS, Verdict};

/// Codes of SUBACK and UNSUBACK (MQTT 5.0 sections 3.9.3 and 3.11.3).
pub(crate) mod code {
    pub(crate) const SUCCESS: u8 = 0x00;
    pub(crate) const NO_SUBSCRIPTION_EXISTED: u8 = 0x11;
    pub(crate) const UNSPECIFIED: u8 = 0x80;
    pub(crate) const NOT_SERVED: u8 = 0x83;
    pub(crate) const NOT_AUTHORIZED: u8 = 0x87;
    pub(crate) const FILTER_INVALID: u8 = 0x8F;
    pub(crate) const QUOTA_EXCEEDED: u8 = 0x97;
    pub(crate) const SHARED_NOT_SUPPORTED: u8 = 0x9E;
}

/// One subscription of a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subscription {
    /// The topic filter.
    #[serde(with = "filter_text")]
    pub filter: TopicFilter,
    /// The highest quality of service that messages are sent with.
    pub qos: QoS,
    /// No Local; without effect, since nothing is routed from device to device.
    #[serde(default)]
    pub no_local: bool,
    /// Retain As Published; without effect, since nothing is retained.
    #[serde(default)]
    pub retain_as_published: bool,
    /// The Subscription Identifier, which every delivery carries [MQTT-3.3.4-3].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<NonZeroU32>,
}

/// A SUBSCRIBE in the shell's hands. What the machine itself refuses (shared subscriptions, invalid filters) is not shown.
#[derive(Debug)]
pub struct SubscribeRequest {
    pub(crate) packet_id: u16,
    /// In the order of the packet: what to ask about, or the code that answers it already.
    pub(crate) entries: Vec<Result<Subscription, u8>>,
}

impl SubscribeRequest {
    /// The filters to decide about and the quality of service asked for, in order: one verdict each.
    pub fn filters(&self) -> impl Iterator<Item = (&TopicFilter, QoS)> {
        self.entries.iter().flatten().map(|s| (&s.filter, s.qos))
    }
}

/// A session's subscriptions; few, so a list.
#[derive(Debug, Default)]
pub(crate) struct Subscriptions(Vec<Subscription>);

impl Subscriptions {
    pub(crate) fn new(list: Vec<Subscription>) -> Self {
        Self(list)
    }

    pub(crate) fn as_slice(&self) -> &[Subscription] {
        &self.0
    }

    /// Those that match a topic name.
    pub(crate) fn matching<'a>(&'a self, topic: &'a str) -> impl Iterator<Item = &'a Subscription> {
        self.0.iter().filter(move |s| s.filter.matches(topic))
    }

    /// The highest QoS among the matching ones [MQTT-3.3.4-2]: overlapping subscriptions give one copy.
    pub(crate) fn granted(&self, topic: &str) -> Option<QoS> {
        self.matching(topic).map(|s| s.qos).max()
    }

    /// Adds or replaces [MQTT-3.8.4-3] what the verdict allows, and returns the SUBACK code.
    pub(crate) fn decide(&mut self, mut asked: Subscription, verdict: Verdict, limit: usize) -> u8 {
        match verdict {
            Verdict::Granted(qos) => asked.qos = asked.qos.min(qos),
            Verdict::NotAuthorized => return code::NOT_AUTHORIZED,
            Verdict::QuotaExceeded => return code::QUOTA_EXCEEDED,
            Verdict::NotServed => return code::NOT_SERVED,
            Verdict::Failed => return code::UNSPECIFIED,
        }
        let (granted, full) = (asked.qos.level(), self.0.len() >= limit);
        match self.0.iter_mut().find(|s| s.filter == asked.filter) {
            Some(old) => *old = asked,
            None if full => return code::QUOTA_EXCEEDED,
            None => self.0.push(asked),
        }
        granted
    }

    /// Removes a subscription by the text of its filter, compared character by character [MQTT-3.10.4-1].
    pub(crate) fn remove(&mut self, filter: &str) -> bool {
        let before = self.0.len();
        self.0.retain(|s| s.filter.as_str() != filter);
        self.0.len() != before
    }
}

/// A topic filter as its text.
mod filter_text {
    use landfall_event::TopicFilter;
    use serde::{Deserialize as _, Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(filter: &TopicFilter, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(filter.as_str())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<TopicFilter, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

//! What a session remembers of a QoS 2 message beside its packet id: enough to know it again.
//!
//! Owns: how that is made. Does not own: where the key comes from (the shell, by [`crate::Accept`]), what follows
//! (`inbound.rs`).

use std::hash::Hasher as _;

use serde::{Deserialize, Serialize};

/// The keyed hash of a message's topic and payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Mark(pub(crate) u64);

impl Mark {
    /// Of a message that nothing but its packet id is known of.
    pub(crate) const UNKNOWN: Self = Self(0);
}

/// Makes the marks of one session, under a key of its own: whoever chooses a payload cannot make it look like another.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Marker([u64; 2]);

impl Marker {
    pub(crate) fn new(key: [u64; 2]) -> Self {
        Self(key)
    }

    pub(crate) fn key(self) -> [u64; 2] {
        self.0
    }

    /// The number that tells the session from every other. No message has it for a mark: none has an empty topic.
    pub(crate) fn session(self) -> u64 {
        self.of("", b"").0
    }

    /// The mark of a message, never [`Mark::UNKNOWN`].
    pub(crate) fn of(self, topic: &str, payload: &[u8]) -> Mark {
        let [one, two] = self.0;
        #[expect(
            deprecated,
            reason = "the one SipHash of the standard library that takes a key; its values are kept on disk"
        )]
        let mut hasher = std::hash::SipHasher::new_with_keys(one, two);
        hasher.write(topic.as_bytes());
        // No topic has one, so it ends there.
        hasher.write(&[0]);
        hasher.write(payload);
        Mark(hasher.finish().max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_of_topic_payload_and_key() {
        let marker = Marker::new([1, 2]);
        let mark = marker.of("a", b"b");
        assert_eq!(mark, Marker::new([1, 2]).of("a", b"b"));
        for other in
            [marker.of("ab", b""), marker.of("a", b"c"), Marker::new([1, 3]).of("a", b"b"), Mark::UNKNOWN]
        {
            assert_ne!(mark, other);
        }
    }

    /// It stands in stored sessions: another value would make messages unknown that wait there.
    #[test]
    fn a_mark_is_the_same_in_every_build() {
        assert_eq!(
            serde_json::to_string(&Marker::new([1, 2]).of("a", b"b")).unwrap(),
            "11520235230375640405"
        );
    }
}

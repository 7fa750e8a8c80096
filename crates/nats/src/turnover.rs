//! How far a stream has turned over: when a fence, or what a checkpoint reads behind, would soon be among what its limits discard.
//!
//! Owns: the limits of the streams as the server last told them, and the count of what was written. Does not own: who writes a
//! fence again ([`crate::driver`]), who writes a checkpoint ([`crate::guardian`]).
//!
//! A stream discards its oldest message first. What was written after a message is what can push it out, so it is safe as long as
//! less than the whole limit was written behind it. A fence is written again when a quarter was. The publisher counts its own bytes
//! exactly, before they are sent; those of others it knows by the places that acknowledgements name, and by the mean size of what
//! the stream holds.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_nats::jetstream::stream::Info;
use landfall_event::Stream;

/// What a stored message takes beside its headers and its body: its subject, its place, its time, a checksum.
pub(crate) const STORED_WITH: u64 = 160;
/// The part of a limit after which a fence is written again, and a checkpoint is due.
const PART: u64 = 4;

/// The limits of a stream, and what it holds; 0 is no limit.
#[derive(Debug, Default)]
pub(crate) struct Limits {
    bytes: AtomicU64,
    messages: AtomicU64,
    age_ms: AtomicU64,
    /// The mean size of what it holds.
    mean: AtomicU64,
}

impl Limits {
    /// Takes what the server says.
    pub(crate) fn note(&self, info: &Info) {
        let (config, state) = (&info.config, &info.state);
        let limit = |most: i64| u64::try_from(most).unwrap_or(0);
        self.bytes.store(limit(config.max_bytes), Ordering::Relaxed);
        self.messages.store(limit(config.max_messages), Ordering::Relaxed);
        let age_ms = u64::try_from(config.max_age.as_millis()).unwrap_or(u64::MAX);
        self.age_ms.store(age_ms, Ordering::Relaxed);
        self.mean.store(state.bytes.div_ceil(state.messages.max(1)), Ordering::Relaxed);
    }

    /// Has so much been written that an entry which was young then is to be written again?
    pub(crate) fn is_due(&self, since: Written) -> bool {
        let reached = |limit: &AtomicU64, now: u64| {
            let limit = limit.load(Ordering::Relaxed);
            limit > 0 && now >= limit / PART
        };
        reached(&self.bytes, self.bytes_of(since))
            || reached(&self.messages, since.own.saturating_add(since.others))
            || reached(&self.age_ms, u64::try_from(since.age.as_millis()).unwrap_or(u64::MAX))
    }

    /// Has half of the stream been written, in bytes or messages?
    pub(crate) fn is_half(&self, since: Written) -> bool {
        let half = |limit: &AtomicU64, now: u64| {
            let limit = limit.load(Ordering::Relaxed);
            limit > 0 && now >= limit / 2
        };
        half(&self.bytes, self.bytes_of(since))
            || half(&self.messages, since.own.saturating_add(since.others))
    }

    fn bytes_of(&self, since: Written) -> u64 {
        let others = since.others.saturating_mul(self.mean.load(Ordering::Relaxed));
        since.own_bytes.saturating_add(others)
    }
}

/// What was written to a stream since some moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Written {
    /// Messages of this publisher.
    pub(crate) own: u64,
    /// Their bytes as stored.
    pub(crate) own_bytes: u64,
    /// Messages of others.
    pub(crate) others: u64,
    /// For how long.
    pub(crate) age: Duration,
}

/// One of each for the two streams that have fences; what is asked of another is the ledger's.
#[derive(Debug, Default)]
pub(crate) struct OfEach<T> {
    connectivity: T,
    messages: T,
}

impl<T> OfEach<T> {
    pub(crate) fn of(&self, stream: Stream) -> &T {
        match stream {
            Stream::Connectivity | Stream::Access => &self.connectivity,
            Stream::Messages => &self.messages,
        }
    }

    pub(crate) fn of_mut(&mut self, stream: Stream) -> &mut T {
        match stream {
            Stream::Connectivity | Stream::Access => &mut self.connectivity,
            Stream::Messages => &mut self.messages,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(bytes: u64, messages: u64, age_ms: u64) -> Limits {
        let to = AtomicU64::new;
        Limits { bytes: to(bytes), messages: to(messages), age_ms: to(age_ms), mean: to(100) }
    }

    #[test]
    fn a_quarter_by_bytes_messages_or_age_whichever_comes_first() {
        let none = Written::default();
        let huge = Written { own: 1 << 40, own_bytes: 1 << 50, others: 1 << 40, age: Duration::MAX };
        assert!(!limits(0, 0, 0).is_due(huge), "without limits nothing is discarded");
        for limits in [limits(4_000, 0, 0), limits(0, 40, 0), limits(0, 0, 4_000), limits(4_000, 40, 4_000)] {
            assert!(!limits.is_due(none));
        }
        assert!(!limits(4_000, 0, 0).is_due(Written { own_bytes: 999, ..none }));
        assert!(limits(4_000, 0, 0).is_due(Written { own_bytes: 1_000, ..none }));
        assert!(limits(4_000, 0, 0).is_due(Written { own_bytes: 200, others: 8, ..none }), "others count");
        assert!(!limits(0, 40, 0).is_due(Written { own: 4, others: 5, ..none }));
        assert!(limits(0, 40, 0).is_due(Written { own: 4, others: 6, ..none }));
        assert!(limits(0, 0, 4_000).is_due(Written { age: Duration::from_secs(1), ..none }));
    }

    #[test]
    fn half_of_it_is_by_what_was_written_alone() {
        let old = Written { age: Duration::from_secs(99), own_bytes: 1_999, ..Written::default() };
        assert!(!limits(4_000, 0, 4_000).is_half(old));
        assert!(limits(4_000, 0, 0).is_half(Written { own_bytes: 2_000, ..old }));
    }
}

//! The part of a session that its own task writes while the tracker only reads.
//!
//! Owns: when a device was last heard, whether the gateway itself stops it from being heard, what passed through.
//! Does not own: what follows from that ([`crate::Tracker`]).

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use landfall_event::Counters;

use crate::Tick;

/// The gateway does not read from the device.
const HELD: u64 = 0b01;
/// The session has ended.
const OVER: u64 = 0b10;
/// The bits above the flags say when the last hold was released.
const FLAG_BITS: u32 = 2;

/// A session's signs of life, shared between its task and the tracker: 48 bytes that stand in the caller's value
/// ([`crate::Tracked`]). All calls are safe from any thread and wait for nobody.
#[derive(Debug)]
pub struct Vitals {
    last_seen: AtomicU64,
    /// `released at << 2 | OVER | HELD`: one word, so that they change together.
    state: AtomicU64,
    messages_in: AtomicU64,
    messages_out: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
}

impl Vitals {
    /// The signs of life of a session that is about to begin, heard at `now`.
    pub fn new(now: Tick) -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            last_seen: AtomicU64::new(now),
            state: zero(),
            messages_in: zero(),
            messages_out: zero(),
            bytes_in: zero(),
            bytes_out: zero(),
        }
    }

    /// The device was heard at `now`. At most one atomic store: none when `now` is no news. Of two touches at the same
    /// moment either may win; they are a scheduling delay apart.
    pub fn touch(&self, now: Tick) {
        if now > self.last_seen.load(Relaxed) {
            self.last_seen.store(now, Relaxed);
        }
    }

    /// When the device was last heard; the session's beginning, if never.
    pub fn last_seen(&self) -> Tick {
        self.last_seen.load(Relaxed)
    }

    /// The gateway stops reading from the device. Its silence means nothing until [`Vitals::release`]. Holding twice is
    /// holding once.
    pub fn hold(&self) {
        self.state.fetch_or(HELD, Relaxed);
    }

    /// The gateway reads from the device again: the silence that ends the session counts from `now`. The device has not
    /// been heard by that, [`Vitals::last_seen`] stays as it is. Does nothing to a session that is not held.
    pub fn release(&self, now: Tick) {
        // The closure always answers, so the update cannot fail.
        let _ = self.state.fetch_update(Relaxed, Relaxed, |state| {
            let released = (state >> FLAG_BITS).max(now);
            Some(if state & HELD == 0 { state } else { (released << FLAG_BITS) | (state & OVER) })
        });
    }

    /// True while the gateway does not read from the device.
    pub fn is_held(&self) -> bool {
        self.state.load(Relaxed) & HELD != 0
    }

    /// True once the tracker has ended the session. A touch that crosses the end is lost with the session: who must
    /// know looks here after the touch and opens anew.
    pub fn is_over(&self) -> bool {
        self.state.load(Relaxed) & OVER != 0
    }

    pub(crate) fn end(&self) {
        self.state.fetch_or(OVER, Relaxed);
    }

    /// Since when the device could have been heard and was not, as of `now`.
    pub fn quiet_since(&self, now: Tick) -> Tick {
        let state = self.state.load(Relaxed);
        let excused = if state & HELD == 0 { state >> FLAG_BITS } else { now };
        self.last_seen().max(excused)
    }

    /// Counts a message from the device with this many payload bytes.
    pub fn count_in(&self, bytes: u64) {
        self.messages_in.fetch_add(1, Relaxed);
        self.bytes_in.fetch_add(bytes, Relaxed);
    }

    /// Counts a message to the device with this many payload bytes.
    pub fn count_out(&self, bytes: u64) {
        self.messages_out.fetch_add(1, Relaxed);
        self.bytes_out.fetch_add(bytes, Relaxed);
    }

    /// What has passed so far.
    pub fn counters(&self) -> Counters {
        Counters {
            messages_in: self.messages_in.load(Relaxed),
            messages_out: self.messages_out.load(Relaxed),
            bytes_in: self.bytes_in.load(Relaxed),
            bytes_out: self.bytes_out.load(Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_touch_never_moves_back() {
        let vitals = Vitals::new(5);
        vitals.touch(9);
        vitals.touch(7);
        assert_eq!(vitals.last_seen(), 9);
    }

    #[test]
    fn a_hold_excuses_silence_and_is_not_a_sign_of_life() {
        let vitals = Vitals::new(5);
        assert_eq!(vitals.quiet_since(100), 5);
        vitals.hold();
        vitals.hold();
        assert!(vitals.is_held());
        assert_eq!(vitals.quiet_since(100), 100);
        vitals.release(60);
        assert!(!vitals.is_held());
        assert_eq!((vitals.quiet_since(100), vitals.last_seen()), (60, 5));
        vitals.release(90);
        assert_eq!(vitals.quiet_since(100), 60, "a release without a hold excuses nothing");
        vitals.touch(70);
        assert_eq!(vitals.quiet_since(100), 70);
    }

    #[test]
    fn an_end_outlasts_hold_and_release() {
        let vitals = Vitals::new(0);
        vitals.hold();
        vitals.end();
        vitals.release(10);
        assert!(vitals.is_over() && !vitals.is_held());
    }

    #[test]
    fn messages_are_counted_both_ways() {
        let vitals = Vitals::new(0);
        vitals.count_in(10);
        vitals.count_in(0);
        vitals.count_out(3);
        let expected = Counters { messages_in: 2, messages_out: 1, bytes_in: 10, bytes_out: 3 };
        assert_eq!(vitals.counters(), expected);
    }
}

//! Who is present: one tracker decides when a device's session begins and when it ends, for every protocol.
//!
//! Owns: the session table, takeover, silence and its deadlines, the timer wheel, the counters of a session, what is
//! learned of a device's rhythm.
//! Does not own: what a session's end is called on the wire (`landfall-event`), when time passes, who calls
//! (`landfall-hub`), or what else belongs to a session (the caller's tag).
//! Pure: no clock, socket, task or randomness. Time is an argument, the hasher of the table is the caller's.
//!
//! # The promises
//!
//! - Per key, beginnings and ends alternate. Every [`Tracker::open`] is answered by exactly one [`Ended`], which comes
//!   from exactly one of `open` (takeover), [`Tracker::close`], [`Tracker::expire`] or [`Tracker::drain`].
//! - A takeover hands out the old session's end together with the new session; tell the old one's end first.
//! - A [`Slot`] names one session for ever: one that is left over from an older session closes nothing.
//! - Silence ends a session at the first `expire` whose `now` is not before `last seen + silence`: never early, and as
//!   late as the caller is. One who calls every tick, or when [`Tracker::next_deadline`] says so, is at most one tick late.
//! - A touch ([`Vitals::touch`]) is one atomic store. It reaches neither the table nor the wheel; a deadline that fires
//!   looks at the store and is set again when the device has spoken since.
//! - Time never runs backwards: a `now` before one that was already given counts as that one.
//!
//! # The cost of a session
//!
//! On a 64-bit machine, with one million sessions (`tests/scale.rs` asserts it): 32 bytes in the session table for a tag of
//! 8, 16 in the wheel, 19 in the index (8 and a control byte, at its load just after it doubled); with what growth left
//! free 69 bytes in all. The caller's value holds the rest ([`Tracked`]): 48 bytes of [`Vitals`] and the key, which the
//! tracker reads there and does not copy.

mod cadence;
mod index;
mod tracker;
mod vitals;
mod wheel;

#[cfg(test)]
mod tests;

pub use cadence::{Cadence, Patience};
pub use tracker::{Drain, Ended, KeyRef, Live, Opened, Slot, Terms, Tracked, Tracker};
pub use vitals::Vitals;
pub use wheel::Wheel;

/// Milliseconds since the caller's own origin, on a clock that does not run backwards.
pub type Tick = u64;

//! How far the ledger has turned over since the last checkpoint, and holding it back until there is another one.
//!
//! Owns: the count that the publisher's task and the guardian share. Does not own: the limits ([`crate::turnover`]), writing a
//! checkpoint ([`crate::guardian`]).
//!
//! A repair reads the checkpoint and what the ledger holds behind it, so the ledger must not discard anything that lies behind the
//! checkpoint. When a quarter has been written since, another one is due. When a half has, nothing new is let into the ledger
//! but what stood in the queue when the checkpoint that is under way was begun: that has to be stored before it counts.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::turnover::Written;

/// For how long the ledger is held back: a checkpoint that cannot be written is no reason to store nothing.
const HELD_AT_MOST: Duration = Duration::from_secs(10);

/// Of one moment: the newest place of the ledger, and what this publisher had written to it ever.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Mark {
    pub(crate) place: u64,
    own: u64,
    own_bytes: u64,
}

/// See the module's description.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    own: AtomicU64,
    own_bytes: AtomicU64,
    /// Of the checkpoint in force.
    mark: Mutex<Mark>,
    /// Publications from the queue that a checkpoint waits for, of all that were ever taken.
    through: AtomicU64,
    /// Somebody writes checkpoints.
    watched: AtomicBool,
    held_since: Mutex<Option<Instant>>,
    /// The ledger has lost what it held, however young.
    cut: AtomicBool,
    /// Another checkpoint is due.
    pub(crate) due: Notify,
}

impl Pace {
    /// Counts an event that is sent.
    pub(crate) fn count(&self, bytes: u64) {
        self.own.fetch_add(1, Ordering::Relaxed);
        self.own_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// This moment, at which the ledger ends with `place`.
    pub(crate) fn now(&self, place: u64) -> Mark {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Mark { place, own: read(&self.own), own_bytes: read(&self.own_bytes) }
    }

    /// What was written since the checkpoint in force, by a ledger that ends with `newest`.
    pub(crate) fn written(&self, newest: u64) -> Written {
        let (now, then) = (self.now(newest), *self.mark.lock());
        let own = now.own.saturating_sub(then.own);
        let others = newest.saturating_sub(then.place).saturating_sub(own);
        let own_bytes = now.own_bytes.saturating_sub(then.own_bytes);
        Written { own, own_bytes, others, age: Duration::ZERO }
    }

    /// The ledger has lost what it held: only a checkpoint knows who is present.
    pub(crate) fn was_cut(&self) {
        self.cut.store(true, Ordering::Relaxed);
        self.due.notify_one();
    }

    /// Whether that happened since the last call.
    pub(crate) fn take_cut(&self) -> bool {
        self.cut.swap(false, Ordering::Relaxed)
    }

    /// Somebody writes checkpoints from now on, or nobody does.
    pub(crate) fn is_watched(&self, watched: bool) {
        self.watched.store(watched, Ordering::Relaxed);
    }

    /// A checkpoint waits for so many publications of all that were ever taken from the queue.
    pub(crate) fn waits_for(&self, through: u64) {
        self.through.store(through, Ordering::Relaxed);
    }

    /// A checkpoint of that moment is in force.
    pub(crate) fn is_checkpointed(&self, mark: Mark) {
        *self.mark.lock() = mark;
        *self.held_since.lock() = None;
    }

    /// How many of `room` may be taken from a queue from which `taken` were: half of the ledger has turned over.
    pub(crate) fn let_through(&self, taken: u64, room: usize, now: Instant) -> usize {
        if !self.watched.load(Ordering::Relaxed) {
            return room;
        }
        let waited_for = self.through.load(Ordering::Relaxed).saturating_sub(taken);
        if waited_for > 0 {
            return room.min(usize::try_from(waited_for).unwrap_or(room));
        }
        let since = *self.held_since.lock().get_or_insert(now);
        if now.duration_since(since) >= HELD_AT_MOST { room } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_checkpoint_waits_for_is_let_through_and_nothing_else() {
        let (pace, now) = (Pace::default(), Instant::now());
        assert_eq!(pace.let_through(10, 5, now), 5, "nobody would write one");
        pace.is_watched(true);
        assert_eq!(pace.let_through(10, 5, now), 0);
        pace.waits_for(13);
        assert_eq!((pace.let_through(10, 5, now), pace.let_through(13, 5, now)), (3, 0));
        let late = now + HELD_AT_MOST;
        assert_eq!(pace.let_through(13, 5, late), 5, "not for ever");
        pace.is_checkpointed(pace.now(7));
        assert_eq!(pace.let_through(13, 5, late), 0, "the next one has its whole time");
    }

    #[test]
    fn what_was_written_is_counted_from_the_checkpoint_on() {
        let pace = Pace::default();
        pace.count(100);
        pace.is_checkpointed(pace.now(40));
        pace.count(50);
        pace.count(50);
        let expected = Written { own: 2, own_bytes: 100, others: 3, age: Duration::ZERO };
        assert_eq!(pace.written(45), expected);
        assert!(!pace.take_cut());
        pace.was_cut();
        assert!(pace.take_cut() && !pace.take_cut());
    }
}

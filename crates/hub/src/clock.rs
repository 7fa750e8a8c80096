//! The two clocks of a running gateway: one that never steps for deadlines, one of the wall for events.

use std::time::{SystemTime, UNIX_EPOCH};

use landfall_event::UnixMs;
use landfall_session::Tick;
use tokio::time::Instant;

/// What the wall clock says, in Unix milliseconds. It may step, so no duration is computed from it.
pub fn unix_now() -> UnixMs {
    unix_micros() / 1000
}

/// The same in microseconds.
fn unix_micros() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// Made once per process; the tracker's ticks count from its making.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    start: Instant,
}

impl Clock {
    pub(crate) fn new() -> Self {
        Self { start: Instant::now() }
    }

    /// Milliseconds since the clock was made; never steps.
    pub(crate) fn tick(&self) -> Tick {
        Tick::try_from(self.start.elapsed().as_millis()).unwrap_or(Tick::MAX)
    }

    /// What both clocks say at one moment. A thread may be held up between two looks; then it looks again.
    pub(crate) fn together(&self) -> (Tick, UnixMs) {
        let mut before = self.tick();
        for _ in 0..3 {
            let unix = self.unix();
            let after = self.tick();
            if after.saturating_sub(before) <= 1 {
                return (after, unix);
            }
            before = after;
        }
        (before, self.unix())
    }

    /// One look at the wall clock: in milliseconds, and in microseconds.
    pub(crate) fn both(&self) -> (UnixMs, u64) {
        let micros = unix_micros();
        (micros / 1000, micros)
    }

    /// What the wall clock says. It may step, so no duration is computed from it.
    pub(crate) fn unix(&self) -> UnixMs {
        unix_now()
    }
}

//! The two clocks of a running gateway: one that never steps for deadlines, one of the wall for events.

use std::time::{SystemTime, UNIX_EPOCH};

use landfall_event::UnixMs;
use landfall_session::Tick;
use tokio::time::Instant;

/// What the wall clock says, in Unix milliseconds. It may step, so no duration is computed from it.
pub fn unix_now() -> UnixMs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMs::try_from(since.as_millis()).unwrap_or(UnixMs::MAX)
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

    /// What the wall clock says. It may step, so no duration is computed from it.
    pub(crate) fn unix(&self) -> UnixMs {
        unix_now()
    }
}

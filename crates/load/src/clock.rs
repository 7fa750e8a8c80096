//! The time of day, as other processes on this machine see it.
//!
//! Owns: bringing it and the clock that never goes back together. Does not own: when to look.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The two clocks at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    at: Instant,
    unix_us: u64,
}

impl Clock {
    pub(crate) fn now() -> Self {
        Self { at: Instant::now(), unix_us: unix_us() }
    }

    /// A moment as Unix time in µs.
    pub(crate) fn unix_us(&self, moment: Instant) -> u64 {
        let micros = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        match moment.checked_duration_since(self.at) {
            Some(after) => self.unix_us.saturating_add(micros(after)),
            None => self.unix_us.saturating_sub(micros(self.at - moment)),
        }
    }
}

/// Unix time in µs.
pub(crate) fn unix_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_before_and_after_are_told() {
        let clock = Clock::now();
        let second = Duration::from_secs(1);
        assert_eq!(clock.unix_us(clock.at + second) - clock.unix_us(clock.at - second), 2_000_000);
        assert!(unix_us().abs_diff(clock.unix_us(Instant::now())) < 1_000_000);
    }
}

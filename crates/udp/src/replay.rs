//! What a signed device has said last, so that nobody says it again in its name.
//!
//! Owns: the rule of rising numbers, for one device. Does not own: all devices (`guard.rs`), verifying signatures. Pure.

/// What a signed number is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Novelty {
    /// Above every number so far: it is taken.
    New,
    /// The newest one again, with the same bytes, which could not be dealt with before: taken again, and no second sign
    /// of life.
    Retry,
    /// The newest one again, with the same bytes: a retransmission.
    Again {
        /// True when the first one has been dealt with, so that its ack may be said again; else the ack is under way.
        is_settled: bool,
    },
    /// Old, or the newest number with other bytes, or one that could not be dealt with and comes again too late.
    Stale,
}

/// The newest signed datagram of one device. 16 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replay {
    /// Its number; 0 when there is none yet.
    newest: u64,
    /// What its signature begins with.
    mark: u32,
    /// When it first came, in seconds; the lowest bits say what became of it.
    state: u32,
}

/// It is stored, or there was nothing to store.
const SETTLED: u32 = 0b01;
/// It was not dealt with and may come again.
const GIVEN_BACK: u32 = 0b10;
const TIME_SHIFT: u32 = 2;

/// The signature, as far as it is kept: enough to tell two right signatures of one number apart.
fn mark(mac: &[u8; 32]) -> u32 {
    let mut bytes = [0; 4];
    bytes.iter_mut().zip(mac).for_each(|(byte, of_mac)| *byte = *of_mac);
    u32::from_le_bytes(bytes)
}

/// Enough bits for 34 years; later all times are one, and nothing may come again.
const LATEST: u32 = u32::MAX >> TIME_SHIFT;

impl Replay {
    /// Looks at a datagram whose signature is right, at `now` of a clock that never steps, and takes its number when it is
    /// new. `seq` is at least 1; times are in seconds. What was given back may come again for less than `within` after it
    /// first came.
    pub fn check(&mut self, seq: u64, mac: &[u8; 32], now: u64, within: u64) -> Novelty {
        let now = u32::try_from(now).unwrap_or(LATEST).min(LATEST);
        if seq > self.newest {
            *self = Self { newest: seq, mark: mark(mac), state: now << TIME_SHIFT };
            return Novelty::New;
        }
        if seq != self.newest || self.mark != mark(mac) {
            return Novelty::Stale;
        }
        if self.state & GIVEN_BACK == 0 {
            return Novelty::Again { is_settled: self.state & SETTLED != 0 };
        }
        // Several sockets read the clock, so the later look may have the earlier time.
        let age = u64::from(now.saturating_sub(self.state >> TIME_SHIFT));
        if age >= within || now == LATEST {
            return Novelty::Stale;
        }
        self.state &= !(SETTLED | GIVEN_BACK);
        Novelty::Retry
    }

    /// The datagram of this number is stored, or there was nothing to store.
    pub fn settle(&mut self, seq: u64) {
        if seq == self.newest {
            self.state |= SETTLED;
        }
    }

    /// The datagram of this number was not dealt with: the same may come again, for a while. Nothing older may.
    pub fn give_back(&mut self, seq: u64) {
        if seq == self.newest {
            self.state |= GIVEN_BACK;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: [u8; 32] = [0xAA; 32];
    const B: [u8; 32] = [0xBB; 32];

    #[test]
    fn a_number_is_taken_once_and_none_below_it() {
        let mut replay = Replay::default();
        assert_eq!(replay.check(5, &A, 0, 300), Novelty::New);
        assert_eq!(replay.check(5, &A, 0, 300), Novelty::Again { is_settled: false });
        replay.settle(5);
        assert_eq!(replay.check(5, &A, 0, 300), Novelty::Again { is_settled: true });
        assert_eq!(replay.check(5, &B, 0, 300), Novelty::Stale);
        assert_eq!(replay.check(4, &A, 0, 300), Novelty::Stale);
        assert_eq!(replay.check(u64::MAX, &B, 0, 300), Novelty::New);
        assert_eq!(replay.check(u64::MAX, &A, 0, 300), Novelty::Stale);
    }

    #[test]
    fn what_was_given_back_may_come_again_once_and_nothing_older() {
        let mut replay = Replay::default();
        replay.check(5, &A, 0, 300);
        replay.check(9, &A, 0, 300);
        replay.give_back(5);
        assert_eq!(
            replay.check(9, &A, 0, 300),
            Novelty::Again { is_settled: false },
            "a late word changes nothing"
        );
        replay.give_back(9);
        assert_eq!(replay.check(8, &A, 0, 300), Novelty::Stale);
        assert_eq!(replay.check(9, &B, 0, 300), Novelty::Stale);
        assert_eq!(replay.check(9, &A, 0, 300), Novelty::Retry);
        assert_eq!(replay.check(9, &A, 0, 300), Novelty::Again { is_settled: false });
        replay.settle(9);
        assert_eq!(replay.check(9, &A, 0, 300), Novelty::Again { is_settled: true });
    }

    #[test]
    fn what_was_given_back_may_come_again_for_a_while_from_its_first_time_on() {
        let mut replay = Replay::default();
        assert_eq!(replay.check(5, &A, 1_000, 300), Novelty::New);
        for (seconds, expected) in [
            (1_100, Novelty::Retry),
            (990, Novelty::Retry),
            (1_299, Novelty::Retry),
            (1_300, Novelty::Stale),
            (u64::MAX, Novelty::Stale),
        ] {
            replay.give_back(5);
            assert_eq!(replay.check(5, &A, seconds, 300), expected, "at {seconds}");
        }
        assert_eq!(replay.check(6, &A, 1_300, 300), Novelty::New, "the device itself goes on");
        replay.settle(6);
        assert_eq!(replay.check(6, &A, 9_999, 300), Novelty::Again { is_settled: true }, "stored is stored");
        assert_eq!(replay.check(7, &A, u64::MAX, 300), Novelty::New);
        replay.give_back(7);
        assert_eq!(replay.check(7, &A, u64::MAX, 300), Novelty::Stale, "where the clock ends");
    }

    #[test]
    fn only_the_newest_is_settled() {
        let mut replay = Replay::default();
        replay.check(1, &A, 0, 300);
        replay.check(2, &B, 0, 300);
        replay.settle(1);
        assert_eq!(replay.check(2, &B, 0, 300), Novelty::Again { is_settled: false });
    }

    #[test]
    fn a_device_costs_sixteen_bytes() {
        assert_eq!(size_of::<Replay>(), 16);
    }
}

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
    /// Old, or the newest number with other bytes.
    Stale,
}

/// The newest signed datagram of one device. 16 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replay {
    /// Its number; 0 when there is none yet.
    newest: u64,
    /// What its signature begins with; the lowest bits say what became of it.
    mark: u64,
}

/// It is stored, or there was nothing to store.
const SETTLED: u64 = 0b01;
/// It was not dealt with and may come again.
const GIVEN_BACK: u64 = 0b10;
const STATE: u64 = SETTLED | GIVEN_BACK;

/// The signature, as far as it is kept: enough to tell two right signatures of one number apart.
fn mark(mac: &[u8; 32]) -> u64 {
    let mut bytes = [0; 8];
    bytes.iter_mut().zip(mac).for_each(|(byte, of_mac)| *byte = *of_mac);
    u64::from_le_bytes(bytes) & !STATE
}

impl Replay {
    /// Looks at a datagram whose signature is right, and takes its number when it is new. `seq` is at least 1.
    pub fn check(&mut self, seq: u64, mac: &[u8; 32]) -> Novelty {
        if seq > self.newest {
            *self = Self { newest: seq, mark: mark(mac) };
            Novelty::New
        } else if seq != self.newest || self.mark & !STATE != mark(mac) {
            Novelty::Stale
        } else if self.mark & GIVEN_BACK != 0 {
            self.mark &= !STATE;
            Novelty::Retry
        } else {
            Novelty::Again { is_settled: self.mark & SETTLED != 0 }
        }
    }

    /// The datagram of this number is stored, or there was nothing to store.
    pub fn settle(&mut self, seq: u64) {
        if seq == self.newest {
            self.mark |= SETTLED;
        }
    }

    /// The datagram of this number was not dealt with: the same may come again. Nothing older may.
    pub fn give_back(&mut self, seq: u64) {
        if seq == self.newest {
            self.mark |= GIVEN_BACK;
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
        assert_eq!(replay.check(5, &A), Novelty::New);
        assert_eq!(replay.check(5, &A), Novelty::Again { is_settled: false });
        replay.settle(5);
        assert_eq!(replay.check(5, &A), Novelty::Again { is_settled: true });
        assert_eq!(replay.check(5, &B), Novelty::Stale);
        assert_eq!(replay.check(4, &A), Novelty::Stale);
        assert_eq!(replay.check(u64::MAX, &B), Novelty::New);
        assert_eq!(replay.check(u64::MAX, &A), Novelty::Stale);
    }

    #[test]
    fn what_was_given_back_may_come_again_once_and_nothing_older() {
        let mut replay = Replay::default();
        replay.check(5, &A);
        replay.check(9, &A);
        replay.give_back(5);
        assert_eq!(replay.check(9, &A), Novelty::Again { is_settled: false }, "a late word changes nothing");
        replay.give_back(9);
        assert_eq!(replay.check(8, &A), Novelty::Stale);
        assert_eq!(replay.check(9, &B), Novelty::Stale);
        assert_eq!(replay.check(9, &A), Novelty::Retry);
        assert_eq!(replay.check(9, &A), Novelty::Again { is_settled: false });
        replay.settle(9);
        assert_eq!(replay.check(9, &A), Novelty::Again { is_settled: true });
    }

    #[test]
    fn only_the_newest_is_settled() {
        let mut replay = Replay::default();
        replay.check(1, &A);
        replay.check(2, &B);
        replay.settle(1);
        assert_eq!(replay.check(2, &B), Novelty::Again { is_settled: false });
    }

    #[test]
    fn a_device_costs_sixteen_bytes() {
        assert_eq!(size_of::<Replay>(), 16);
    }
}

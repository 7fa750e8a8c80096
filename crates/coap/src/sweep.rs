//! When a table with a bound is looked through for what is of no use any more.
//!
//! Owns: the moment, so that it costs little for each entry, also when the table is full and stays so. Does not own: the
//! tables (`paths.rs`, `registrations.rs`).

/// Below this many, nothing is looked through.
const SMALL: usize = 1_024;

#[derive(Debug)]
pub(crate) struct Sweep {
    limit: usize,
    /// With so many entries it is due.
    at: usize,
    /// New entries that are still let pass, or refused, without looking.
    pause: usize,
}

impl Sweep {
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, at: SMALL.min(limit), pause: 0 }
    }

    /// Whether the table, of `entries`, is to be looked through before a new one comes.
    pub(crate) fn is_due(&mut self, entries: usize) -> bool {
        if self.pause > 0 {
            self.pause -= 1;
            return false;
        }
        entries >= self.at
    }

    /// It was, and so many are left.
    pub(crate) fn is_done(&mut self, left: usize) {
        self.at = (2 * left).max(SMALL).min(self.limit);
        // Little room was made: looking again with the next one would cost as much as everything else together.
        let room = self.limit.saturating_sub(left);
        self.pause = if room < self.limit / 8 { self.limit / 8 } else { 0 };
    }

    /// Whether one more fits.
    pub(crate) fn has_room(&self, entries: usize) -> bool {
        entries < self.limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many entries are looked at for 100,000 new ones, of which `useless` in ten are of no use by the next look.
    fn looked_at(limit: usize, useless: usize) -> usize {
        let mut sweep = Sweep::new(limit);
        let (mut entries, mut looked) = (0, 0);
        for _ in 0..100_000 {
            if sweep.is_due(entries) {
                looked += entries;
                entries -= entries * useless / 10;
                sweep.is_done(entries);
            }
            if sweep.has_room(entries) {
                entries += 1;
            }
            assert!(entries <= limit);
        }
        looked
    }

    #[test]
    fn looking_costs_a_few_entries_for_each_new_one() {
        for limit in [0, 1, 7, 100, 1_024, 20_000, 1_000_000] {
            for useless in 0..=10 {
                let looked = looked_at(limit, useless);
                assert!(looked <= 1_000_000, "{looked} for a limit of {limit}, {useless} in ten of no use");
            }
        }
    }

    #[test]
    fn a_table_that_is_full_of_what_is_of_no_use_has_room_again() {
        let mut sweep = Sweep::new(8_000);
        sweep.is_done(8_000);
        let refused = (0..).take_while(|_| !sweep.is_due(8_000)).count();
        assert_eq!(refused, 1_000);
        sweep.is_done(0);
        assert!(sweep.has_room(0) && !sweep.is_due(SMALL - 1) && sweep.is_due(SMALL));
    }
}

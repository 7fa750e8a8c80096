//! Which authenticated records were there before (RFC 6347, section 4.1.2.6).
//!
//! Owns: a window over the last 64 sequence numbers of one epoch. Does not own: authentication, which comes before a number is
//! marked.

/// Sequence numbers below `next`, the newest 64 of them one by one.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ReplayWindow {
    /// One more than the highest that was seen.
    next: u64,
    /// Bit n: `next - 1 - n` was seen.
    seen: u64,
}

impl ReplayWindow {
    /// How far back it looks.
    pub(crate) const LENGTH: u64 = 64;

    /// Whether a record with this number would be new.
    pub(crate) fn is_new(&self, sequence: u64) -> bool {
        match self.next.checked_sub(sequence) {
            None | Some(0) => true,
            Some(back) => back <= Self::LENGTH && self.seen >> (back - 1) & 1 == 0,
        }
    }

    /// A record with this number was authenticated.
    pub(crate) fn mark(&mut self, sequence: u64) {
        if let Some(back @ 1..) = self.next.checked_sub(sequence) {
            if back <= Self::LENGTH {
                self.seen |= 1 << (back - 1);
            }
            return;
        }
        let forward = sequence - self.next + 1;
        self.seen = if forward < Self::LENGTH { self.seen << forward | 1 } else { 1 };
        self.next = sequence + 1;
    }
}

#[cfg(test)]
mod tests;

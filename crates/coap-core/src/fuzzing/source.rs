//! Choices out of bytes.
//!
//! Owns: how bytes become numbers. Does not own: what is chosen with them.

/// Gives choices until its bytes are used up, then zeros.
pub(super) struct Source<'a>(&'a [u8]);

impl<'a> Source<'a> {
    pub(super) fn new(data: &'a [u8]) -> Self {
        Self(data)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// A number below `bound`.
    pub(super) fn below(&mut self, bound: u8) -> u8 {
        self.byte() % bound.max(1)
    }

    /// One of these; the first of none.
    pub(super) fn of<T: Copy + Default>(&mut self, choices: &[T]) -> T {
        let at = usize::from(self.byte()).checked_rem(choices.len()).unwrap_or_default();
        choices.get(at).copied().unwrap_or_default()
    }

    /// Up to `most` bytes, as they are.
    pub(super) fn bytes(&mut self, most: u8) -> &'a [u8] {
        let count = usize::from(self.below(most.saturating_add(1))).min(self.0.len());
        let (taken, rest) = self.0.split_at(count);
        self.0 = rest;
        taken
    }
}

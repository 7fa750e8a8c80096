//! Choices out of bytes.
//!
//! Owns: how bytes become numbers. Does not own: what is chosen with them.

/// Gives choices until its bytes are used up, then zeros.
pub(super) struct Source<'a> {
    left: &'a [u8],
}

impl<'a> Source<'a> {
    pub(super) fn new(left: &'a [u8]) -> Self {
        Self { left }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.left.is_empty()
    }

    pub(super) fn byte(&mut self) -> u8 {
        self.left.split_off_first().copied().unwrap_or_default()
    }

    pub(super) fn u16(&mut self) -> u16 {
        u16::from_be_bytes([self.byte(), self.byte()])
    }

    /// A place among `count`; 0 of none.
    pub(super) fn below(&mut self, count: usize) -> usize {
        usize::from(self.byte()).checked_rem(count).unwrap_or_default()
    }

    pub(super) fn of<T: Copy + Default>(&mut self, choices: &[T]) -> T {
        choices.get(self.below(choices.len())).copied().unwrap_or_default()
    }

    /// Up to 255 bytes as they are, by a byte that says how many.
    pub(super) fn bytes(&mut self) -> &'a [u8] {
        let count = usize::from(self.byte()).min(self.left.len());
        self.left.split_off(..count).unwrap_or_default()
    }
}

//! Block-wise transfer (RFC 7959) without messages: the option's value, bodies that arrive, bodies that leave.
//!
//! Owns: [`BlockValue`] and its arithmetic, how a body is cut ([`cut`]), which requests belong together
//! ([`Fingerprint`]), the assembly of request bodies ([`Uploads`]) and the keeping of response bodies ([`Downloads`]),
//! each within [`BodyLimits`]. Does not own: options and codes on the wire, deduplication by message id, or who may
//! transfer anything.

mod downloads;
mod fingerprint;
mod shelf;
mod uploads;

#[cfg(test)]
mod tests;

use bytes::Bytes;

pub use downloads::{Downloads, Piece};
pub use fingerprint::Fingerprint;
pub use uploads::{Part, Refusal, Upload, Uploads};

/// The value of a Block1 or Block2 option: which block, whether more follow, how large a block is (RFC 7959, section 2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BlockValue {
    num: u32,
    more: bool,
    szx: u8,
}

/// Why an option's value is no block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadBlock {
    /// More than three bytes: an option that is not understood, and it is critical (4.02, RFC 7252 section 5.4.3).
    Length,
    /// The size exponent 7, which is reserved: 4.00 (RFC 7959, section 2.2).
    Reserved,
}

impl BlockValue {
    /// The highest block number: 20 bits.
    pub const MAX_NUM: u32 = (1 << 20) - 1;
    /// The exponent of the largest block: 1024 bytes.
    pub const MAX_SZX: u8 = 6;

    /// A block; `None` when a number is out of its range.
    pub const fn new(num: u32, more: bool, szx: u8) -> Option<Self> {
        if num > Self::MAX_NUM || szx > Self::MAX_SZX {
            return None;
        }
        Some(Self { num, more, szx })
    }

    /// The first block of blocks of `2^(szx + 4)` bytes; exponents above 6 count as 6.
    pub fn first(szx: u8) -> Self {
        Self { num: 0, more: false, szx: szx.min(Self::MAX_SZX) }
    }

    /// Reads an option's value: an unsigned integer of at most three bytes, of which the empty one is 0.
    pub fn decode(value: &[u8]) -> Result<Self, BadBlock> {
        if value.len() > 3 {
            return Err(BadBlock::Length);
        }
        let word = value.iter().fold(0_u32, |word, byte| (word << 8) | u32::from(*byte));
        let szx = (word & 0b111) as u8;
        if szx > Self::MAX_SZX {
            return Err(BadBlock::Reserved);
        }
        Ok(Self { num: word >> 4, more: word & 0b1000 != 0, szx })
    }

    /// The option's value as a number; on the wire it has as few bytes as hold it.
    pub fn to_uint(self) -> u32 {
        (self.num << 4) | (u32::from(self.more) << 3) | u32::from(self.szx)
    }

    /// The option's value as bytes: none to three.
    pub fn encode(self) -> Bytes {
        let word = self.to_uint().to_be_bytes();
        let zeros = word.iter().take_while(|byte| **byte == 0).count();
        Bytes::copy_from_slice(word.get(zeros..).unwrap_or_default())
    }

    /// Which block, counted from 0 in blocks of this size.
    pub fn num(self) -> u32 {
        self.num
    }

    /// Whether more blocks follow this one.
    pub fn more(self) -> bool {
        self.more
    }

    /// The exponent: a block has `2^(szx + 4)` bytes. 0 to 6.
    pub fn szx(self) -> u8 {
        self.szx
    }

    /// The bytes of a full block: 16 to 1024.
    pub fn size(self) -> usize {
        16 << self.szx
    }

    /// Where the block starts in the body, in bytes; below 2^30.
    pub fn offset(self) -> usize {
        self.num as usize * self.size()
    }

    /// The same with another word on whether more follow.
    #[must_use]
    pub fn with_more(self, more: bool) -> Self {
        Self { more, ..self }
    }

    /// The block that starts at the same byte and is no larger than `2^(szx + 4)`. A block so far up that its number would
    /// not fit stays as it is.
    #[must_use]
    pub fn at_most(self, szx: u8) -> Self {
        if szx >= self.szx {
            return self;
        }
        Self::new(self.num << (self.szx - szx), self.more, szx).unwrap_or(self)
    }
}

/// The exponent of the largest block that is no longer than `bytes`; `None` below 16.
pub fn szx_within(bytes: usize) -> Option<u8> {
    (0..=BlockValue::MAX_SZX).rev().find(|szx| 16_usize << szx <= bytes)
}

/// One block of a body, and the option that says so. `None` where the body has no such block: a body has none that starts
/// at or after its end, but an empty one has its first.
pub fn cut(body: &Bytes, wanted: BlockValue) -> Option<(Bytes, BlockValue)> {
    let start = wanted.offset();
    if start >= body.len() && wanted.num > 0 {
        return None;
    }
    let end = body.len().min(start + wanted.size());
    Some((body.slice(start..end), wanted.with_more(end < body.len())))
}

/// How much of other people's data is held at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyLimits {
    /// The longest body, in bytes.
    pub body: usize,
    /// Bodies of all peers.
    pub bodies: usize,
    /// Bodies of one peer.
    pub per_peer: usize,
    /// Bytes of all bodies, their book-keeping ([`BodyLimits::OVERHEAD`] each) included.
    pub bytes: usize,
    /// How long a body may lie still, in milliseconds.
    pub idle_ms: u64,
    /// How long a transfer may take as a whole, in milliseconds.
    pub whole_ms: u64,
}

impl BodyLimits {
    /// What a body counts beside its bytes.
    pub const OVERHEAD: usize = 256;
}

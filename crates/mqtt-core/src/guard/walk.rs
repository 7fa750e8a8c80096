//! A cursor over a packet's bytes that never leaves them.

use crate::fault::Broken;

/// Where in a packet the walk is. Every read is checked against the packet's end.
pub(super) struct Walk<'a> {
    bytes: &'a [u8],
    at: usize,
}

const SHORT: &str = "a packet that ends before its parts do";

impl<'a> Walk<'a> {
    pub(super) fn new(bytes: &'a [u8], at: usize) -> Self {
        Self { bytes, at }
    }

    /// The offset from the packet's first byte.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.at >= self.bytes.len()
    }

    /// Everything that is left.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    /// There must be nothing left.
    pub(super) fn end(&self) -> Result<(), Broken> {
        if self.is_at_end() {
            Ok(())
        } else {
            Err(Broken::malformed("bytes behind the last part of a packet"))
        }
    }

    /// Takes `count` bytes as a walk of their own, which counts from the same first byte and ends where they end.
    pub(super) fn part(&mut self, count: usize) -> Result<Self, Broken> {
        let at = self.at;
        self.take(count)?;
        Ok(Self { bytes: self.bytes.get(..self.at).unwrap_or_default(), at })
    }

    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], Broken> {
        let end = self.at.checked_add(count).ok_or(Broken::malformed(SHORT))?;
        let taken = self.bytes.get(self.at..end).ok_or(Broken::malformed(SHORT))?;
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Broken> {
        self.take(N)?.try_into().map_err(|_| Broken::malformed(SHORT))
    }

    pub(super) fn u8(&mut self) -> Result<u8, Broken> {
        self.array().map(|[byte]| byte)
    }

    pub(super) fn u16(&mut self) -> Result<u16, Broken> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Broken> {
        self.array().map(u32::from_be_bytes)
    }

    /// A Variable Byte Integer in its shortest form [MQTT-1.5.5-1].
    pub(super) fn variable(&mut self) -> Result<u32, Broken> {
        let mut value = 0_u32;
        for shift in [0, 7, 14, 21] {
            let byte = self.u8()?;
            value |= u32::from(byte & 0x7F) << shift;
            if byte & 0x80 == 0 {
                let minimal = byte != 0 || shift == 0;
                return if minimal {
                    Ok(value)
                } else {
                    Err(Broken::malformed("a length of more bytes than it needs"))
                };
            }
        }
        Err(Broken::malformed("a variable byte integer of more than four bytes"))
    }

    /// Binary data: two bytes of length, then as many.
    pub(super) fn binary(&mut self) -> Result<&'a [u8], Broken> {
        let length = self.u16()?;
        self.take(usize::from(length))
    }

    /// A UTF-8 string: well-formed, so without surrogates [MQTT-1.5.4-1], and without U+0000 [MQTT-1.5.4-2].
    pub(super) fn text(&mut self) -> Result<&'a str, Broken> {
        let text =
            std::str::from_utf8(self.binary()?).map_err(|_| Broken::malformed("a text that is not UTF-8"))?;
        if text.contains('\0') { Err(Broken::malformed("U+0000 in a text")) } else { Ok(text) }
    }
}

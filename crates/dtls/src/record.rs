//! The record layer's frame (RFC 6347, section 4.1): thirteen bytes before every record.
//!
//! Owns: reading and writing that header. Does not own: what a record protects (`suite`), which records come twice
//! (`replay`).

/// Bytes of a record header.
pub(crate) const HEADER: usize = 13;

/// The most bytes of one record's plaintext.
pub(crate) const MAX_PLAINTEXT: usize = 1 << 14;

/// DTLS 1.0 as it stands on the wire: the version of the first records of many a client.
pub(crate) const DTLS_1_0: u16 = 0xFEFF;

/// DTLS 1.2 as it stands on the wire.
pub(crate) const DTLS_1_2: u16 = 0xFEFD;

/// Sequence numbers have 48 bits.
pub(crate) const MAX_SEQUENCE: u64 = (1 << 48) - 1;

/// What is in a record, by its registered number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ContentType(pub(crate) u8);

impl ContentType {
    pub(crate) const CHANGE_CIPHER_SPEC: Self = Self(20);
    pub(crate) const ALERT: Self = Self(21);
    pub(crate) const HANDSHAKE: Self = Self(22);
    pub(crate) const APPLICATION_DATA: Self = Self(23);
}

/// The header of one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RecordHeader {
    pub(crate) content: ContentType,
    pub(crate) version: u16,
    pub(crate) epoch: u16,
    /// 0 to [`MAX_SEQUENCE`].
    pub(crate) sequence: u64,
    /// Bytes that follow the header.
    pub(crate) length: u16,
}

impl RecordHeader {
    /// A header of a record that this side sends.
    pub(crate) const fn new(content: ContentType, epoch: u16, sequence: u64, length: u16) -> Self {
        Self { content, version: DTLS_1_2, epoch, sequence, length }
    }

    /// The header that `bytes` begin with, and what follows it. `None` for fewer bytes than a header has, or a version whose
    /// first byte is not that of every DTLS.
    pub(crate) fn read(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (header, rest) = bytes.split_first_chunk::<HEADER>()?;
        Some((Self::from_bytes(header)?, rest))
    }

    fn from_bytes(header: &[u8; HEADER]) -> Option<Self> {
        let &[content, v0, v1, e0, e1, s0, s1, s2, s3, s4, s5, l0, l1] = header;
        (v0 == 0xFE).then(|| Self {
            content: ContentType(content),
            version: u16::from_be_bytes([v0, v1]),
            epoch: u16::from_be_bytes([e0, e1]),
            sequence: u64::from_be_bytes([0, 0, s0, s1, s2, s3, s4, s5]),
            length: u16::from_be_bytes([l0, l1]),
        })
    }

    /// As it stands on the wire.
    pub(crate) fn to_bytes(self) -> [u8; HEADER] {
        let [v0, v1] = self.version.to_be_bytes();
        let [l0, l1] = self.length.to_be_bytes();
        let [e0, e1, s0, s1, s2, s3, s4, s5] = self.number();
        [self.content.0, v0, v1, e0, e1, s0, s1, s2, s3, s4, s5, l0, l1]
    }

    /// Epoch and sequence number in the eight bytes that nonce and additional data have them in.
    pub(crate) fn number(self) -> [u8; 8] {
        (u64::from(self.epoch) << 48 | self.sequence & MAX_SEQUENCE).to_be_bytes()
    }
}

/// The records of a datagram, in order; ends at the first that is none or is cut short.
pub(crate) struct Records<'a> {
    rest: &'a mut [u8],
}

impl<'a> Records<'a> {
    pub(crate) fn new(datagram: &'a mut [u8]) -> Self {
        Self { rest: datagram }
    }

    /// Bytes are left that are no record.
    pub(crate) fn is_broken(&self) -> bool {
        !self.rest.is_empty()
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = (RecordHeader, &'a mut [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (header, after) = RecordHeader::read(self.rest)?;
        if after.len() < usize::from(header.length) {
            return None;
        }
        let (record, rest) = std::mem::take(&mut self.rest).split_at_mut(HEADER + usize::from(header.length));
        self.rest = rest;
        Some((header, record.get_mut(HEADER..)?))
    }
}

#[cfg(test)]
mod tests;

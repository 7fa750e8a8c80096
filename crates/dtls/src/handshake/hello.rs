//! What a ClientHello begins with: all that is looked at before its sender has proven that it can be reached.
//!
//! Owns: version, random, session id and cookie of the first fragment. Does not own: suites and extensions
//! (`client_hello`), the cookie's meaning (the listener).

use super::client_hello::{extension, is_1_2_or_later, numbers};
use super::{FragmentHeader, MessageType, Reader};
use crate::record::{ContentType, DTLS_1_2, RecordHeader};

/// The start of a ClientHello (RFC 5246, section 7.4.1.2; RFC 6347, section 4.2.1), and of the datagram that it came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HelloStart<'a> {
    /// The version of its record.
    pub(crate) record_version: u16,
    /// The number of its record, in epoch 0: an answer that keeps no count takes the same.
    pub(crate) record_sequence: u64,
    /// The number of the message.
    pub(crate) message_seq: u16,
    /// Bytes of the whole message; this fragment may have fewer.
    pub(crate) length: u32,
    /// The highest version that the client speaks.
    pub(crate) version: u16,
    pub(crate) random: &'a [u8; 32],
    /// At most 32 bytes.
    pub(crate) session_id: &'a [u8],
    /// At most 255 bytes; empty when the client has none yet.
    pub(crate) cookie: &'a [u8],
    /// What follows the cookie in this fragment: the suites, or as much of them as came.
    pub(crate) rest: &'a [u8],
}

impl<'a> HelloStart<'a> {
    /// Reads the first record of a datagram. `None` for all that is not the first fragment of a ClientHello in epoch 0 with all
    /// of its cookie in it.
    pub(crate) fn read(datagram: &'a [u8]) -> Option<Self> {
        let (record, bytes) = RecordHeader::read(datagram)?;
        if record.content != ContentType::HANDSHAKE || record.epoch != 0 {
            return None;
        }
        let (header, body, _) = FragmentHeader::read(bytes.get(..usize::from(record.length))?)?;
        if header.kind != MessageType::CLIENT_HELLO || header.offset != 0 {
            return None;
        }
        let (version, body) = body.split_first_chunk::<2>()?;
        let (random, body) = body.split_first_chunk::<32>()?;
        let (session_id, body) = short(body, 32)?;
        let (cookie, rest) = short(body, 255)?;
        Some(Self {
            record_version: record.version,
            record_sequence: record.sequence,
            message_seq: header.message_seq,
            length: header.length,
            version: u16::from_be_bytes(*version),
            random,
            session_id,
            cookie,
            rest,
        })
    }

    /// Whether the client speaks DTLS 1.2, as far as this fragment says. A client of a later version says 1.2 in the field for
    /// it and the truth in an extension (RFC 9147, section 5.3). Where that is not in this fragment, as with a key share of
    /// more than a datagram, the suites tell: those of 1.3 are no others'.
    pub(crate) fn speaks_1_2(&self) -> bool {
        if !is_1_2_or_later(self.version) {
            return false;
        }
        let mut reader = Reader(self.rest);
        let Some(suites) = reader.vec16() else { return true };
        match versions(reader) {
            Some(Some(list)) => numbers(list).any(|version| version == DTLS_1_2),
            Some(None) => true,
            None => suites.is_empty() || !numbers(suites).all(is_of_1_3),
        }
    }
}

/// The versions that a hello lists, behind its suites; inner `None` when it lists none, `None` when that cannot be known.
fn versions(mut reader: Reader<'_>) -> Option<Option<&[u8]>> {
    reader.vec8()?; // Compression methods.
    if reader.0.is_empty() {
        return None;
    }
    let length = usize::from(reader.u16()?);
    let is_whole = reader.0.len() >= length;
    while !reader.0.is_empty() {
        let kind = reader.u16()?;
        let mut value = Reader(reader.vec16()?);
        if kind == extension::SUPPORTED_VERSIONS {
            return value.vec8().map(Some);
        }
    }
    is_whole.then_some(None)
}

/// A suite of TLS 1.3 (RFC 8446, section B.4), or a number that stands for none: a signal, or one that is reserved to be
/// passed over (RFC 8701).
fn is_of_1_3(suite: u16) -> bool {
    let [high, low] = suite.to_be_bytes();
    high == 0x13 || matches!(suite, 0x00FF | 0x5600) || high == low && low & 0xF == 0xA
}

/// A vector with one byte of length, of at most `max` bytes, and what follows it.
fn short(bytes: &[u8], max: u8) -> Option<(&[u8], &[u8])> {
    let (&length, rest) = bytes.split_first()?;
    if length > max {
        return None;
    }
    rest.split_at_checked(usize::from(length))
}

#[cfg(test)]
mod tests;

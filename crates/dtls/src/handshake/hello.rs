//! What a ClientHello begins with: all that is looked at before its sender has proven that it can be reached.
//!
//! Owns: version, random, session id and cookie of the first fragment. Does not own: suites and extensions
//! (`client_hello`), the cookie's meaning (the listener).

use super::{FragmentHeader, MessageType};
use crate::record::{ContentType, RecordHeader};

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

    /// Whether the client speaks DTLS 1.2: versions count downwards from 1.0's 0xFEFF, and a client of a later one says the
    /// same and more in an extension.
    pub(crate) fn speaks_1_2(&self) -> bool {
        self.version >> 8 == 0xFE && self.version <= crate::record::DTLS_1_2
    }
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

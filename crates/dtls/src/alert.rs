//! Alerts (RFC 5246, section 7.2).
//!
//! Owns: their codes and their bytes. Does not own: when one is sent.

use crate::record::{self, ContentType, RecordHeader};

/// What went wrong, by its registered number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Alert(pub(crate) u8);

impl Alert {
    pub(crate) const CLOSE_NOTIFY: Self = Self(0);
    pub(crate) const UNEXPECTED_MESSAGE: Self = Self(10);
    pub(crate) const BAD_RECORD_MAC: Self = Self(20);
    pub(crate) const HANDSHAKE_FAILURE: Self = Self(40);
    pub(crate) const BAD_CERTIFICATE: Self = Self(42);
    pub(crate) const CERTIFICATE_EXPIRED: Self = Self(45);
    pub(crate) const ILLEGAL_PARAMETER: Self = Self(47);
    pub(crate) const UNKNOWN_CA: Self = Self(48);
    pub(crate) const ACCESS_DENIED: Self = Self(49);
    pub(crate) const DECODE_ERROR: Self = Self(50);
    pub(crate) const DECRYPT_ERROR: Self = Self(51);
    pub(crate) const PROTOCOL_VERSION: Self = Self(70);
    pub(crate) const INTERNAL_ERROR: Self = Self(80);

    /// Bytes of a record in epoch 0 with an alert in it.
    pub(crate) const RECORD: usize = record::HEADER + 2;

    /// The two bytes of it: close_notify is a warning, all others that are sent here are fatal.
    pub(crate) const fn to_bytes(self) -> [u8; 2] {
        [if self.0 == Self::CLOSE_NOTIFY.0 { 1 } else { 2 }, self.0]
    }

    /// Level is fatal, and the code.
    pub(crate) const fn read(body: &[u8]) -> Option<(bool, Self)> {
        match body {
            &[level @ (1 | 2), code] => Some((level == 2, Self(code))),
            _ => None,
        }
    }

    /// A whole record in epoch 0.
    pub(crate) fn to_record(self, sequence: u64) -> [u8; Self::RECORD] {
        let mut record = [0; Self::RECORD];
        let header = RecordHeader::new(ContentType::ALERT, 0, sequence, 2).to_bytes();
        for (place, byte) in record.iter_mut().zip(header.into_iter().chain(self.to_bytes())) {
            *place = byte;
        }
        record
    }
}

//! The whole of a ClientHello (RFC 5246, section 7.4.1.2).
//!
//! Owns: its suites, and the extensions that mean something here. Does not own: what is chosen among them.

use super::Reader;
use crate::record::DTLS_1_2;

/// The signalling suite of RFC 5746, section 3.3.
const EMPTY_RENEGOTIATION_INFO: u16 = 0x00FF;

pub(super) mod extension {
    pub(super) const SUPPORTED_GROUPS: u16 = 10;
    pub(super) const EC_POINT_FORMATS: u16 = 11;
    pub(super) const SIGNATURE_ALGORITHMS: u16 = 13;
    pub(super) const EXTENDED_MASTER_SECRET: u16 = 23;
    pub(in crate::handshake) const SUPPORTED_VERSIONS: u16 = 43;
    pub(super) const RENEGOTIATION_INFO: u16 = 0xFF01;
}

/// What a client offers.
#[derive(Clone, Debug)]
pub(crate) struct ClientHello<'a> {
    /// The highest version that it speaks, up to 1.2.
    version: u16,
    pub(crate) random: [u8; 32],
    suites: &'a [u8],
    compressions: &'a [u8],
    groups: Option<&'a [u8]>,
    schemes: Option<&'a [u8]>,
    versions: Option<&'a [u8]>,
    /// It wants to know which point formats are read (RFC 8422, section 5.1.2).
    pub(crate) point_formats: bool,
    /// RFC 7627.
    pub(crate) extended_master_secret: bool,
    /// It wants to hear that this is no renegotiation (RFC 5746).
    pub(crate) secure_renegotiation: bool,
}

impl<'a> ClientHello<'a> {
    /// Reads a message without its header. `None` when it cannot be read, or says something that a first hello cannot say.
    pub(crate) fn read(body: &'a [u8]) -> Option<Self> {
        let mut reader = Reader(body);
        let version = reader.u16()?;
        let random = *reader.array()?;
        reader.vec8().filter(|session_id| session_id.len() <= 32)?;
        reader.vec8()?; // The cookie, which was looked at before.
        let suites = reader.vec16().filter(|suites| !suites.is_empty() && suites.len() % 2 == 0)?;
        let compressions = reader.vec8()?;
        let mut hello = Self {
            version,
            random,
            suites,
            compressions,
            groups: None,
            schemes: None,
            versions: None,
            point_formats: false,
            extended_master_secret: false,
            secure_renegotiation: false,
        };
        hello.secure_renegotiation = numbers(suites).any(|suite| suite == EMPTY_RENEGOTIATION_INFO);
        if !reader.0.is_empty() {
            hello.read_extensions(reader.vec16()?)?;
            reader.end()?;
        }
        Some(hello)
    }

    fn read_extensions(&mut self, extensions: &'a [u8]) -> Option<()> {
        let mut reader = Reader(extensions);
        let mut kinds = Vec::with_capacity(16);
        while !reader.0.is_empty() {
            let kind = reader.u16()?;
            kinds.push(kind);
            let mut value = Reader(reader.vec16()?);
            match kind {
                extension::SUPPORTED_GROUPS => self.groups = Some(value.vec16()?),
                extension::SUPPORTED_VERSIONS => self.versions = Some(value.vec8()?),
                extension::SIGNATURE_ALGORITHMS => self.schemes = Some(value.vec16()?),
                extension::EC_POINT_FORMATS => {
                    value.vec8()?;
                    self.point_formats = true;
                }
                extension::EXTENDED_MASTER_SECRET => self.extended_master_secret = true,
                extension::RENEGOTIATION_INFO => {
                    // Anything but nothing would renegotiate what was never there.
                    value.vec8().filter(|info| info.is_empty())?;
                    self.secure_renegotiation = true;
                }
                _ => continue,
            }
            value.end()?;
        }
        // Each at most once (RFC 5246, section 7.4.1.4), also those that mean nothing here.
        kinds.sort_unstable();
        kinds.is_sorted_by(|one, next| one < next).then_some(())
    }

    /// Whether it speaks DTLS 1.2: versions count downwards from 1.0's 0xFEFF. A client that lists its versions (RFC 8446, section
    /// 4.2.1) speaks those and no others.
    pub(crate) fn speaks_1_2(&self) -> bool {
        is_1_2_or_later(self.version)
            && self.versions.is_none_or(|list| numbers(list).any(|version| version == DTLS_1_2))
    }

    /// Suites in the client's order.
    pub(crate) fn suites(&self) -> impl Iterator<Item = u16> {
        numbers(self.suites)
    }

    /// Groups in the client's order; `None` when it says nothing about them.
    pub(crate) fn groups(&self) -> Option<impl Iterator<Item = u16>> {
        self.groups.map(numbers)
    }

    /// Signature schemes in the client's order; `None` when it says nothing about them.
    pub(crate) fn schemes(&self) -> Option<impl Iterator<Item = u16>> {
        self.schemes.map(numbers)
    }

    /// Whether it takes what is not compressed, as it must.
    pub(crate) fn takes_uncompressed(&self) -> bool {
        self.compressions.contains(&0)
    }
}

/// As the field of a ClientHello has it, which a client of a later version fills as one of 1.2 does.
pub(super) const fn is_1_2_or_later(version: u16) -> bool {
    version >> 8 == 0xFE && version <= DTLS_1_2
}

pub(super) fn numbers(bytes: &[u8]) -> impl Iterator<Item = u16> {
    bytes.chunks_exact(2).filter_map(|pair| pair.first_chunk()).map(|pair| u16::from_be_bytes(*pair))
}

#[cfg(test)]
mod tests;

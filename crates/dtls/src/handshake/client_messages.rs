//! What a client says after its ClientHello (RFC 5246, sections 7.4.6 to 7.4.8; RFC 4279; RFC 8422).
//!
//! Owns: reading these messages without their headers; `None` for what cannot be read. Does not own: whether they hold.

use rustls_pki_types::CertificateDer;

use super::Reader;

/// The identity in a ClientKeyExchange of a PSK suite.
pub(crate) fn psk_identity(body: &[u8]) -> Option<&[u8]> {
    let mut reader = Reader(body);
    let identity = reader.vec16()?;
    reader.end()?;
    Some(identity)
}

/// The client's point in a ClientKeyExchange of an ECDHE suite.
pub(crate) fn ecdhe_point(body: &[u8]) -> Option<&[u8]> {
    let mut reader = Reader(body);
    let point = reader.vec8()?;
    reader.end()?;
    Some(point)
}

/// The certificates of a Certificate message, the client's own first; none at all is an answer too.
pub(crate) fn certificates(body: &[u8]) -> Option<Vec<CertificateDer<'_>>> {
    let mut reader = Reader(body);
    let mut list = Reader(reader.vec24()?);
    reader.end()?;
    let mut certificates = Vec::new();
    while !list.0.is_empty() {
        certificates.push(CertificateDer::from(list.vec24().filter(|one| !one.is_empty())?));
    }
    Some(certificates)
}

/// Scheme and signature of a CertificateVerify.
pub(crate) fn signature(body: &[u8]) -> Option<(u16, &[u8])> {
    let mut reader = Reader(body);
    let scheme = reader.u16()?;
    let signature = reader.vec16()?;
    reader.end()?;
    Some((scheme, signature))
}

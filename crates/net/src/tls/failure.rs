//! Why a TLS handshake came to nothing, in words of the wire.
//!
//! Owns: which word stands for which error. Does not own: the errors (rustls), the events.

use std::io;

use landfall_event::RefusedDetail;
use rustls::{CertificateError, Error, InvalidMessage, PeerIncompatible};

/// The word for what ended a handshake.
pub(crate) fn detail_of(error: &io::Error) -> RefusedDetail {
    match error.get_ref().and_then(|error| error.downcast_ref::<Error>()) {
        Some(error) => of_tls(error),
        None if error.kind() == io::ErrorKind::TimedOut => RefusedDetail::TimedOut,
        None if error.kind() == io::ErrorKind::InvalidData => RefusedDetail::HandshakeTooLarge,
        None => RefusedDetail::Closed,
    }
}

fn of_tls(error: &Error) -> RefusedDetail {
    match error {
        // No record of TLS begins with such a byte.
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => RefusedDetail::PlainBytes,
        Error::InvalidMessage(InvalidMessage::UnknownProtocolVersion) => RefusedDetail::ProtocolVersion,
        Error::InvalidMessage(
            InvalidMessage::HandshakePayloadTooLarge | InvalidMessage::CertificatePayloadTooLarge,
        ) => RefusedDetail::HandshakeTooLarge,
        Error::NoCertificatesPresented => RefusedDetail::NoCertificate,
        Error::InvalidCertificate(error) => of_certificate(error),
        Error::PeerIncompatible(error) => of_offer(error),
        Error::AlertReceived(alert) => RefusedDetail::of_alert(u8::from(*alert)),
        _ => RefusedDetail::HandshakeMalformed,
    }
}

fn of_certificate(error: &CertificateError) -> RefusedDetail {
    match error {
        CertificateError::UnknownIssuer => RefusedDetail::UnknownAuthority,
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            RefusedDetail::CertificateExpired
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            RefusedDetail::CertificateNotYetValid
        }
        _ => RefusedDetail::CertificateInvalid,
    }
}

fn of_offer(error: &PeerIncompatible) -> RefusedDetail {
    match error {
        // Looked for before the version: the versions before 1.2 do not have it.
        PeerIncompatible::SignatureAlgorithmsExtensionRequired
        | PeerIncompatible::ServerDoesNotSupportTls12Or13
        | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
        | PeerIncompatible::SupportedVersionsExtensionRequired
        | PeerIncompatible::Tls12NotOffered
        | PeerIncompatible::Tls12NotOfferedOrEnabled => RefusedDetail::ProtocolVersion,
        PeerIncompatible::NoCipherSuitesInCommon => RefusedDetail::NoCommonSuite,
        _ => RefusedDetail::NoCommonParameters,
    }
}

#[cfg(test)]
mod tests {
    use rustls::AlertDescription;

    use super::*;

    #[test]
    fn what_an_operator_mends_in_different_places_has_different_words() {
        let of = |error: Error| detail_of(&io::Error::new(io::ErrorKind::InvalidData, error)).as_str();
        for (error, word) in [
            (InvalidMessage::InvalidContentType.into(), "no TLS: plain bytes"),
            (InvalidMessage::MissingData("x").into(), "malformed handshake"),
            (Error::NoCertificatesPresented, "no certificate"),
            (CertificateError::UnknownIssuer.into(), "unknown certificate authority"),
            (CertificateError::Expired.into(), "certificate expired"),
            (CertificateError::NotValidYet.into(), "certificate not yet valid"),
            (CertificateError::BadSignature.into(), "certificate not valid"),
            (PeerIncompatible::Tls12NotOffered.into(), "protocol version"),
            (PeerIncompatible::NoCipherSuitesInCommon.into(), "no common cipher suite"),
            (PeerIncompatible::NoKxGroupsInCommon.into(), "no common group or signature scheme"),
            (
                Error::AlertReceived(AlertDescription::UnknownCA),
                "alert of the device: unknown certificate authority",
            ),
            (
                Error::AlertReceived(AlertDescription::CertificateExpired),
                "alert of the device: certificate expired",
            ),
            (
                Error::AlertReceived(AlertDescription::BadCertificate),
                "alert of the device: certificate not accepted",
            ),
            (Error::AlertReceived(AlertDescription::InternalError), "alert of the device"),
        ] {
            assert_eq!(of(error), word);
        }
        assert_eq!(detail_of(&io::ErrorKind::UnexpectedEof.into()).as_str(), "closed by the device");
        assert_eq!(detail_of(&io::ErrorKind::TimedOut.into()).as_str(), "not finished in time");
    }
}

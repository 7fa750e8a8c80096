//! What a verified client certificate says.
//!
//! Owns: reading name and fingerprint. Does not own: verification (rustls), and who that name is.

use rustls_pki_types::CertificateDer;
use sha2::{Digest as _, Sha256};
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// A client certificate that was verified against the `client_ca` of the settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerCertificate {
    /// The subject's common name. None when it has none, an empty one, or more than one: which counts would be a guess.
    pub common_name: Option<String>,
    /// SHA-256 of the DER, lower-case hex, 64 characters.
    pub fingerprint: String,
}

impl PeerCertificate {
    /// Reads it; what cannot be read has no name. Verifying it is the caller's.
    pub fn read(der: &CertificateDer<'_>) -> Self {
        Self { common_name: common_name(der), fingerprint: hex(&Sha256::digest(der)) }
    }
}

fn common_name(der: &[u8]) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let mut names = certificate.subject().iter_common_name();
    let only = names.next()?;
    if names.next().is_some() {
        return None;
    }
    only.as_str().ok().filter(|name| !name.is_empty()).map(str::to_owned)
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

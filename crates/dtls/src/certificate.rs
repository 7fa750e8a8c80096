//! Signatures and certificate chains of the ECDSA suites (RFC 5246, section 7.4.8; RFC 8422).
//!
//! Owns: which schemes are spoken, what of `rustls` and `webpki` is used for them, the wall clock that a chain is held against.
//! Does not own: whose certificate may come in.

use rustls::RootCertStore;
use rustls::SignatureScheme;
use rustls::sign::{Signer, SigningKey};
use rustls_pki_types::{CertificateDer, SignatureVerificationAlgorithm, UnixTime};
use webpki::ring::{ECDSA_P256_SHA256, ECDSA_P256_SHA384, ECDSA_P384_SHA256, ECDSA_P384_SHA384};
use webpki::{EndEntityCert, KeyUsage};

use crate::alert::Alert;

/// What is signed with, here and by clients.
pub(crate) const SCHEMES: [SignatureScheme; 2] =
    [SignatureScheme::ECDSA_NISTP256_SHA256, SignatureScheme::ECDSA_NISTP384_SHA384];

/// The most certificates of a client's chain. Each costs signatures to be verified, while others wait.
const MAX_CHAIN: usize = 4;

/// Who signs with `key` for a client that takes `offered`; one that says nothing of it takes SHA-256 (its default, SHA-1, is
/// nobody's wish any more).
pub(crate) fn signer(
    key: &dyn SigningKey,
    offered: Option<impl Iterator<Item = u16>>,
) -> Option<Box<dyn Signer>> {
    let Some(offered) = offered else { return key.choose_scheme(&SCHEMES) };
    let offered: Vec<SignatureScheme> =
        offered.map(SignatureScheme::from).filter(|scheme| SCHEMES.contains(scheme)).collect();
    key.choose_scheme(&offered)
}

/// Whether a client's chain, its own certificate first, leads to one of `roots`; with the alert that says why not.
pub(crate) fn verify_chain(roots: &RootCertStore, chain: &[CertificateDer<'_>]) -> Result<(), Alert> {
    let (own, between) =
        chain.split_first().filter(|_| chain.len() <= MAX_CHAIN).ok_or(Alert::BAD_CERTIFICATE)?;
    let own = EndEntityCert::try_from(own).map_err(|_| Alert::BAD_CERTIFICATE)?;
    let algorithms = webpki::ALL_VERIFICATION_ALGS;
    let usage = KeyUsage::client_auth();
    let verified =
        own.verify_for_usage(algorithms, &roots.roots, between, UnixTime::now(), usage, None, None).map(drop);
    verified.map_err(|error| match error {
        webpki::Error::UnknownIssuer => Alert::UNKNOWN_CA,
        webpki::Error::CertExpired { .. } => Alert::CERTIFICATE_EXPIRED,
        _ => Alert::BAD_CERTIFICATE,
    })
}

/// Whether whoever holds the key of `certificate` has signed `message`.
pub(crate) fn is_signed(
    certificate: &CertificateDer<'_>,
    scheme: u16,
    message: &[u8],
    signature: &[u8],
) -> bool {
    // Up to TLS 1.2 a scheme names the hash alone, not the curve.
    let algorithms: [&dyn SignatureVerificationAlgorithm; 2] = match SignatureScheme::from(scheme) {
        SignatureScheme::ECDSA_NISTP256_SHA256 => [ECDSA_P256_SHA256, ECDSA_P384_SHA256],
        SignatureScheme::ECDSA_NISTP384_SHA384 => [ECDSA_P256_SHA384, ECDSA_P384_SHA384],
        _ => return false,
    };
    let Ok(certificate) = EndEntityCert::try_from(certificate) else { return false };
    algorithms.into_iter().any(|one| certificate.verify_signature(one, message, signature).is_ok())
}

//! What a listener's associations share.
//!
//! Owns: the values and whether they go together. Does not own: where they come from.

use std::sync::Arc;

use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys, RootCertStore};

use crate::certificate;

/// What all associations of a listener share.
pub struct ServerConfig {
    /// PSK suites are offered.
    pub psk: bool,
    /// The server's certificate, for the ECDHE-ECDSA suites: its key must be one for ECDSA.
    pub certificate: Option<Arc<CertifiedKey>>,
    /// Who may sign client certificates; `None`: none is asked for.
    pub client_ca: Option<Arc<RootCertStore>>,
    /// A client of a certificate suite must show a certificate.
    pub require_client_certificate: bool,
    /// Bytes of a datagram (UDP payload) that handshake messages are cut to fit in: 256 to 16,384.
    pub mtu: usize,
}

/// Why a configuration is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Neither PSK nor a certificate.
    #[error("there is nothing to offer: neither keys of devices (PSK) nor a certificate")]
    NothingToOffer,
    /// The key is RSA or Ed25519, or on a curve other than P-256 and P-384.
    #[error("the certificate's key must be ECDSA on P-256 or P-384: clients of DTLS have no other suites")]
    NotEcdsa,
    /// The certificate belongs to another key.
    #[error("the certificate does not belong to the key")]
    KeyMismatch,
    /// There is no certificate in the chain.
    #[error("there is no certificate beside the key")]
    NoCertificate,
    /// Client certificates are required, and nobody may sign them.
    #[error("client certificates are required, but there is no CA that they could be signed by")]
    NoClientCa,
    /// Too small for a handshake, or larger than a record.
    #[error("the mtu must be 256 to 16384 bytes")]
    Mtu,
}

impl ServerConfig {
    /// Whether the values go together; to be asked once, before the first association.
    ///
    /// # Errors
    /// What does not, in an operator's words.
    pub fn check(&self) -> Result<(), ConfigError> {
        if !self.psk && self.certificate.is_none() {
            return Err(ConfigError::NothingToOffer);
        }
        if let Some(certified) = &self.certificate {
            Self::check_certificate(certified)?;
            if self.require_client_certificate && self.client_ca.as_ref().is_none_or(|roots| roots.is_empty())
            {
                return Err(ConfigError::NoClientCa);
            }
        }
        if (256..=16_384).contains(&self.mtu) { Ok(()) } else { Err(ConfigError::Mtu) }
    }

    /// Whether a certificate and its key are of use for the ECDHE-ECDSA suites.
    ///
    /// # Errors
    /// [`ConfigError::NotEcdsa`], [`ConfigError::KeyMismatch`] or [`ConfigError::NoCertificate`].
    pub fn check_certificate(certified: &CertifiedKey) -> Result<(), ConfigError> {
        if certified.key.choose_scheme(&certificate::SCHEMES).is_none() {
            return Err(ConfigError::NotEcdsa);
        }
        if certified.cert.is_empty() {
            return Err(ConfigError::NoCertificate);
        }
        match certified.keys_match() {
            Err(Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => Err(ConfigError::KeyMismatch),
            _ => Ok(()),
        }
    }
}

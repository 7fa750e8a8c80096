//! What a listener's associations share.
//!
//! Owns: the values. Does not own: where they come from.

use std::sync::Arc;

use rustls::RootCertStore;
use rustls::sign::CertifiedKey;

/// What all associations of a listener share.
pub struct ServerConfig {
    /// PSK suites are offered.
    pub psk: bool,
    /// The server's certificate, for the ECDHE-ECDSA suites: its key must be one for ECDSA.
    pub certificate: Option<Arc<CertifiedKey>>,
    /// Who may sign client certificates; `None`: none is asked for.
    pub client_ca: Option<Arc<RootCertStore>>,
    /// A client of a certificate suite must show a certificate. Without a CA none can: then these suites are not offered.
    pub require_client_certificate: bool,
    /// Bytes of a datagram (UDP payload) that handshake messages are cut to fit in: 256 to 16,384.
    pub mtu: usize,
    /// Records of a channel that may fail to authenticate: with the last of them it is closed (RFC 9147, section 4.5.3). At least
    /// 1, up to [`ServerConfig::MOST_FORGED`].
    pub max_forged: u32,
}

impl ServerConfig {
    /// The most of [`ServerConfig::max_forged`]: 2^23.5, what CCM bears with a whole tag (RFC 9147, section 4.5.3).
    pub const MOST_FORGED: u32 = 11_863_283;
}

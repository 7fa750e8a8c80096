//! All messages of a handshake so far, as Finished and CertificateVerify mean them (RFC 6347, section 4.2.6).
//!
//! Owns: their hash, and where a client's certificate is asked for, their bytes. Does not own: which messages count.

use ring::digest::{Context, SHA256};

use crate::handshake::FragmentHeader;

/// The messages so far, each as if it had come in one piece.
pub(super) struct Transcript {
    hash: Context,
    /// What a CertificateVerify signs: it may be hashed otherwise, and is verified as a whole.
    bytes: Option<Vec<u8>>,
}

impl Transcript {
    /// None yet. `keeps` the bytes for [`Transcript::bytes`].
    pub(super) fn new(keeps: bool) -> Self {
        Self { hash: Context::new(&SHA256), bytes: keeps.then(Vec::new) }
    }

    /// A message came, or was sent.
    pub(super) fn push(&mut self, header: &FragmentHeader, body: &[u8]) {
        self.extend(&header.to_bytes());
        self.extend(body);
    }

    /// Whole messages, headers and all.
    pub(super) fn extend(&mut self, messages: &[u8]) {
        self.hash.update(messages);
        if let Some(bytes) = &mut self.bytes {
            bytes.extend(messages);
        }
    }

    /// SHA-256 of all so far.
    pub(super) fn hash(&self) -> [u8; 32] {
        self.hash.clone().finish().as_ref().first_chunk().copied().unwrap_or_default()
    }

    /// The messages so far, where they are kept.
    pub(super) fn bytes(&self) -> &[u8] {
        self.bytes.as_deref().unwrap_or_default()
    }

    /// Nothing more is signed.
    pub(super) fn forget_bytes(&mut self) {
        self.bytes = None;
    }
}

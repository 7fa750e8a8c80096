//! What is chosen of what a client offers.
//!
//! Owns: suites, groups and signers that both sides have. Does not own: what the client offers (`client_hello`).

use ring::agreement::{
    Algorithm, ECDH_P256, EphemeralPrivateKey, UnparsedPublicKey, X25519, agree_ephemeral,
};
use ring::rand::SystemRandom;
use rustls::sign::{CertifiedKey, Signer};
use zeroize::Zeroizing;

use super::config::ServerConfig;
use crate::certificate;
use crate::handshake::client_hello::ClientHello;
use crate::keys::Premaster;
use crate::suite::Suite;

/// What a handshake goes on with.
pub(super) enum Choice<'a> {
    Psk(Suite),
    Ecdsa { suite: Suite, group: Group, signer: Box<dyn Signer>, certified: &'a CertifiedKey },
}

impl Choice<'_> {
    pub(super) fn suite(&self) -> Suite {
        match self {
            Self::Psk(suite) | Self::Ecdsa { suite, .. } => *suite,
        }
    }
}

/// The first suite of the client's for which everything is there; one with a pre-shared key before one without. Whoever offers
/// such a suite has a key, while stacks list the suites of certificates whether they have one or not.
pub(super) fn choose<'a>(config: &'a ServerConfig, hello: &ClientHello<'_>) -> Option<Choice<'a>> {
    let can_be_asked = !config.require_client_certificate || config.client_ca.is_some();
    let certified = config.certificate.as_deref().filter(|_| can_be_asked);
    let choice = |suite: Suite| {
        if suite.is_psk() {
            return config.psk.then_some(Choice::Psk(suite));
        }
        let (certified, group) = (certified?, Group::choose(hello)?);
        let signer = certificate::signer(certified.key.as_ref(), hello.schemes())?;
        Some(Choice::Ecdsa { suite, group, signer, certified })
    };
    let first = |is_psk| {
        let suites = hello.suites().filter_map(Suite::from_code);
        suites.filter(|suite| suite.is_psk() == is_psk).find_map(choice)
    };
    first(true).or_else(|| first(false))
}

/// Where an ECDHE exchange happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Group {
    Secp256r1,
    X25519,
}

impl Group {
    /// The first of the client's; P-256 for one that does not say (RFC 8422, section 4).
    fn choose(hello: &ClientHello<'_>) -> Option<Self> {
        hello.groups().map_or(Some(Self::Secp256r1), |mut groups| groups.find_map(Self::from_code))
    }

    const fn from_code(code: u16) -> Option<Self> {
        match code {
            23 => Some(Self::Secp256r1),
            29 => Some(Self::X25519),
            _ => None,
        }
    }

    /// Its registered number.
    pub(super) const fn code(self) -> u16 {
        match self {
            Self::Secp256r1 => 23,
            Self::X25519 => 29,
        }
    }

    fn algorithm(self) -> &'static Algorithm {
        match self {
            Self::Secp256r1 => &ECDH_P256,
            Self::X25519 => &X25519,
        }
    }
}

/// This side of an ECDHE exchange; used once.
pub(super) struct Exchange {
    group: Group,
    private: EphemeralPrivateKey,
}

impl Exchange {
    /// A new one; `None` when the system has no randomness.
    pub(super) fn generate(group: Group) -> Option<Self> {
        let private = EphemeralPrivateKey::generate(group.algorithm(), &SystemRandom::new()).ok()?;
        Some(Self { group, private })
    }

    /// What the client is told.
    pub(super) fn point(&self) -> Option<Vec<u8>> {
        self.private.compute_public_key().ok().map(|point| point.as_ref().to_vec())
    }

    /// What both sides know then; `None` when the client's point is none.
    pub(super) fn agree(self, point: &[u8]) -> Option<Premaster> {
        let peer = UnparsedPublicKey::new(self.group.algorithm(), point);
        agree_ephemeral(self.private, &peer, |shared| Zeroizing::new(shared.to_vec())).ok()
    }
}

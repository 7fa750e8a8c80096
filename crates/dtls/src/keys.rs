//! What keys are made of (RFC 5246, sections 5, 6.3 and 8.1; RFC 7627; RFC 4279).
//!
//! Owns: the pseudorandom function and what is derived with it. Does not own: how the premaster secret was agreed on.

use ring::hmac;
use zeroize::{Zeroize, Zeroizing};

/// Bytes of `verify_data` in a Finished.
pub(crate) const VERIFY_DATA: usize = 12;

/// A premaster secret.
pub(crate) type Premaster = Zeroizing<Vec<u8>>;

/// Both randoms, as most derivations want them: the client's, then the server's.
pub(crate) type Randoms = [[u8; 32]; 2];

/// Key and implicit nonce of one direction, for all suites here: AES-128 or AES-256, four bytes of salt.
pub(crate) struct TrafficKey {
    /// The first bytes of it, as many as the suite's key has.
    pub(crate) key: [u8; 32],
    pub(crate) salt: [u8; 4],
}

impl TrafficKey {
    /// A key of `length` bytes.
    pub(crate) fn bytes(&self, length: usize) -> Option<&[u8]> {
        self.key.get(..length)
    }
}

impl Drop for TrafficKey {
    fn drop(&mut self) {
        self.key.zeroize();
        self.salt.zeroize();
    }
}

/// Keys of both directions.
pub(crate) struct TrafficKeys {
    pub(crate) client: TrafficKey,
    pub(crate) server: TrafficKey,
}

/// Who says Finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Server,
}

/// The premaster secret of a plain PSK exchange (RFC 4279, section 2).
pub(crate) fn psk_premaster(key: &[u8]) -> Premaster {
    // A length that does not fit is no key that a client could have.
    let length = u16::try_from(key.len()).unwrap_or_default().to_be_bytes();
    let mut premaster = Zeroizing::new(Vec::with_capacity(4 + 2 * key.len()));
    premaster.extend(length);
    premaster.resize(2 + key.len(), 0);
    premaster.extend(length);
    premaster.extend(key);
    premaster
}

/// A handshake's master secret.
pub(crate) struct Master(Zeroizing<[u8; 48]>);

impl Master {
    /// From the randoms (RFC 5246, section 8.1).
    pub(crate) fn classic(premaster: &[u8], [client, server]: &Randoms) -> Self {
        Self::derive(premaster, b"master secret", &[client, server])
    }

    /// From the hash of all messages up to the ClientKeyExchange (RFC 7627, section 4).
    pub(crate) fn extended(premaster: &[u8], session_hash: &[u8]) -> Self {
        Self::derive(premaster, b"extended master secret", &[session_hash])
    }

    fn derive(premaster: &[u8], label: &[u8], seed: &[&[u8]]) -> Self {
        let mut master = Zeroizing::new([0; 48]);
        prf(premaster, label, seed, master.as_mut_slice());
        Self(master)
    }

    /// The keys of the first epoch (RFC 5246, section 6.3): both keys, of `length` bytes each, then both salts.
    pub(crate) fn traffic_keys(&self, [client, server]: &Randoms, length: usize) -> TrafficKeys {
        let mut block = Zeroizing::new([0; 2 * (32 + 4)]);
        let length = length.min(32);
        let used = block.get_mut(..2 * (length + 4)).unwrap_or_default();
        prf(self.0.as_slice(), b"key expansion", &[server, client], used);
        let of = |side: usize| {
            let mut traffic = TrafficKey { key: [0; 32], salt: [0; 4] };
            let key = block.iter().skip(side * length).take(length);
            let salt = block.iter().skip(2 * length + side * 4);
            traffic.key.iter_mut().zip(key).for_each(|(place, byte)| *place = *byte);
            traffic.salt.iter_mut().zip(salt).for_each(|(place, byte)| *place = *byte);
            traffic
        };
        TrafficKeys { client: of(0), server: of(1) }
    }

    /// What a Finished says of all messages before it (RFC 5246, section 7.4.9).
    pub(crate) fn verify_data(&self, side: Side, transcript: &[u8]) -> [u8; VERIFY_DATA] {
        let label: &[u8] = match side {
            Side::Client => b"client finished",
            Side::Server => b"server finished",
        };
        let mut data = [0; VERIFY_DATA];
        prf(self.0.as_slice(), label, &[transcript], &mut data);
        data
    }
}

/// P_SHA256 (RFC 5246, section 5), as many bytes as `out` has.
fn prf(secret: &[u8], label: &[u8], seed: &[&[u8]], out: &mut [u8]) {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let with_seed = |mut context: hmac::Context| {
        context.update(label);
        seed.iter().for_each(|part| context.update(part));
        context.sign()
    };
    let mut chain = with_seed(hmac::Context::with_key(&key));
    for chunk in out.chunks_mut(32) {
        let mut context = hmac::Context::with_key(&key);
        context.update(chain.as_ref());
        for (place, byte) in chunk.iter_mut().zip(with_seed(context).as_ref()) {
            *place = *byte;
        }
        chain = hmac::sign(&key, chain.as_ref());
    }
}

#[cfg(test)]
mod tests;

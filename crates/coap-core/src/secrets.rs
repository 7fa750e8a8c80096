//! Numbers that a stranger cannot guess, from the shell's seed alone.
//!
//! Owns: their derivation (HMAC-SHA-256 in counter mode), and the order of message ids. Does not own: what they are for.

use std::hash::{Hash, Hasher};

use ahash::RandomState;
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};

use crate::Tick;

/// Random bytes of the shell: message ids, jitter and Echo values are derived from them. Secret, and never used twice.
pub type Seed = [u8; 32];

/// The generator of one endpoint.
pub(crate) struct Secrets {
    mac: Hmac<Sha256>,
    /// Blocks drawn so far.
    drawn: u64,
    pool: [u8; 32],
    /// Bytes of the pool that are used up.
    used: usize,
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Secrets").finish_non_exhaustive()
    }
}

impl Secrets {
    pub(crate) fn new(seed: &Seed) -> Self {
        // The key is derived, so that the same seed given to something else says nothing about this.
        let key = Sha256::new().chain_update(b"coap endpoint").chain_update(seed).finalize();
        let mac = Hmac::<Sha256>::new(&block(&key));
        Self { mac, drawn: 0, pool: [0; 32], used: 32 }
    }

    /// The secret of this name; the same at every call.
    pub(crate) fn derive(&self, name: &[u8], data: &[u8]) -> [u8; 32] {
        let length = u8::try_from(name.len()).unwrap_or(u8::MAX);
        self.mac
            .clone()
            .chain_update([length])
            .chain_update(name)
            .chain_update(data)
            .finalize()
            .into_bytes()
            .into()
    }

    /// Two bytes that nobody can foresee.
    pub(crate) fn next_u16(&mut self) -> u16 {
        if self.used + 2 > self.pool.len() {
            self.pool = self.derive(b"draw", &self.drawn.to_be_bytes());
            self.drawn += 1;
            self.used = 0;
        }
        let drawn = self.pool.get(self.used..self.used + 2).unwrap_or_default();
        self.used += 2;
        drawn.iter().fold(0, |value, byte| value << 8 | u16::from(*byte))
    }

    /// A number between the two, both included, in steps of about a 65,536th of their distance.
    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + u64::from(self.next_u16()) * high.saturating_sub(low) / u64::from(u16::MAX)
    }

    /// Keys for a map that strangers fill.
    pub(crate) fn hasher(&self) -> RandomState {
        self.hasher_of(b"map")
    }

    /// Keys for what tells one datagram from another; other ones than those of the maps.
    pub(crate) fn marker(&self) -> RandomState {
        self.hasher_of(b"datagram")
    }

    fn hasher_of(&self, name: &[u8]) -> RandomState {
        let key = self.derive(name, &[]);
        let mut words = key
            .chunks_exact(8)
            .map(|chunk| chunk.iter().fold(0_u64, |value, byte| value << 8 | u64::from(*byte)));
        let mut word = || words.next().unwrap_or_default();
        RandomState::with_seeds(word(), word(), word(), word())
    }
}

/// The key as one block of the hash, which HMAC takes as it is.
fn block(key: &[u8]) -> hmac::digest::Key<Hmac<Sha256>> {
    let mut block = hmac::digest::Key::<Hmac<Sha256>>::default();
    block.iter_mut().zip(key).for_each(|(to, from)| *to = *from);
    block
}

/// What a peer feeds a hasher: bytes that differ where peers do.
pub(crate) fn peer_bytes(peer: &impl Hash) -> Vec<u8> {
    struct Collect(Vec<u8>);
    impl Hasher for Collect {
        fn finish(&self) -> u64 {
            0
        }
        fn write(&mut self, bytes: &[u8]) {
            self.0.extend_from_slice(bytes);
        }
    }
    let mut collect = Collect(Vec::with_capacity(48));
    peer.hash(&mut collect);
    collect.0
}

/// Message ids of one peer: in an order that only we know, and none twice within EXCHANGE_LIFETIME (RFC 7252, section 4.4).
///
/// A counter that never falls behind the clock, permuted: 65,536 ids at one every four milliseconds last for 262 s. A
/// burst may run ahead of the clock by what these exceed EXCHANGE_LIFETIME.
#[derive(Debug)]
pub(crate) struct MessageIds {
    key: [u8; 16],
    next: u64,
}

/// Milliseconds per id.
const PACE_MS: u64 = 4;
/// Ids that a burst may use before their time.
const BURST: u64 = 3_700;

impl MessageIds {
    pub(crate) fn new(secrets: &Secrets, peer: &impl Hash) -> Self {
        let whole = secrets.derive(b"message ids", &peer_bytes(peer));
        let mut key = [0; 16];
        key.iter_mut().zip(whole).for_each(|(to, from)| *to = from);
        Self { key, next: 0 }
    }

    /// An id; or, after too many, the time at which there is one again.
    pub(crate) fn draw(&mut self, now: Tick) -> Result<u16, Tick> {
        let next = self.next.max(now / PACE_MS);
        if next > now / PACE_MS + BURST {
            return Err((next - BURST) * PACE_MS);
        }
        self.next = next + 1;
        Ok(self.permute(next))
    }

    /// A keyed permutation of 16 bits: four Feistel rounds over its halves.
    fn permute(&self, counter: u64) -> u16 {
        let [.., mut left, mut right] = counter.to_be_bytes();
        for round in 0..4_u8 {
            let digest = Sha256::new().chain_update(self.key).chain_update([round, right]).finalize();
            (left, right) = (right, left ^ digest.first().copied().unwrap_or_default());
        }
        u16::from_be_bytes([left, right])
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::{BURST, MessageIds, Secrets};

    #[test]
    fn a_lap_has_every_id_once() {
        let mut ids = MessageIds::new(&Secrets::new(&[1; 32]), &7);
        let lap: HashSet<u16> = (0..65_536_u64).map(|n| ids.draw(n * super::PACE_MS).unwrap()).collect();
        assert_eq!(lap.len(), 65_536);
    }

    #[test]
    fn a_burst_ends_where_an_id_would_come_twice_within_the_exchange_lifetime() {
        let mut ids = MessageIds::new(&Secrets::new(&[1; 32]), &7);
        let burst = (0..).take_while(|_| ids.draw(1_000).is_ok()).count() as u64;
        assert_eq!(burst, BURST + 1);
        let again = ids.draw(1_000).unwrap_err();
        assert!(ids.draw(again - 1).is_err());
        assert!(ids.draw(again).is_ok());
        const { assert!((65_536 - BURST) * super::PACE_MS > 247_000) };
    }

    #[test]
    fn other_seeds_and_other_peers_have_other_orders() {
        let draw = |seed: u8, peer: u32| -> Vec<u16> {
            let mut ids = MessageIds::new(&Secrets::new(&[seed; 32]), &peer);
            (0..8).map(|_| ids.draw(0).unwrap()).collect()
        };
        assert_eq!(draw(1, 1), draw(1, 1));
        assert_ne!(draw(1, 1), draw(2, 1));
        assert_ne!(draw(1, 1), draw(1, 2));
        assert!(draw(1, 1).windows(2).any(|pair| pair[1] != pair[0].wrapping_add(1)));
    }

    #[test]
    fn jitter_stays_within_its_bounds_and_fills_them() {
        let mut secrets = Secrets::new(&[3; 32]);
        let drawn: Vec<u64> = (0..10_000).map(|_| secrets.between(2_000, 3_000)).collect();
        assert!(drawn.iter().all(|ms| (2_000..=3_000).contains(ms)));
        assert!(*drawn.iter().min().unwrap() < 2_010 && *drawn.iter().max().unwrap() > 2_990);
    }
}

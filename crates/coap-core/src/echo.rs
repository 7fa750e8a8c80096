//! Proof that a peer receives at the address it sends from (RFC 9175, section 2), without a memory of whom was asked.
//!
//! Owns: Echo values, made and checked. Does not own: when proof is asked for, where the key comes from.

use hmac::{Hmac, Mac};
use sha2::Sha256;

use crate::Tick;

/// Bytes of an Echo value: four of a time, twelve of a code over the time and the peer. Below the forty that the option
/// may have.
pub const LENGTH: usize = TIME + MAC;

const TIME: usize = 4;
const MAC: usize = 12;

/// An Echo option's value.
pub type Value = [u8; LENGTH];

/// Makes and checks the Echo values of one listener: a time that only the key's owner can have written for the peer.
#[derive(Clone)]
pub struct Echo {
    keyed: Hmac<Sha256>,
    window_ms: u64,
}

impl std::fmt::Debug for Echo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Echo").field("window_ms", &self.window_ms).finish_non_exhaustive()
    }
}

impl Echo {
    /// With a secret that is never used again after a restart, since the time starts anew with the process. A value is good
    /// for `window_ms`, and up to a second longer.
    pub fn new(secret: &[u8; 32], window_ms: u64) -> Self {
        let mut block = [0; 64];
        block.iter_mut().zip(secret).for_each(|(to, from)| *to = *from);
        // A key of the hash's block length is taken as it is.
        Self { keyed: Hmac::new(&block.into()), window_ms }
    }

    /// The value that this peer is to send back. `peer` is whatever names the peer's address without doubt.
    pub fn challenge(&self, now: Tick, peer: &[u8]) -> Value {
        let time = seconds(now).to_be_bytes();
        let code: [u8; 32] = self.code(time, peer).finalize().into_bytes().into();
        let mut value = [0; LENGTH];
        value.iter_mut().zip(time.into_iter().chain(code)).for_each(|(to, from)| *to = from);
        value
    }

    /// Whether the value was made for this peer and not too long ago. Takes as long for a wrong code as for a right one.
    pub fn verify(&self, now: Tick, peer: &[u8], value: &[u8]) -> bool {
        let Some((time, code)) = value.split_first_chunk::<TIME>() else { return false };
        if code.len() != MAC || self.code(*time, peer).verify_truncated_left(code).is_err() {
            return false;
        }
        // Seconds wrap after 136 years; a time ahead of now becomes a very old one.
        let age_s = seconds(now).wrapping_sub(u32::from_be_bytes(*time));
        u64::from(age_s) * 1000 <= self.window_ms
    }

    fn code(&self, time: [u8; TIME], peer: &[u8]) -> Hmac<Sha256> {
        self.keyed.clone().chain_update(time).chain_update(peer)
    }
}

fn seconds(now: Tick) -> u32 {
    // The low 32 bits are what is wanted.
    (now / 1000) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: u64 = 10_000;

    fn echo() -> Echo {
        Echo::new(&[7; 32], WINDOW)
    }

    #[test]
    fn a_value_is_good_for_its_peer_within_its_window() {
        let value = echo().challenge(1_234, b"peer");
        for now in [1_234, 5_000, 11_234] {
            assert!(echo().verify(now, b"peer", &value), "at {now}");
        }
        assert!(!echo().verify(1_234 + WINDOW + 1_000, b"peer", &value));
        assert!(!echo().verify(0, b"peer", &value), "made in the future");
        assert!(!echo().verify(1_234, b"other", &value));
        assert!(!Echo::new(&[8; 32], WINDOW).verify(1_234, b"peer", &value));
    }

    #[test]
    fn no_other_value_is_good() {
        let value = echo().challenge(0, b"peer");
        for bit in 0..LENGTH * 8 {
            let mut wrong = value;
            wrong[bit / 8] ^= 1 << (bit % 8);
            assert!(!echo().verify(0, b"peer", &wrong), "bit {bit}");
        }
        for length in 0..LENGTH {
            assert!(!echo().verify(0, b"peer", &value[..length]));
        }
        assert!(!echo().verify(0, b"peer", &[&value[..], &[0]].concat()));
    }

    #[test]
    fn the_secret_stays_out_of_debug() {
        assert_eq!(format!("{:?}", echo()), "Echo { window_ms: 10000, .. }");
    }

    #[test]
    fn a_value_lives_over_the_turn_of_the_seconds() {
        let late = (u64::from(u32::MAX)) * 1000;
        let value = echo().challenge(late, b"peer");
        assert!(echo().verify(late + 2_000, b"peer", &value));
    }
}

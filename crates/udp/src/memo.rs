//! What the listener keeps with a session, in its sixteen bytes; and the addresses of this machine that devices speak to.
//!
//! Owns: the layout. Does not own: the bytes (`landfall-hub`).

use std::net::IpAddr;

use parking_lot::RwLock;

/// The listener's part of a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Memo {
    /// The mark of what the device was admitted by; 0 when that was a signature. Under DTLS the number of its channel.
    pub(crate) mark: u64,
    /// The heartbeat in force, in seconds; 0 when the device has announced none.
    pub(crate) heartbeat: u32,
    /// The address that the device speaks to, as [`Locals`] numbers it. Under DTLS the number of its channel's socket.
    pub(crate) local: u16,
    /// The session's `connected` is known to be stored.
    pub(crate) is_begun: bool,
    /// The session is that of one channel, which has proven whose it is.
    pub(crate) is_bound: bool,
}

impl From<[u64; 2]> for Memo {
    fn from([mark, rest]: [u64; 2]) -> Self {
        let [h0, h1, h2, h3, l0, l1, begun, bound] = rest.to_le_bytes();
        Self {
            mark,
            heartbeat: u32::from_le_bytes([h0, h1, h2, h3]),
            local: u16::from_le_bytes([l0, l1]),
            is_begun: begun != 0,
            is_bound: bound != 0,
        }
    }
}

impl From<Memo> for [u64; 2] {
    fn from(memo: Memo) -> Self {
        let flags = u64::from(memo.is_begun) << 48 | u64::from(memo.is_bound) << 56;
        [memo.mark, u64::from(memo.heartbeat) | u64::from(memo.local) << 32 | flags]
    }
}

/// Addresses of this machine that datagrams have come to, numbered from 1.
#[derive(Debug, Default)]
pub(crate) struct Locals(RwLock<Vec<IpAddr>>);

/// Further addresses have no number: what goes to their devices leaves from the address that the system chooses.
const MAX_LOCALS: usize = 1024;

impl Locals {
    /// The address's number; 0 when it has none.
    pub(crate) fn number(&self, local: Option<IpAddr>) -> u16 {
        let Some(local) = local else { return 0 };
        let place = |known: &[IpAddr]| known.iter().position(|ip| *ip == local);
        let found = place(&self.0.read());
        let place = found.or_else(|| {
            let mut known = self.0.write();
            place(&known).or_else(|| {
                let room = known.len() < MAX_LOCALS;
                room.then(|| {
                    known.push(local);
                    known.len() - 1
                })
            })
        });
        place.and_then(|place| u16::try_from(place + 1).ok()).unwrap_or(0)
    }

    /// The address of a number.
    pub(crate) fn address(&self, number: u16) -> Option<IpAddr> {
        self.0.read().get(usize::from(number).checked_sub(1)?).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_memo_is_read_back() {
        for (is_begun, is_bound) in [(true, false), (false, true), (true, true)] {
            let memo = Memo { mark: u64::MAX - 1, heartbeat: u32::MAX, local: 513, is_begun, is_bound };
            assert_eq!(Memo::from(<[u64; 2]>::from(memo)), memo);
        }
        assert_eq!(Memo::from([0; 2]), Memo::default());
    }

    #[test]
    fn addresses_are_numbered_and_bounded() {
        let locals = Locals::default();
        let ip = |n: u32| Some(IpAddr::V4(n.into()));
        assert_eq!((locals.number(None), locals.number(ip(7)), locals.number(ip(9))), (0, 1, 2));
        assert_eq!((locals.number(ip(7)), locals.address(2), locals.address(0)), (1, ip(9), None));
        for n in 0..2_000 {
            locals.number(ip(n));
        }
        assert_eq!(locals.0.read().len(), MAX_LOCALS);
        assert_eq!(locals.number(ip(1_999)), 0);
    }
}

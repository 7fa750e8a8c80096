//! The peers that anything is known of.
//!
//! Owns: their table and its bound, the credit of those whose address is not proven. Does not own: requests, observations
//! and message ids, which say here only how many of them there are.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

use ahash::RandomState;
use slab::Slab;

use super::outgoing::Outbox;
use super::proof::Probe;
use crate::secrets::MessageIds;

/// Bytes that may be sent for each byte that came from an address that is not proven.
pub(super) const AMPLIFICATION: usize = 3;
/// Peers looked at to find one that may go.
const EVICTION_TRIES: usize = 16;

/// One peer.
#[derive(Debug)]
pub(super) struct Peer<P> {
    pub(super) address: P,
    /// Never the same for two peers within any lifetime of the protocol.
    pub(super) serial: u32,
    /// It receives at the address that it sends from.
    pub(super) proven: bool,
    /// It will neither be heard nor spoken to again. It stays until its last request is answered, which goes nowhere.
    pub(super) gone: bool,
    /// The shell knows it, so it does not go for others.
    pub(super) vouched: bool,
    /// The ping that is to prove its address.
    pub(super) probe: Option<Probe>,
    /// Bytes that may be sent to it until that is proven.
    credit: usize,
    /// Requests that wait for their answer, the oldest first.
    pub(super) exchanges: Vec<u64>,
    /// Message ids that are remembered.
    pub(super) remembered: usize,
    pub(super) observations: Vec<u64>,
    /// The last number of a notification, before it is cut to 24 bits.
    pub(super) observe_value: u64,
    pub(super) ids: Option<MessageIds>,
    pub(super) outbox: Option<Box<Outbox>>,
}

impl<P> Peer<P> {
    /// Bytes came from it.
    pub(super) fn earn(&mut self, bytes: usize) {
        self.credit = self.credit.saturating_add(AMPLIFICATION * bytes);
    }

    /// The longest datagram that may be sent to it now.
    pub(super) fn credit(&self) -> usize {
        if self.proven { usize::MAX } else { self.credit }
    }

    /// Takes the credit for a datagram, if there is enough.
    #[must_use]
    pub(super) fn spend(&mut self, bytes: usize) -> bool {
        if self.proven {
            return true;
        }
        let left = self.credit.checked_sub(bytes);
        self.credit = left.unwrap_or(self.credit);
        left.is_some()
    }

    /// Nothing is under way; what is remembered may be.
    fn is_quiet(&self) -> bool {
        self.exchanges.is_empty() && self.observations.is_empty() && self.outbox.is_none()
    }
}

#[derive(Debug)]
pub(super) struct Peers<P> {
    slots: Slab<Peer<P>>,
    index: HashMap<P, u32, RandomState>,
    /// Peers that the shell did not know when they came, in about that order; some it does now, some are gone.
    strangers: VecDeque<(u32, u32)>,
    serial: u32,
}

impl<P: Clone + Eq + Hash> Peers<P> {
    pub(super) fn new(hasher: RandomState) -> Self {
        Self {
            slots: Slab::new(),
            index: HashMap::with_hasher(hasher),
            strangers: VecDeque::new(),
            serial: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn find(&self, address: &P) -> Option<u32> {
        self.index.get(address).copied()
    }

    pub(super) fn get(&self, slot: u32) -> Option<&Peer<P>> {
        self.slots.get(slot as usize)
    }

    pub(super) fn get_mut(&mut self, slot: u32) -> Option<&mut Peer<P>> {
        self.slots.get_mut(slot as usize)
    }

    /// The peer of this address, made if need be, with the credit of one datagram. At the bound a stranger with nothing
    /// under way goes for it; `None` if none is found.
    pub(super) fn admit(&mut self, max: usize, address: &P, datagram: usize) -> Option<u32> {
        if let Some(slot) = self.find(address) {
            return Some(slot);
        }
        if self.len() >= max && !self.evict() {
            return None;
        }
        self.tidy();
        self.serial = self.serial.wrapping_add(1);
        let slot = u32::try_from(self.slots.vacant_key()).ok()?;
        self.slots.insert(Peer {
            address: address.clone(),
            serial: self.serial,
            proven: false,
            gone: false,
            vouched: false,
            probe: None,
            credit: AMPLIFICATION * datagram,
            exchanges: Vec::new(),
            remembered: 0,
            observations: Vec::new(),
            observe_value: 0,
            ids: None,
            outbox: None,
        });
        self.index.insert(address.clone(), slot);
        self.strangers.push_back((slot, self.serial));
        Some(slot)
    }

    /// Forgets a peer of which nothing is left.
    pub(super) fn release(&mut self, slot: u32) {
        if self.get(slot).is_some_and(|peer| peer.is_quiet() && (peer.remembered == 0 || peer.gone)) {
            self.remove(slot);
        }
    }

    /// A peer is gone. Whoever comes with its address is another one.
    pub(super) fn part(&mut self, slot: u32) {
        if let Some(peer) = self.slots.get_mut(slot as usize) {
            peer.gone = true;
            self.index.remove(&peer.address);
        }
        self.release(slot);
    }

    /// Each new entry moves two old ones on, so that those that are of no use any more never pile up.
    fn tidy(&mut self) {
        for _ in 0..2 {
            let Some(entry) = self.strangers.pop_front() else { return };
            if self.is_stranger(entry) {
                self.strangers.push_back(entry);
            }
        }
    }

    fn evict(&mut self) -> bool {
        for _ in 0..EVICTION_TRIES {
            let Some(entry) = self.strangers.pop_front() else { return false };
            if !self.is_stranger(entry) {
                continue;
            }
            if self.get(entry.0).is_some_and(Peer::is_quiet) {
                self.remove(entry.0);
                return true;
            }
            self.strangers.push_back(entry);
        }
        false
    }

    fn is_stranger(&self, (slot, serial): (u32, u32)) -> bool {
        self.get(slot).is_some_and(|peer| peer.serial == serial && !peer.vouched)
    }

    fn remove(&mut self, slot: u32) {
        if let Some(peer) = self.slots.try_remove(slot as usize).filter(|peer| !peer.gone) {
            self.index.remove(&peer.address);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Peers;

    fn peers() -> Peers<u32> {
        Peers::new(ahash::RandomState::with_seeds(1, 2, 3, 4))
    }

    #[test]
    fn at_the_bound_the_oldest_quiet_stranger_goes() {
        let mut peers = peers();
        let slots: Vec<u32> = (0..4).map(|n| peers.admit(4, &n, 10).unwrap()).collect();
        for slot in &slots {
            peers.get_mut(*slot).unwrap().remembered = 1;
        }
        peers.get_mut(slots[0]).unwrap().vouched = true;
        peers.get_mut(slots[1]).unwrap().exchanges = vec![1];
        assert!(peers.admit(4, &9, 10).is_some());
        assert_eq!(peers.len(), 4);
        assert!(peers.find(&0).is_some() && peers.find(&1).is_some(), "known, or busy");
        assert!([2, 3].iter().filter(|n| peers.find(n).is_none()).count() == 1);
    }

    #[test]
    fn nobody_goes_who_is_known_or_busy() {
        let mut peers = peers();
        for n in 0..4 {
            let slot = peers.admit(4, &n, 10).unwrap();
            let peer = peers.get_mut(slot).unwrap();
            peer.vouched = n % 2 == 0;
            peer.exchanges = (0..u64::from(n % 2)).collect();
        }
        assert_eq!(peers.admit(4, &9, 10), None);
        assert_eq!(peers.len(), 4);
    }

    #[test]
    fn the_list_of_strangers_stays_as_long_as_the_table() {
        let mut peers = peers();
        // One that stays at the front for ever.
        let stays = peers.admit(8, &0, 10).unwrap();
        peers.get_mut(stays).unwrap().exchanges = vec![1];
        for n in 1..1_000 {
            let slot = peers.admit(8, &n, 10).unwrap();
            peers.release(slot);
            assert!(peers.strangers.len() <= 8, "{}", peers.strangers.len());
        }
        assert_eq!(peers.len(), 1);
    }

    #[test]
    fn credit_is_three_times_what_came() {
        let mut peers = peers();
        let slot = peers.admit(1, &0, 10).unwrap();
        let peer = peers.get_mut(slot).unwrap();
        assert!(peer.spend(20) && !peer.spend(11) && peer.spend(10) && !peer.spend(1));
        peer.earn(1);
        assert!(peer.spend(3) && !peer.spend(1));
        peer.proven = true;
        assert!(peer.spend(100_000));
    }
}

//! Where bodies lie while they are transferred: by peer and request, each with a weight and a time to go.
//!
//! Owns: the book-keeping that uploads and downloads share. Does not own: what a body is, or who has to yield.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

use super::Fingerprint;
use crate::Tick;

/// When an entry goes, and a number that makes the pair unique.
type Due = (Tick, u64);

#[derive(Debug)]
struct Entry<V> {
    what: Fingerprint,
    due: Due,
    weight: usize,
    value: V,
}

#[derive(Debug)]
pub(super) struct Shelf<P, V> {
    peers: HashMap<P, Vec<Entry<V>>>,
    due: BTreeMap<Due, P>,
    serial: u64,
    weight: usize,
}

impl<P: Clone + Eq + Hash, V> Shelf<P, V> {
    pub(super) fn new() -> Self {
        Self { peers: HashMap::new(), due: BTreeMap::new(), serial: 0, weight: 0 }
    }

    /// Entries of all peers.
    pub(super) fn len(&self) -> usize {
        self.due.len()
    }

    /// Entries of one peer.
    pub(super) fn of_peer(&self, peer: &P) -> usize {
        self.peers.get(peer).map_or(0, Vec::len)
    }

    /// The weight of all entries.
    pub(super) fn weight(&self) -> usize {
        self.weight
    }

    /// When the next entry goes.
    pub(super) fn next_due(&self) -> Option<Tick> {
        self.due.first_key_value().map(|((at, _), _)| *at)
    }

    /// Lays down an entry. One of the same peer and request must have been taken away before.
    pub(super) fn put(&mut self, peer: &P, what: Fingerprint, at: Tick, weight: usize, value: V) {
        let due = (at, self.serial);
        self.serial += 1;
        self.weight += weight;
        self.due.insert(due, peer.clone());
        self.peers.entry(peer.clone()).or_default().push(Entry { what, due, weight, value });
    }

    /// What lies there of one peer.
    pub(super) fn values_mut(&mut self, peer: &P) -> impl Iterator<Item = &mut V> {
        self.peers.get_mut(peer).into_iter().flatten().map(|entry| &mut entry.value)
    }

    pub(super) fn take(&mut self, peer: &P, what: Fingerprint) -> Option<V> {
        self.take_where(peer, |entry| entry.what == what)
    }

    /// Takes away the peer's entry that goes first.
    pub(super) fn take_first_of(&mut self, peer: &P) -> Option<V> {
        let first = self.peers.get(peer)?.iter().map(|entry| entry.due).min()?;
        self.take_where(peer, |entry| entry.due == first)
    }

    /// Takes away all entries of a peer.
    pub(super) fn take_all_of(&mut self, peer: &P) {
        for entry in self.peers.remove(peer).unwrap_or_default() {
            self.due.remove(&entry.due);
            self.weight -= entry.weight;
        }
    }

    /// Takes away the entry that goes first of all.
    pub(super) fn take_first(&mut self) -> Option<V> {
        let (due, peer) = self.due.first_key_value().map(|(due, peer)| (*due, peer.clone()))?;
        self.take_where(&peer, |entry| entry.due == due)
    }

    /// Takes away what has lain until `now`; says how many there were.
    pub(super) fn expire(&mut self, now: Tick) -> usize {
        let before = self.len();
        while self.next_due().is_some_and(|at| at <= now) {
            if self.take_first().is_none() {
                break;
            }
        }
        before - self.len()
    }

    fn take_where(&mut self, peer: &P, is: impl Fn(&Entry<V>) -> bool) -> Option<V> {
        let entries = self.peers.get_mut(peer)?;
        let entry = entries.swap_remove(entries.iter().position(is)?);
        if entries.is_empty() {
            self.peers.remove(peer);
        }
        self.due.remove(&entry.due);
        self.weight -= entry.weight;
        Some(entry.value)
    }
}

//! Hosts that have several of something, and which of them has the most.
//!
//! Owns: a list for each host, the order of hosts by how long it is. Does not own: what stands in the lists (`table`).

use std::collections::BTreeSet;

use ahash::RandomState;
use hashbrown::HashMap;

use super::List;

/// Hosts by what they have.
pub(super) struct Crowd {
    lists: HashMap<u64, List, RandomState>,
    /// Each host with the length of its list.
    order: BTreeSet<(usize, u64)>,
}

impl Crowd {
    pub(super) fn new(hasher: RandomState) -> Self {
        Self { lists: HashMap::with_hasher(hasher), order: BTreeSet::new() }
    }

    /// What a host has.
    pub(super) fn of(&self, host: u64) -> List {
        self.lists.get(&host).copied().unwrap_or(List::EMPTY)
    }

    /// The list of a host, which is one of them from now on: [`Crowd::grew`] or [`Crowd::shrank`] has to follow a change.
    pub(super) fn list(&mut self, host: u64) -> &mut List {
        self.lists.entry(host).or_insert(List::EMPTY)
    }

    /// The longest list's length, and whose it is.
    pub(super) fn most(&self) -> Option<(usize, u64)> {
        self.order.last().copied()
    }

    /// A host's list is longer by one.
    pub(super) fn grew(&mut self, host: u64) {
        let length = self.of(host).length;
        self.order.remove(&(length.saturating_sub(1), host));
        self.order.insert((length, host));
    }

    /// It is shorter by one. A host that has nothing is forgotten.
    pub(super) fn shrank(&mut self, host: u64) {
        let length = self.of(host).length;
        self.order.remove(&(length + 1, host));
        if length == 0 {
            self.lists.remove(&host);
        } else {
            self.order.insert((length, host));
        }
    }

    /// Bytes allocated, about.
    pub(super) fn footprint(&self) -> usize {
        self.lists.allocation_size() + self.order.len() * 2 * size_of::<(usize, u64)>()
    }
}

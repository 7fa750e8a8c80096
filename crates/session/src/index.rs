//! From a key to its session's place, without a copy of the key.
//!
//! Owns: the hash table. Does not own: the keys (they stand in the caller's values) or how they are hashed (the caller's
//! hasher).

use hashbrown::HashTable;

/// Keeping half of the hash lets the table grow without reading a key, and spares nearly every comparison with the wrong
/// one.
#[derive(Clone, Copy, Debug)]
struct Cell {
    hash: u32,
    place: u32,
}

impl Cell {
    /// The table picks a bucket by the low bits and tells neighbours apart by the highest seven.
    fn spread(self) -> u64 {
        u64::from(self.hash) << 32 | u64::from(self.hash)
    }
}

#[derive(Debug, Default)]
pub(crate) struct Index {
    table: HashTable<Cell>,
}

impl Index {
    /// The place for which `is_it` holds, among those filed under `hash`.
    pub(crate) fn find(&self, hash: u32, mut is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        let probe = Cell { hash, place: 0 };
        self.table.find(probe.spread(), |cell| cell.hash == hash && is_it(cell.place)).map(|cell| cell.place)
    }

    pub(crate) fn insert(&mut self, hash: u32, place: u32) {
        let cell = Cell { hash, place };
        self.table.insert_unique(cell.spread(), cell, |cell| cell.spread());
    }

    pub(crate) fn remove(&mut self, hash: u32, place: u32) {
        let probe = Cell { hash, place };
        if let Ok(found) = self.table.find_entry(probe.spread(), |cell| cell.place == place) {
            found.remove();
        }
    }

    /// Bytes allocated.
    pub(crate) fn footprint(&self) -> usize {
        self.table.allocation_size()
    }
}

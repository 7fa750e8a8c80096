//! The associations of a listener.
//!
//! Owns: their places, finding them by key and by address, how many one host has, which of them is longest without a word.
//! Does not own: what is done with one.

use std::num::NonZeroU64;

use ahash::RandomState;
use hashbrown::{HashMap, HashTable};
use landfall_session::Tick;
use slab::Slab;

use super::address::Address;
use crate::engine::Identity;

/// Bits of a key that say the place; the others are a count that lasts for a thousand associations per second in 34 years.
const PLACE_BITS: u32 = 24;
const MAX_PLACES: usize = 1 << PLACE_BITS;
/// No place.
const NONE: u32 = u32::MAX;

/// One association of a listener, for as long as it lives; never given to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key(NonZeroU64);

impl Key {
    /// As a number that is never 0, for keeping it where a number fits.
    pub fn number(self) -> u64 {
        self.0.get()
    }

    /// The key of a number that [`Key::number`] said; `None` for 0.
    pub fn from_number(number: u64) -> Option<Self> {
        NonZeroU64::new(number).map(Self)
    }

    fn new(serial: u64, place: usize) -> Option<Self> {
        Self::from_number(serial << PLACE_BITS | place as u64)
    }

    /// Whether the other one began later; of two of one listener.
    pub fn is_older_than(self, other: Self) -> bool {
        self.number() >> PLACE_BITS < other.number() >> PLACE_BITS
    }

    fn place(self) -> u32 {
        (self.number() & (MAX_PLACES as u64 - 1)) as u32
    }
}

/// What a handshake has and a session does not need any more.
pub(super) struct Shaking {
    /// Which ClientHello it began with: a hash of the client's random.
    pub(super) hello: u64,
    pub(super) began: Tick,
    /// Who the client says it is, once it was asked who that is.
    pub(super) identity: Option<Identity>,
}

/// How far an association is. Those of each rank have a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rank {
    Handshake,
    /// Established, by somebody who has proven nothing.
    Stranger,
    Session,
}

pub(super) struct Association<E, P> {
    pub(super) key: Key,
    /// Where it was heard last.
    pub(super) path: P,
    /// When; of a stranger, when it was established.
    pub(super) heard: Tick,
    /// `None` once it is established.
    pub(super) shaking: Option<Box<Shaking>>,
    /// It is known whose it is.
    is_known: bool,
    pub(super) engine: E,
    address: Address,
    /// The other one at this address: at most one is established, and one is not.
    other: u32,
    /// Its neighbours in the list of those that are as far as it is.
    links: Links,
}

impl<E, P> Association<E, P> {
    pub(super) fn rank(&self) -> Rank {
        match &self.shaking {
            Some(_) => Rank::Handshake,
            None if self.is_known => Rank::Session,
            None => Rank::Stranger,
        }
    }
}

#[derive(Clone, Copy)]
struct Links {
    before: u32,
    after: u32,
}

/// A list through the associations, the one that is longest without a word first.
#[derive(Clone, Copy)]
struct List {
    ends: Links,
    length: usize,
}

impl List {
    /// `before` is its last, and `after` its first, as if it were a ring that it stands in itself.
    const EMPTY: Self = Self { ends: Links { before: NONE, after: NONE }, length: 0 };
}

/// Who is at an address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Here {
    pub(super) session: Option<u32>,
    pub(super) handshake: Option<u32>,
}

pub(super) struct Table<E, P> {
    places: Slab<Association<E, P>>,
    /// One of those at each address, by the address.
    addresses: HashTable<u32>,
    hosts: HashMap<u64, u32, RandomState>,
    hasher: RandomState,
    sessions: List,
    strangers: List,
    handshakes: List,
    serial: u64,
}

impl<E, P> Table<E, P> {
    pub(super) fn new(hasher: RandomState) -> Self {
        Self {
            places: Slab::new(),
            addresses: HashTable::new(),
            hosts: HashMap::with_hasher(hasher.clone()),
            hasher,
            sessions: List::EMPTY,
            strangers: List::EMPTY,
            handshakes: List::EMPTY,
            serial: 0,
        }
    }

    pub(super) fn sessions(&self) -> usize {
        self.sessions.length
    }

    pub(super) fn strangers(&self) -> usize {
        self.strangers.length
    }

    pub(super) fn handshakes(&self) -> usize {
        self.handshakes.length
    }

    /// All that `address`' host has.
    pub(super) fn of_host(&self, address: &Address) -> usize {
        self.hosts.get(&address.host()).map_or(0, |count| *count as usize)
    }

    pub(super) fn get(&self, place: u32) -> Option<&Association<E, P>> {
        self.places.get(place as usize)
    }

    pub(super) fn get_mut(&mut self, place: u32) -> Option<&mut Association<E, P>> {
        self.places.get_mut(place as usize)
    }

    pub(super) fn find(&self, key: Key) -> Option<u32> {
        let place = key.place();
        self.get(place).filter(|association| association.key == key).map(|_| place)
    }

    pub(super) fn at(&self, address: &Address) -> Here {
        let mut here = Here::default();
        let Some(first) = self.first_at(address) else { return here };
        let mut next = first;
        // At most two.
        while let Some(association) = self.get(next) {
            let role = if association.shaking.is_some() { &mut here.handshake } else { &mut here.session };
            *role = Some(next);
            next = if next == first { association.other } else { NONE };
        }
        here
    }

    /// The other one at the same address.
    pub(super) fn beside(&self, place: u32) -> Option<&Association<E, P>> {
        self.get(place).and_then(|association| self.get(association.other))
    }

    /// The session that is longest without a word.
    pub(super) fn quietest_session(&self) -> Option<u32> {
        some(self.sessions.ends.after)
    }

    /// The handshake that is.
    pub(super) fn quietest_handshake(&self) -> Option<u32> {
        some(self.handshakes.ends.after)
    }

    /// The stranger that was established first.
    pub(super) fn oldest_stranger(&self) -> Option<u32> {
        some(self.strangers.ends.after)
    }

    /// Any one, while there are any.
    pub(super) fn any(&self) -> Option<u32> {
        self.quietest_handshake().or_else(|| self.oldest_stranger()).or_else(|| self.quietest_session())
    }

    /// A handshake begins, where none is under way at this address. `None` when there are no more places.
    pub(super) fn insert(
        &mut self,
        (now, address, path): (Tick, Address, P),
        hello: u64,
        engine: E,
    ) -> Option<u32> {
        let place = self.places.vacant_key();
        if place >= MAX_PLACES {
            return None;
        }
        self.serial = self.serial % (u64::MAX >> PLACE_BITS) + 1;
        let key = Key::new(self.serial, place)?;
        let other = self.first_at(&address);
        self.places.insert(Association {
            key,
            path,
            heard: now,
            shaking: Some(Box::new(Shaking { hello, began: now, identity: None })),
            is_known: false,
            engine,
            address,
            other: other.unwrap_or(NONE),
            links: List::EMPTY.ends,
        });
        let place = place as u32;
        match other {
            Some(other) => self.set_other(other, place),
            None => self.file(&address, place),
        }
        *self.hosts.entry(address.host()).or_insert(0) += 1;
        self.append(place);
        Some(place)
    }

    /// The handshake has succeeded; the session that was there has gone before.
    pub(super) fn establish(&mut self, place: u32, is_known: bool, now: Tick) {
        self.unlink(place);
        if let Some(association) = self.get_mut(place) {
            association.shaking = None;
            association.is_known = is_known;
            association.heard = now;
        }
        self.append(place);
    }

    /// It is known now whose it is.
    pub(super) fn know(&mut self, place: u32, now: Tick) {
        self.establish(place, true, now);
    }

    /// It was heard. A stranger's time runs from when it was established, whatever it says.
    pub(super) fn heard(&mut self, place: u32, now: Tick) {
        let Some(association) = self.get_mut(place) else { return };
        if association.rank() == Rank::Stranger {
            return;
        }
        association.heard = now;
        if association.links.after != NONE {
            self.unlink(place);
            self.append(place);
        }
    }

    pub(super) fn remove(&mut self, place: u32) -> Option<Association<E, P>> {
        self.unlink(place);
        let gone = self.places.try_remove(place as usize)?;
        self.refile(&gone.address, place, gone.other);
        if let Some(count) = self.hosts.get_mut(&gone.address.host()) {
            *count -= 1;
            if *count == 0 {
                self.hosts.remove(&gone.address.host());
            }
        }
        Some(gone)
    }

    /// Bytes allocated for all places, taken or not, but for what engines have beside them.
    pub(super) fn footprint(&self) -> usize {
        self.places.capacity() * size_of::<Association<E, P>>()
            + self.handshakes() * size_of::<Shaking>()
            + self.addresses.allocation_size()
            + self.hosts.allocation_size()
    }

    fn first_at(&self, address: &Address) -> Option<u32> {
        let is_it = |place: &u32| self.get(*place).is_some_and(|found| found.address == *address);
        self.addresses.find(self.hasher.hash_one(address), is_it).copied()
    }

    fn file(&mut self, address: &Address, place: u32) {
        let Self { places, hasher, .. } = self;
        let hash = |place: &u32| {
            places.get(*place as usize).map_or(0, |association| hasher.hash_one(association.address))
        };
        self.addresses.insert_unique(hasher.hash_one(address), place, hash);
    }

    /// `place` has gone from its address, where `other` is left, or nobody.
    fn refile(&mut self, address: &Address, place: u32, other: u32) {
        let hash = self.hasher.hash_one(address);
        if let Some(left) = some(other) {
            self.set_other(left, NONE);
            if let Some(first) = self.addresses.find_mut(hash, |first| *first == place) {
                *first = left;
            }
        } else if let Ok(first) = self.addresses.find_entry(hash, |first| *first == place) {
            first.remove();
        }
    }

    fn set_other(&mut self, place: u32, other: u32) {
        if let Some(association) = self.get_mut(place) {
            association.other = other;
        }
    }

    /// Puts one that is in no list to the end of its own.
    fn append(&mut self, place: u32) {
        let Some(rank) = self.get(place).map(Association::rank) else { return };
        let last = self.list(rank).ends.before;
        if let Some(association) = self.get_mut(place) {
            association.links = Links { before: last, after: NONE };
        }
        self.links(rank, last).after = place;
        let list = self.list(rank);
        list.ends.before = place;
        list.length += 1;
    }

    /// Takes one out of its list.
    fn unlink(&mut self, place: u32) {
        let Some(association) = self.get(place) else { return };
        let (rank, Links { before, after }) = (association.rank(), association.links);
        self.links(rank, before).after = after;
        self.links(rank, after).before = before;
        self.list(rank).length -= 1;
    }

    /// The links of a neighbour; those of the list itself at its ends.
    fn links(&mut self, rank: Rank, place: u32) -> &mut Links {
        let list = match rank {
            Rank::Handshake => &mut self.handshakes,
            Rank::Stranger => &mut self.strangers,
            Rank::Session => &mut self.sessions,
        };
        match self.places.get_mut(place as usize) {
            Some(association) => &mut association.links,
            None => &mut list.ends,
        }
    }

    fn list(&mut self, rank: Rank) -> &mut List {
        match rank {
            Rank::Handshake => &mut self.handshakes,
            Rank::Stranger => &mut self.strangers,
            Rank::Session => &mut self.sessions,
        }
    }
}

fn some(place: u32) -> Option<u32> {
    (place != NONE).then_some(place)
}

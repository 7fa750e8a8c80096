//! The associations of a listener.
//!
//! Owns: their places, finding them by key and by address, how many one host has, which of them is longest without a word, and
//! which gives way for another. Does not own: what is done with one.

mod crowd;

use std::num::NonZeroU64;

use ahash::RandomState;
use hashbrown::{HashMap, HashTable};
use landfall_session::Tick;
use slab::Slab;

use self::crowd::Crowd;
use super::address::Address;
use crate::engine::Identity;

/// Bits of a key that say the place; the others are a count that lasts for a thousand associations per second in 34 years.
const PLACE_BITS: u32 = 24;
const MAX_PLACES: usize = 1 << PLACE_BITS;
/// No place.
const NONE: u32 = u32::MAX;
/// Where many hosts have as many as any, so many places are looked at for the one that is longest without a word.
const LOOKED_AT: usize = 32;

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
    /// The same, but the caller knows whose it is.
    Vouched,
    Session,
}

/// Lists that an association stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Chain {
    /// Those of one rank.
    Rank(Rank),
    /// Those of one rank and one host: of handshakes and strangers, each of which is one of many that anybody can begin.
    Host(Rank, u64),
}

/// Whose an established association is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Nobodys,
    Vouched,
    Proven,
}

pub(super) struct Association<E, P> {
    pub(super) key: Key,
    /// Where it was heard last.
    pub(super) path: P,
    /// When; of a stranger, when it was established.
    pub(super) heard: Tick,
    /// `None` once it is established.
    pub(super) shaking: Option<Box<Shaking>>,
    standing: Standing,
    pub(super) engine: E,
    address: Address,
    /// The other one at this address: at most one is established, and one is not.
    other: u32,
    /// Its neighbours in the list of those that are as far as it is.
    links: Links,
    /// And among those of them that are of its host.
    host_links: Links,
}

impl<E, P> Association<E, P> {
    pub(super) fn rank(&self) -> Rank {
        match (&self.shaking, self.standing) {
            (Some(_), _) => Rank::Handshake,
            (None, Standing::Nobodys) => Rank::Stranger,
            (None, Standing::Vouched) => Rank::Vouched,
            (None, Standing::Proven) => Rank::Session,
        }
    }

    fn chains(&self) -> (Chain, Option<Chain>) {
        let rank = self.rank();
        let is_of_many = matches!(rank, Rank::Handshake | Rank::Stranger);
        (Chain::Rank(rank), is_of_many.then(|| Chain::Host(rank, self.address.host())))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Links {
    before: u32,
    after: u32,
}

/// A list through the associations, the one that is longest without a word first.
#[derive(Clone, Copy, Debug)]
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
    vouched: List,
    strangers: List,
    handshakes: List,
    /// Handshakes by their hosts, and strangers.
    hosts_shaking: Crowd,
    hosts_of_strangers: Crowd,
    serial: u64,
}

impl<E, P> Table<E, P> {
    pub(super) fn new(hasher: RandomState) -> Self {
        Self {
            places: Slab::new(),
            addresses: HashTable::new(),
            hosts: HashMap::with_hasher(hasher.clone()),
            hosts_shaking: Crowd::new(hasher.clone()),
            hosts_of_strangers: Crowd::new(hasher.clone()),
            hasher,
            sessions: List::EMPTY,
            vouched: List::EMPTY,
            strangers: List::EMPTY,
            handshakes: List::EMPTY,
            serial: 0,
        }
    }

    pub(super) fn sessions(&self) -> usize {
        self.sessions.length
    }

    pub(super) fn vouched(&self) -> usize {
        self.vouched.length
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

    pub(super) fn address(&self, place: u32) -> Option<Address> {
        self.get(place).map(|association| association.address)
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

    /// Of those that the caller has vouched for, the one that is.
    pub(super) fn quietest_vouched(&self) -> Option<u32> {
        some(self.vouched.ends.after)
    }

    /// How many handshakes, or strangers, the host of an address has.
    pub(super) fn shares(&self, rank: Rank, address: &Address) -> usize {
        self.crowd(rank).map_or(0, |crowd| crowd.of(address.host()).length)
    }

    /// Of the handshakes, or strangers, of an address' host the one that is longest without a word.
    pub(super) fn quietest_of_host(&self, rank: Rank, address: &Address) -> Option<u32> {
        some(self.crowd(rank)?.of(address.host()).ends.after)
    }

    /// Which handshake, or stranger, gives way for one more of this address' host: one of the host that has the most, the one of
    /// them that is longest without a word. Whoever has as many as anybody else makes room for himself.
    pub(super) fn gives_way(&self, rank: Rank, address: &Address) -> Option<u32> {
        let crowd = self.crowd(rank)?;
        let (most, busiest) = crowd.most()?;
        if crowd.of(address.host()).length >= most {
            return self.quietest_of_host(rank, address);
        }
        let mut next = self.ends(rank).after;
        for _ in 0..LOOKED_AT {
            let Some(association) = self.get(next) else { break };
            if crowd.of(association.address.host()).length == most {
                return Some(next);
            }
            next = association.links.after;
        }
        some(crowd.of(busiest).ends.after)
    }

    /// Any one, while there are any.
    pub(super) fn any(&self) -> Option<u32> {
        let ranks = [Rank::Handshake, Rank::Stranger, Rank::Vouched, Rank::Session];
        ranks.into_iter().find_map(|rank| some(self.ends(rank).after))
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
            standing: Standing::Nobodys,
            engine,
            address,
            other: other.unwrap_or(NONE),
            links: List::EMPTY.ends,
            host_links: List::EMPTY.ends,
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
        let standing = if is_known { Standing::Proven } else { Standing::Nobodys };
        self.advance(place, standing, now);
    }

    /// It is known now whose it is.
    pub(super) fn know(&mut self, place: u32, now: Tick) {
        self.advance(place, Standing::Vouched, now);
    }

    fn advance(&mut self, place: u32, standing: Standing, now: Tick) {
        self.unlink(place);
        if let Some(association) = self.get_mut(place) {
            association.shaking = None;
            association.standing = standing;
            association.heard = now;
        }
        self.append(place);
    }

    /// It was heard. A stranger's time runs from when it was established, whatever it says.
    pub(super) fn heard(&mut self, place: u32, now: Tick) {
        let Some(association) = self.get_mut(place) else { return };
        if association.rank() == Rank::Stranger {
            return;
        }
        association.heard = now;
        let (of_rank, of_host) = association.chains();
        for chain in of_host.into_iter().chain([of_rank]) {
            if self.links(chain, place).after != NONE {
                self.take_out(chain, place);
                self.put_last(chain, place);
            }
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
            + self.hosts_shaking.footprint()
            + self.hosts_of_strangers.footprint()
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
        let Some((of_rank, of_host)) = self.get(place).map(Association::chains) else { return };
        self.put_last(of_rank, place);
        if let Some(chain @ Chain::Host(rank, host)) = of_host {
            self.put_last(chain, place);
            self.crowd_mut(rank).into_iter().for_each(|crowd| crowd.grew(host));
        }
    }

    /// Takes one out of its lists.
    fn unlink(&mut self, place: u32) {
        let Some((of_rank, of_host)) = self.get(place).map(Association::chains) else { return };
        self.take_out(of_rank, place);
        if let Some(chain @ Chain::Host(rank, host)) = of_host {
            self.take_out(chain, place);
            self.crowd_mut(rank).into_iter().for_each(|crowd| crowd.shrank(host));
        }
    }

    fn put_last(&mut self, chain: Chain, place: u32) {
        let last = self.list(chain).ends.before;
        *self.links(chain, place) = Links { before: last, after: NONE };
        self.links(chain, last).after = place;
        let list = self.list(chain);
        list.ends.before = place;
        list.length += 1;
    }

    fn take_out(&mut self, chain: Chain, place: u32) {
        let Links { before, after } = *self.links(chain, place);
        self.links(chain, before).after = after;
        self.links(chain, after).before = before;
        self.list(chain).length -= 1;
    }

    /// The links of a neighbour; those of the list itself at its ends.
    fn links(&mut self, chain: Chain, place: u32) -> &mut Links {
        if self.get(place).is_none() {
            return &mut self.list(chain).ends;
        }
        match (self.places.get_mut(place as usize), chain) {
            (Some(association), Chain::Rank(_)) => &mut association.links,
            (Some(association), Chain::Host(..)) => &mut association.host_links,
            // It is there, as was just seen.
            (None, _) => &mut self.sessions.ends,
        }
    }

    fn list(&mut self, chain: Chain) -> &mut List {
        match chain {
            Chain::Rank(Rank::Handshake) => &mut self.handshakes,
            Chain::Rank(Rank::Stranger) => &mut self.strangers,
            Chain::Rank(Rank::Vouched) => &mut self.vouched,
            Chain::Rank(Rank::Session) => &mut self.sessions,
            Chain::Host(Rank::Handshake, host) => self.hosts_shaking.list(host),
            Chain::Host(_, host) => self.hosts_of_strangers.list(host),
        }
    }

    fn ends(&self, rank: Rank) -> Links {
        match rank {
            Rank::Handshake => self.handshakes.ends,
            Rank::Stranger => self.strangers.ends,
            Rank::Vouched => self.vouched.ends,
            Rank::Session => self.sessions.ends,
        }
    }

    fn crowd(&self, rank: Rank) -> Option<&Crowd> {
        match rank {
            Rank::Handshake => Some(&self.hosts_shaking),
            Rank::Stranger => Some(&self.hosts_of_strangers),
            Rank::Vouched | Rank::Session => None,
        }
    }

    fn crowd_mut(&mut self, rank: Rank) -> Option<&mut Crowd> {
        match rank {
            Rank::Handshake => Some(&mut self.hosts_shaking),
            Rank::Stranger => Some(&mut self.hosts_of_strangers),
            Rank::Vouched | Rank::Session => None,
        }
    }
}

fn some(place: u32) -> Option<u32> {
    (place != NONE).then_some(place)
}

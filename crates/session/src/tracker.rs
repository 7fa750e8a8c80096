//! The session table: who is present, and every way to stop being so.
//!
//! Owns: opening, takeover, closing, expiry, and that each session ends once.
//! Does not own: when a device was heard ([`Vitals`]) or which deadlines are due ([`crate::wheel`]).

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use landfall_event::{DeviceId, Family, Reason, TenantId};
use slab::Slab;

use crate::index::Index;
use crate::wheel::Wheel;
use crate::{Tick, Vitals};

/// What there is at most one session of at a time: a device of a tenant, in one protocol family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KeyRef<'a> {
    /// The device's tenant.
    pub tenant: &'a TenantId,
    /// The device.
    pub device: &'a DeviceId,
    /// The family; families live side by side.
    pub family: Family,
}

/// What the tracker asks of the caller's value for each session. It keeps neither of them itself: both stand once, in that
/// value.
pub trait Tracked {
    /// Whose session it is. The same for as long as the tracker has the value: the index is sorted by it.
    fn key(&self) -> KeyRef<'_>;

    /// Its signs of life, made for this session and shared with no other.
    fn vitals(&self) -> &Vitals;
}

impl<T: Tracked> Tracked for Arc<T> {
    fn key(&self) -> KeyRef<'_> {
        (**self).key()
    }

    fn vitals(&self) -> &Vitals {
        (**self).vitals()
    }
}

/// Names one session of a tracker for ever. Places are used again, serial numbers are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Slot {
    pub(crate) place: u32,
    pub(crate) serial: u64,
}

impl Slot {
    /// Place and serial number, which no other session of the tracker ever has.
    pub fn parts(self) -> (u32, u64) {
        (self.place, self.serial)
    }
}

/// What silence does to a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// The silence in ms that ends the session, grace included (for MQTT 1.5 times the keep-alive); 0 is read as 1.
    /// `None`: none does.
    pub silence_ms: Option<u64>,
    /// The reason that such an end bears.
    pub on_silence: Reason,
}

impl Terms {
    /// `silence_ms` of silence ends the session with `reason`.
    pub const fn after(silence_ms: u64, reason: Reason) -> Self {
        Self { silence_ms: Some(silence_ms), on_silence: reason }
    }

    /// No silence ends the session (MQTT keep-alive 0).
    pub const fn never() -> Self {
        Self { silence_ms: None, on_silence: Reason::IdleTimeout }
    }
}

/// A session that has begun.
#[derive(Debug)]
pub struct Opened<T> {
    /// Names the session.
    pub slot: Slot,
    /// The session that the key had until now. It ended first; tell its end before the new one's beginning.
    pub replaced: Option<Ended<T>>,
}

/// A session that has ended. There is exactly one of these for each session.
#[derive(Debug)]
pub struct Ended<T> {
    /// Which session it was.
    pub slot: Slot,
    /// The caller's value; its [`Vitals`] are from now on [over](Vitals::is_over).
    pub tag: T,
    /// Why it ended.
    pub reason: Reason,
    /// When the device was last heard.
    pub last_seen: Tick,
    /// When the tracker ended it; not before `last_seen`.
    pub at: Tick,
    /// What silence would have done, or did.
    pub terms: Terms,
}

/// A session under way.
#[derive(Debug)]
pub struct Live<'a, T> {
    /// Names the session.
    pub slot: Slot,
    /// The caller's value.
    pub tag: &'a T,
    /// What silence does to it.
    pub terms: Terms,
}

/// Silence that no clock reaches.
const NEVER: u64 = u64::MAX;

#[derive(Debug)]
pub(crate) struct Session<T> {
    tag: T,
    serial: u64,
    silence: u64,
    on_silence: Reason,
}

impl<T> Session<T> {
    fn terms(&self) -> Terms {
        Terms { silence_ms: (self.silence != NEVER).then_some(self.silence), on_silence: self.on_silence }
    }

    fn agree(&mut self, terms: Terms) {
        self.silence = terms.silence_ms.map_or(NEVER, |ms| ms.max(1));
        self.on_silence = terms.on_silence;
    }
}

impl<T: Tracked> Session<T> {
    /// When silence ends the session, as things stand at `now`.
    fn due(&self, now: Tick) -> Tick {
        self.tag.vitals().quiet_since(now).saturating_add(self.silence)
    }
}

/// All sessions of one shard. `T` is the caller's own value for each of them, `S` hashes their keys.
///
/// Devices choose their names, so the hasher must be keyed with something that they cannot know: `S` is the standard
/// library's SipHash with a random key unless the caller says otherwise. A table with fixed keys would let a stranger who
/// may pick device ids fill one bucket. Only `open`, `close` and `get` hash; a touch does not.
#[derive(Debug)]
pub struct Tracker<T, S = RandomState> {
    sessions: Slab<Session<T>>,
    index: Index,
    pub(crate) wheel: Wheel,
    hasher: S,
    next_serial: u64,
    now: Tick,
}

impl<T: Tracked, S: BuildHasher> Tracker<T, S> {
    /// An empty tracker that stands at `now`. Ends by silence are at most `tick_ms` late (0 is read as 1) when
    /// [`Tracker::expire`] is called as often. `hasher` brings its own random key: `RandomState::new()`.
    pub fn new(now: Tick, tick_ms: u64, hasher: S) -> Self {
        let wheel = Wheel::new(now, tick_ms);
        Self { sessions: Slab::new(), index: Index::default(), wheel, hasher, next_serial: 0, now }
    }

    /// Begins a session, heard at `now`. One that the same key had ends first ([`Reason::TakenOver`]) and is handed out.
    pub fn open(&mut self, tag: T, terms: Terms, now: Tick) -> Opened<T> {
        let now = self.at_least(now);
        let hash = self.hash(tag.key());
        let replaced = self.find(hash, tag.key()).and_then(|place| self.end(place, Reason::TakenOver));
        self.next_serial += 1;
        tag.vitals().touch(now);
        let mut session = Session { tag, serial: self.next_serial, silence: 0, on_silence: terms.on_silence };
        session.agree(terms);
        let due = (session.silence != NEVER).then(|| session.due(now));
        // 2^32 sessions would need most of a terabyte: places fit 32 bits.
        let place = self.sessions.insert(session) as u32;
        self.index.insert(hash, place);
        if let Some(due) = due {
            self.wheel.arm(place, due);
        }
        Opened { slot: Slot { place, serial: self.next_serial }, replaced }
    }

    /// Ends a session. `None` if it has ended already, whoever has its place now.
    pub fn close(&mut self, slot: Slot, reason: Reason, now: Tick) -> Option<Ended<T>> {
        self.at_least(now);
        self.session(slot)?;
        self.end(slot.place, reason)
    }

    /// Ends every session whose silence has lasted long enough, and appends them to `out`: in the order of their ticks
    /// for a caller who comes every tick, roughly so after a leap. A held session is never silent.
    pub fn expire(&mut self, now: Tick, out: &mut Vec<Ended<T>>) {
        while self.expire_some(now, usize::MAX, out) {}
    }

    /// The same in portions: looks at `budget` deadlines at most, and says whether there are more. What is left is late
    /// until the next call.
    pub fn expire_some(&mut self, now: Tick, budget: usize, out: &mut Vec<Ended<T>>) -> bool {
        let now = self.at_least(now);
        self.wheel.advance(now);
        for _ in 0..budget {
            let Some(place) = self.wheel.pop_due() else { return false };
            let Some(session) = self.sessions.get(place as usize) else { continue };
            let due = session.due(now);
            if due > now {
                self.wheel.arm(place, due);
            } else {
                let reason = session.on_silence;
                out.extend(self.end(place, reason));
            }
        }
        self.wheel.has_due()
    }

    /// When to call [`Tracker::expire`] next at the latest, so that no end is more than one tick late. It is after the
    /// last call's `now` if that call left nothing over. A session that was heard meanwhile makes this early, never late.
    /// `None`: no silence can end any session.
    pub fn next_deadline(&self) -> Option<Tick> {
        self.wheel.next_stop()
    }

    /// Changes what silence does to a session, from its last sign of life on. False if it has ended already.
    pub fn set_terms(&mut self, slot: Slot, terms: Terms) -> bool {
        let now = self.now;
        let Some(session) = self.sessions.get_mut(slot.place as usize).filter(|s| s.serial == slot.serial)
        else {
            return false;
        };
        session.agree(terms);
        if session.silence == NEVER {
            self.wheel.cancel(slot.place);
            return true;
        }
        // A deadline that is now too early finds out when it fires.
        let due = session.due(now);
        if self.wheel.deadline(slot.place).is_none_or(|armed| due < armed) {
            self.wheel.arm(slot.place, due);
        }
        true
    }

    /// The key's session.
    pub fn get(&self, key: KeyRef<'_>) -> Option<(Slot, &T)> {
        let place = self.find(self.hash(key), key)?;
        let session = self.sessions.get(place as usize)?;
        Some((Slot { place, serial: session.serial }, &session.tag))
    }

    /// Ends every session for `reason`, one with each step of the iterator. What it is not asked for stays open.
    pub fn drain(&mut self, reason: Reason, now: Tick) -> Drain<'_, T, S> {
        self.at_least(now);
        Drain { tracker: self, reason, place: 0 }
    }

    fn hash(&self, key: KeyRef<'_>) -> u32 {
        self.hasher.hash_one(key) as u32
    }

    fn find(&self, hash: u32, key: KeyRef<'_>) -> Option<u32> {
        let has_key =
            |place| self.sessions.get(place as usize).is_some_and(|session| session.tag.key() == key);
        self.index.find(hash, has_key)
    }

    /// The only way out of the table.
    fn end(&mut self, place: u32, reason: Reason) -> Option<Ended<T>> {
        let session = self.sessions.try_remove(place as usize)?;
        self.wheel.cancel(place);
        self.index.remove(self.hash(session.tag.key()), place);
        let vitals = session.tag.vitals();
        vitals.end();
        let (terms, last_seen) = (session.terms(), vitals.last_seen());
        let slot = Slot { place, serial: session.serial };
        Some(Ended { slot, tag: session.tag, reason, last_seen, at: self.now.max(last_seen), terms })
    }

    /// Time never runs backwards.
    fn at_least(&mut self, now: Tick) -> Tick {
        self.now = self.now.max(now);
        self.now
    }
}

impl<T, S> Tracker<T, S> {
    /// The session that `slot` names; `None` if it has ended.
    pub fn session(&self, slot: Slot) -> Option<Live<'_, T>> {
        let session = self.sessions.get(slot.place as usize)?;
        (session.serial == slot.serial).then(|| live(slot.place, session))
    }

    /// Every session under way, in no order that means something.
    pub fn iter(&self) -> impl Iterator<Item = Live<'_, T>> {
        self.sessions.iter().map(|(place, session)| live(place as u32, session))
    }

    /// Sessions under way.
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// True when no session is under way.
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// Bytes allocated for the table, the index and the wheel, with the tags themselves; not what they point to, which is
    /// where the names and the [`Vitals`] stand. Room that was once needed is kept.
    pub fn footprint(&self) -> usize {
        // The slab says a vacant place by a value that a session never has, so a place is as large as a session.
        self.sessions.capacity() * size_of::<Session<T>>() + self.index.footprint() + self.wheel.footprint()
    }
}

fn live<T>(place: u32, session: &Session<T>) -> Live<'_, T> {
    Live { slot: Slot { place, serial: session.serial }, tag: &session.tag, terms: session.terms() }
}

/// Ends one session with each step; made by [`Tracker::drain`].
#[derive(Debug)]
pub struct Drain<'a, T, S = RandomState> {
    tracker: &'a mut Tracker<T, S>,
    reason: Reason,
    place: u32,
}

impl<T: Tracked, S: BuildHasher> Iterator for Drain<'_, T, S> {
    type Item = Ended<T>;

    fn next(&mut self) -> Option<Ended<T>> {
        while (self.place as usize) < self.tracker.sessions.capacity() {
            let place = self.place;
            self.place += 1;
            if let Some(ended) = self.tracker.end(place, self.reason) {
                return Some(ended);
            }
        }
        None
    }
}

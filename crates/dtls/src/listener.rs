//! The listener core: whose datagram is it, and what may it cost.
//!
//! Owns: addresses, cookies, timers, limits, which association is replaced by which. Does not own: the protocol
//! ([`Engine`]), sockets, who somebody is.
//!
//! Nothing is kept of an address before it has returned its cookie, and no answer until then is larger than what it answers.
//! At one address there is at most one session, and one handshake, which takes the session's place only when it succeeds.
//!
//! A handshake that has begun ends with one [`Event::Established`] or one [`Event::Failed`], and a session with one
//! [`Event::Closed`], unless the caller ends them itself. Whether there is room for one more session is looked at twice: before a
//! handshake begins, which spares the work, and when it succeeds, which decides.

mod address;
mod hello;
mod outlet;
mod strays;
mod table;

use std::net::SocketAddr;
use std::sync::Arc;

use ahash::RandomState;
use landfall_session::{Tick, Wheel};
use ring::hmac;

pub(crate) use self::address::Address;
use self::outlet::{Outcome, Outlet, Room};
use self::strays::Strays;
pub use self::table::Key;
use self::table::{Association, Rank, Table};
use crate::cookie::Cookies;
use crate::engine::{Answer, Closing, Engine, Failure, Identity, SendError, Stage};
use crate::handshake::hello::HelloStart;
use crate::limits::Limits;
use crate::record::{ContentType, RecordHeader};

/// A deadline is passed by less than this, in ms.
const TICK_MS: u64 = 10;
/// Deadlines that one call looks at, at most; the next call is then due at once.
const DUE_PER_TIMEOUT: usize = 4_096;

/// What a listener tells besides datagrams and data.
#[derive(Debug)]
pub enum Event<P> {
    /// Who is this? That handshake alone waits for [`Listener::answer`].
    WhoIs {
        /// Which one.
        key: Key,
        /// Where it comes from.
        path: P,
        /// Who it says it is.
        identity: Identity,
    },
    /// A handshake has succeeded.
    Established {
        /// Which one: the key of its `WhoIs`.
        key: Key,
        /// Where from.
        path: P,
        /// Who it is; `None` for a client that has proven nothing.
        identity: Option<Identity>,
        /// The suite's registered name.
        suite: &'static str,
    },
    /// An established association is over; its key means nothing from now on.
    Closed {
        /// Which one.
        key: Key,
        /// Where it was heard last.
        path: P,
        /// Why.
        why: Closing,
    },
    /// A handshake has come to nothing, or was not begun for a limit. `key` is there when it was asked `WhoIs` of it.
    Failed {
        /// Which one.
        key: Option<Key>,
        /// Where from.
        path: P,
        /// Who it said it was, if it came so far.
        identity: Option<Identity>,
        /// Why.
        why: Failure,
    },
}

/// Where a listener puts what comes of what it is told. Not called again from inside.
pub trait Sink<P> {
    /// A datagram to be sent.
    fn transmit(&mut self, path: &P, datagram: &[u8]);
    /// Application data of an established peer, one call for each record.
    fn data(&mut self, key: Key, path: &P, bytes: &[u8]);
    /// Anything else.
    fn event(&mut self, event: Event<P>);
}

/// What a listener has counted since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// HelloVerifyRequests sent.
    pub cookies: u64,
    /// Handshakes begun.
    pub begun: u64,
    /// Handshakes that succeeded.
    pub established: u64,
    /// Flights sent again.
    pub retransmitted: u64,
    /// ClientHellos of another version, answered with an alert.
    pub versions: u64,
    /// Datagrams of nobody: no association, and no ClientHello.
    pub strays: u64,
    /// Of them data under keys that are not here any more.
    pub lost: u64,
    /// Alerts that answered such data.
    pub alerts: u64,
    /// Datagrams and records that are none.
    pub malformed: u64,
    /// Records whose authentication tag is wrong.
    pub forged: u64,
    /// Records that were there before, or are too old.
    pub replayed: u64,
    /// Records whose epoch or type had no place.
    pub unexpected: u64,
    /// Sessions dropped to make room.
    pub evicted: u64,
    /// Handshakes dropped to make room.
    pub displaced: u64,
    /// Handshakes refused for a limit.
    pub limited: u64,
    /// Sessions closed because too many records were forged in their name.
    pub guessed_at: u64,
}

/// Everything behind one socket. `P` is the way to a peer, which an answer takes.
pub struct Listener<E: Engine, P> {
    config: Arc<E::Config>,
    limits: Limits,
    cookies: Cookies,
    table: Table<E, P>,
    /// One timer for each place. It is due at that association's deadline or before: words only move the deadline.
    wheel: Wheel,
    strays: Strays,
    counts: Counts,
    hasher: RandomState,
    /// What is sent is written here.
    datagram: Vec<u8>,
}

impl<E: Engine, P: Copy> Listener<E, P> {
    /// An empty one. `secret` is what its cookies are made with and must not be known to anybody else.
    pub fn new(config: Arc<E::Config>, limits: Limits, secret: [u8; 32], now: Tick) -> Self {
        let hasher = hasher(&secret);
        Self {
            config,
            limits,
            cookies: Cookies::new(&secret, now),
            table: Table::new(hasher.clone()),
            wheel: Wheel::new(now, TICK_MS),
            strays: Strays::new(now, limits.alerts_per_second),
            counts: Counts::default(),
            hasher,
            datagram: Vec::new(),
        }
    }

    /// Handshakes that begin from now on have this configuration; what is there stays as it is.
    pub fn set_config(&mut self, config: Arc<E::Config>) {
        self.config = config;
    }

    /// A datagram has come from `remote` by `path`. It is deciphered in place.
    pub fn receive(
        &mut self,
        now: Tick,
        (path, remote): (P, SocketAddr),
        datagram: &mut [u8],
        sink: &mut impl Sink<P>,
    ) {
        let address = Address::from(remote);
        let Some((header, rest)) = RecordHeader::read(datagram) else {
            self.counts.malformed += 1;
            return;
        };
        if !(20..=23).contains(&header.content.0) || rest.len() < usize::from(header.length) {
            self.counts.malformed += 1;
            return;
        }
        let here = self.table.at(&address);
        let place = match (header.epoch, header.content) {
            (0, ContentType::HANDSHAKE) if hello::is_client_hello(rest) => {
                if let Some(hello) = HelloStart::read(datagram) {
                    if let Some(random) = self.is_welcome(now, (&path, &address), &hello, sink) {
                        self.welcome(now, (path, address), (random, datagram), sink);
                    }
                    return;
                }
                // The rest of one that came in several fragments; a session has nothing to do with it.
                here.handshake
            }
            (0, _) | (_, ContentType::HANDSHAKE) => here.handshake.or(here.session),
            _ => here.session.or(here.handshake),
        };
        match place {
            Some(place) => self.hand_over(now, place, path, datagram, sink),
            None => self.astray(now, (&path, &address), header, sink),
        }
    }

    /// The answer to [`Event::WhoIs`]; without effect when that handshake is over.
    pub fn answer(&mut self, now: Tick, key: Key, answer: Answer<'_>, sink: &mut impl Sink<P>) {
        if let Some(place) = self.table.find(key) {
            self.work(now, place, None, sink, |engine, outlet| engine.answer(now, answer, outlet));
        }
    }

    /// Sends `data` as one record in one datagram.
    ///
    /// # Errors
    /// [`SendError`]: nothing was sent. After [`SendError::Exhausted`] the session is over, as [`Event::Closed`] has told.
    pub fn send(&mut self, key: Key, data: &[u8], sink: &mut impl Sink<P>) -> Result<(), SendError> {
        let place = self.table.find(key).ok_or(SendError::NotEstablished)?;
        let association = self.table.get_mut(place).ok_or(SendError::NotEstablished)?;
        self.datagram.clear();
        let sent = association.engine.send(data, &mut self.datagram);
        match sent {
            Ok(()) => sink.transmit(&association.path, &self.datagram),
            Err(SendError::Exhausted) => self.end(place, Closing::Exhausted, sink),
            Err(_) => {}
        }
        sent
    }

    /// Says that the caller knows by now whose established association it is. One of a client that has proven nothing lasts for
    /// `handshake_timeout` otherwise, and is one of `max_handshakes`. False when there is no room for one more session: it
    /// stays what it was. Only one that was vouched for makes room for it: the others have proven themselves with a key that no
    /// two channels have, and this one with what may be said on any number of them.
    pub fn vouch(&mut self, now: Tick, key: Key, sink: &mut impl Sink<P>) -> bool {
        let Some(place) = self.table.find(key) else { return false };
        match self.table.get(place).map(Association::rank) {
            Some(Rank::Session | Rank::Vouched) => return true,
            Some(Rank::Stranger) => {}
            _ => return false,
        }
        match self.room(now, true) {
            Room::None => {
                self.counts.limited += 1;
                return false;
            }
            Room::Evicts(quietest) => self.evict(self.table.find(quietest), sink),
            Room::Free | Room::Replaces(..) => {}
        }
        self.table.know(place, now);
        true
    }

    /// Ends an association and forgets it: tells the peer close_notify, tells the sink no event.
    pub fn close(&mut self, key: Key, sink: &mut impl Sink<P>) {
        if let Some(place) = self.table.find(key) {
            self.close_at(place, sink);
        }
    }

    /// Ends everything that is left, as [`Listener::close`] does.
    pub fn close_all(&mut self, sink: &mut impl Sink<P>) {
        while let Some(place) = self.table.any() {
            self.close_at(place, sink);
        }
    }

    /// Where the association was heard last; of a handshake, where it began.
    pub fn path(&self, key: Key) -> Option<P> {
        let place = self.table.find(key)?;
        self.table.get(place).map(|association| association.path)
    }

    /// When [`Listener::handle_timeout`] wants to be called: at most 10 ms after the earliest deadline. It may be early, or in
    /// the past.
    pub fn next_timeout(&self) -> Option<Tick> {
        self.wheel.next_stop()
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Tick, sink: &mut impl Sink<P>) {
        self.wheel.advance(now);
        for _ in 0..DUE_PER_TIMEOUT {
            let Some(place) = self.wheel.pop_due() else { return };
            self.due(now, place, sink);
        }
    }

    /// Established associations, those of strangers too.
    pub fn sessions(&self) -> usize {
        self.table.sessions() + self.table.vouched() + self.table.strangers()
    }

    /// Those of them that the caller has vouched for.
    pub fn vouched(&self) -> usize {
        self.table.vouched()
    }

    /// Handshakes under way.
    pub fn handshakes(&self) -> usize {
        self.table.handshakes()
    }

    /// What was counted so far.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Bytes allocated, but for what engines have beside themselves.
    pub fn footprint(&self) -> usize {
        self.table.footprint() + self.wheel.footprint() + self.datagram.capacity()
    }

    fn hand_over(&mut self, now: Tick, place: u32, path: P, datagram: &mut [u8], sink: &mut impl Sink<P>) {
        self.work(now, place, Some(path), sink, |engine, outlet| engine.receive(now, datagram, outlet));
    }

    /// An engine does something, and what comes of it is done.
    fn work<S: Sink<P>>(
        &mut self,
        now: Tick,
        place: u32,
        arrival: Option<P>,
        sink: &mut S,
        act: impl FnOnce(&mut E, &mut Outlet<'_, P, S>),
    ) {
        let room = self.room_for(now, place);
        let Some(association) = self.table.get_mut(place) else { return };
        let was_shaking = association.shaking.is_some();
        let stage = if was_shaking { Stage::Shaking } else { Stage::Established };
        let mut outlet = Outlet {
            sink,
            counts: &mut self.counts,
            key: association.key,
            path: &mut association.path,
            arrival,
            shaking: association.shaking.as_deref_mut(),
            room,
            outcome: Outcome::of(stage),
        };
        act(&mut association.engine, &mut outlet);
        if outlet.outcome.refused {
            association.engine.close(&mut outlet);
        }
        if association.engine.stage() == Stage::Over {
            // An engine says why it is over; this one did not.
            match outlet.outcome.stage {
                Stage::Shaking => outlet.failed(Failure::Malformed),
                Stage::Established => outlet.closed(Closing::Exhausted),
                Stage::Over => {}
            }
        }
        let (outcome, room) = (outlet.outcome, outlet.room);
        if outcome.established {
            self.establish(now, place, (room, outcome.known), sink);
        }
        // In a handshake nothing is authenticated; whatever was not dropped is a word of it.
        if outcome.heard || was_shaking && arrival.is_some() && !outcome.dropped {
            self.table.heard(place, now);
        }
        if outcome.stage == Stage::Over {
            self.forget(place);
        } else {
            self.arm(now, place);
        }
    }

    /// Where there is room for a handshake should it succeed now.
    fn room_for(&self, now: Tick, place: u32) -> Room<P> {
        let Some(association) = self.table.get(place) else { return Room::None };
        if association.shaking.is_none() {
            return Room::Free;
        }
        if let Some(session) = self.table.beside(place) {
            return Room::Replaces(session.key, session.path);
        }
        self.room(now, false)
    }

    /// Where there is room for a session at an address that has none; for one that has proven itself, or that `is_vouched` for.
    fn room(&self, now: Tick, is_vouched: bool) -> Room<P> {
        if self.table.sessions() + self.table.vouched() < self.limits.max_sessions {
            return Room::Free;
        }
        let proven = self.table.quietest_session().filter(|_| !is_vouched);
        let quietest = self.table.quietest_vouched().into_iter().chain(proven);
        let mut silent = quietest
            .filter_map(|place| self.table.get(place))
            .filter(|session| now.saturating_sub(session.heard) >= Limits::EVICT_AFTER_MS);
        silent.next().map_or(Room::None, |session| Room::Evicts(session.key))
    }

    /// A handshake has succeeded, and whoever has to leave for it leaves.
    fn establish(&mut self, now: Tick, place: u32, (room, known): (Room<P>, bool), sink: &mut impl Sink<P>) {
        match room {
            // It was told already, before the one that replaces it; its peer is told nothing, for it is the same peer.
            Room::Replaces(key, _) => {
                if let Some(replaced) = self.table.find(key) {
                    self.forget(replaced);
                }
            }
            Room::Evicts(key) => self.evict(self.table.find(key), sink),
            Room::Free | Room::None => {}
        }
        if !known {
            self.admit_stranger(place, sink);
        }
        self.table.establish(place, known, now);
    }

    /// Sees to it that there is a place for one more stranger.
    fn admit_stranger(&mut self, place: u32, sink: &mut impl Sink<P>) {
        let Some(address) = self.table.address(place) else { return };
        let of_host = self.table.shares(Rank::Stranger, &address);
        if of_host >= self.limits.max_handshakes_per_host {
            self.evict(self.table.quietest_of_host(Rank::Stranger, &address), sink);
        } else if self.table.strangers() >= self.limits.max_handshakes {
            self.evict(self.table.gives_way(Rank::Stranger, &address), sink);
        }
    }

    fn evict(&mut self, place: Option<u32>, sink: &mut impl Sink<P>) {
        if let Some(place) = place {
            self.counts.evicted += 1;
            self.end(place, Closing::Evicted, sink);
        }
    }

    /// A timer is due; its association's deadline may be later.
    fn due(&mut self, now: Tick, place: u32, sink: &mut impl Sink<P>) {
        let Some(association) = self.table.get(place) else { return };
        let ends = self.end_of(place);
        if ends.is_some_and(|ends| ends <= now) {
            return match association.shaking {
                Some(_) => self.fail(place, Failure::TimedOut, sink),
                None => self.end(place, Closing::Expired, sink),
            };
        }
        if association.engine.next_timeout().is_some_and(|due| due <= now) {
            return self.work(now, place, None, sink, |engine, outlet| engine.handle_timeout(now, outlet));
        }
        self.arm(now, place);
    }

    /// When its patience is over.
    fn end_of(&self, place: u32) -> Option<Tick> {
        let association = self.table.get(place)?;
        Some(match &association.shaking {
            Some(shaking) => shaking.began.saturating_add(self.limits.handshake_timeout_ms),
            None if association.rank() == Rank::Stranger => {
                association.heard.saturating_add(self.limits.handshake_timeout_ms)
            }
            None => association.heard.saturating_add(self.limits.session_timeout_ms),
        })
    }

    /// Sees to it that the timer is due when the association's deadline is, or before.
    fn arm(&mut self, now: Tick, place: u32) {
        let Some(ends) = self.end_of(place) else { return };
        let engine = self.table.get(place).and_then(|association| association.engine.next_timeout());
        // Later than now, whatever an engine says: nothing is to be due again and again at one time.
        let deadline = engine.map_or(ends, |engine| engine.min(ends)).max(now.saturating_add(1));
        if self.wheel.deadline(place).is_none_or(|armed| deadline < armed) {
            self.wheel.arm(place, deadline);
        }
    }

    /// A handshake comes to nothing.
    fn fail(&mut self, place: u32, why: Failure, sink: &mut impl Sink<P>) {
        let Some(gone) = self.forget(place) else { return };
        let identity = gone.shaking.and_then(|shaking| shaking.identity);
        let key = identity.is_some().then_some(gone.key);
        sink.event(Event::Failed { key, path: gone.path, identity, why });
    }

    /// A session ends: its peer is told close_notify.
    fn end(&mut self, place: u32, why: Closing, sink: &mut impl Sink<P>) {
        let Some(association) = self.table.get(place) else { return };
        let (key, path) = (association.key, association.path);
        self.close_at(place, sink);
        sink.event(Event::Closed { key, path, why });
    }

    fn close_at<S: Sink<P>>(&mut self, place: u32, sink: &mut S) {
        let Some(mut gone) = self.forget(place) else { return };
        let mut outlet = Outlet {
            sink,
            counts: &mut self.counts,
            key: gone.key,
            path: &mut gone.path,
            arrival: None,
            shaking: None,
            room: Room::None,
            outcome: Outcome::of(Stage::Over),
        };
        gone.engine.close(&mut outlet);
    }

    fn forget(&mut self, place: u32) -> Option<Association<E, P>> {
        self.wheel.cancel(place);
        self.table.remove(place)
    }
}

/// Keys for maps that strangers fill.
fn hasher(secret: &[u8; 32]) -> RandomState {
    let key = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), b"map");
    let mut words = key
        .as_ref()
        .chunks_exact(8)
        .map(|chunk| chunk.iter().fold(0_u64, |value, byte| value << 8 | u64::from(*byte)));
    let mut word = || words.next().unwrap_or_default();
    RandomState::with_seeds(word(), word(), word(), word())
}

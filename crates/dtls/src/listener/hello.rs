//! Who knocks: ClientHellos.
//!
//! Owns: what each of them is answered with, and what must hold before a handshake begins. Does not own: cookies
//! (`cookie`), the handshake ([`Engine`]).

use landfall_session::Tick;

use super::table::Rank;
use super::{Address, Event, Listener, Room, Sink};
use crate::alert::Alert;
use crate::engine::{Engine, Failure};
use crate::handshake::MessageType;
use crate::handshake::hello::HelloStart;
use crate::limits::Limits;

/// Whether the first message of a handshake record is a ClientHello, or a part of one.
pub(super) fn is_client_hello(record: &[u8]) -> bool {
    record.first() == Some(&MessageType::CLIENT_HELLO.0)
}

impl<E: Engine, P: Copy> Listener<E, P> {
    /// Which ClientHello it is that shows a cookie of ours. All others are answered here, and nothing of them is kept.
    pub(super) fn is_welcome(
        &mut self,
        now: Tick,
        (path, address): (&P, &Address),
        hello: &HelloStart<'_>,
        sink: &mut impl Sink<P>,
    ) -> Option<u64> {
        if !hello.speaks_1_2() {
            self.counts.versions += 1;
            sink.transmit(path, &Alert::PROTOCOL_VERSION.to_record(hello.record_sequence));
            return None;
        }
        match self.cookies.check(now, address, hello) {
            Ok(()) => Some(self.hasher.hash_one(hello.random)),
            Err(request) => {
                self.counts.cookies += 1;
                sink.transmit(path, &request);
                None
            }
        }
    }

    /// A ClientHello with its cookie goes to the handshake that began with it, or begins one.
    pub(super) fn welcome(
        &mut self,
        now: Tick,
        (path, address): (P, Address),
        (hello, datagram): (u64, &mut [u8]),
        sink: &mut impl Sink<P>,
    ) {
        let here = self.table.at(&address);
        if let Some(place) = here.handshake.filter(|place| self.is_of(*place, hello)) {
            return self.hand_over(now, place, path, datagram, sink);
        }
        // What the peer has at this address makes room for what it begins.
        let is_known_here = here.handshake.is_some() || here.session.is_some();
        let is_within_host = is_known_here || self.table.of_host(&address) < self.limits.max_per_host;
        let has_room = here.session.is_some() || !matches!(self.room(now, false), Room::None);
        if !is_within_host || !has_room || self.limits.max_handshakes == 0 {
            return self.refuse(path, sink);
        }
        if let Some(place) = here.handshake {
            self.fail(place, Failure::Displaced, sink);
        } else if !self.makes_room(now, &address, sink) {
            return self.refuse(path, sink);
        }
        let engine = E::accept(&self.config, now);
        match self.table.insert((now, address, path), hello, engine) {
            Some(place) => {
                self.counts.begun += 1;
                self.hand_over(now, place, path, datagram, sink);
            }
            None => self.refuse(path, sink),
        }
    }

    /// Whether there is a place for one more handshake of this address' host, once whoever has to has given way.
    fn makes_room(&mut self, now: Tick, address: &Address, sink: &mut impl Sink<P>) -> bool {
        let (of_host, in_all) = (self.table.shares(Rank::Handshake, address), self.table.handshakes());
        let displaced = if of_host >= self.limits.max_handshakes_per_host {
            // Whoever shares the address with a crowd would never come to the end of his own handshake otherwise.
            let quietest = self.table.quietest_of_host(Rank::Handshake, address);
            let heard = quietest.and_then(|place| self.table.get(place)).map(|association| association.heard);
            let is_silent = heard.is_some_and(|heard| now.saturating_sub(heard) >= Limits::DISPLACE_AFTER_MS);
            if !is_silent {
                return false;
            }
            quietest
        } else if in_all >= self.limits.max_handshakes {
            self.table.gives_way(Rank::Handshake, address)
        } else {
            None
        };
        if let Some(place) = displaced {
            self.counts.displaced += 1;
            self.fail(place, Failure::Displaced, sink);
        }
        true
    }

    fn is_of(&self, place: u32, hello: u64) -> bool {
        let shaking = self.table.get(place).and_then(|association| association.shaking.as_deref());
        shaking.is_some_and(|shaking| shaking.hello == hello)
    }

    fn refuse(&mut self, path: P, sink: &mut impl Sink<P>) {
        self.counts.limited += 1;
        sink.event(Event::Failed { key: None, path, identity: None, why: Failure::Limit });
    }
}

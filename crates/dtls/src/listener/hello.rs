//! Who knocks: ClientHellos.
//!
//! Owns: what each of them is answered with, and what must hold before a handshake begins. Does not own: cookies
//! (`cookie`), the handshake ([`Engine`]).

use landfall_session::Tick;

use super::{Address, Event, Listener, Room, Sink};
use crate::alert::Alert;
use crate::engine::{Engine, Failure};
use crate::handshake::MessageType;
use crate::handshake::hello::HelloStart;

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
        let has_room = here.session.is_some() || !matches!(self.room(now), Room::None);
        if !is_within_host || !has_room || self.limits.max_handshakes == 0 {
            return self.refuse(path, sink);
        }
        if let Some(place) = here.handshake {
            self.fail(place, Failure::Displaced, sink);
        } else if self.table.handshakes() >= self.limits.max_handshakes
            && let Some(quietest) = self.table.quietest_handshake()
        {
            self.counts.displaced += 1;
            self.fail(quietest, Failure::Displaced, sink);
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

    fn is_of(&self, place: u32, hello: u64) -> bool {
        let shaking = self.table.get(place).and_then(|association| association.shaking.as_deref());
        shaking.is_some_and(|shaking| shaking.hello == hello)
    }

    fn refuse(&mut self, path: P, sink: &mut impl Sink<P>) {
        self.counts.limited += 1;
        sink.event(Event::Failed { key: None, path, identity: None, why: Failure::Limit });
    }
}

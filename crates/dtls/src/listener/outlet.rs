//! What an engine says, passed on as what the listener says.
//!
//! Owns: what is told to whom while one engine is at work, and what it makes of its association. Does not own: doing that
//! (the listener does, when the engine has returned; nobody can look in between).

use super::table::{Key, Shaking};
use super::{Counts, Event, Sink};
use crate::engine::{self, BadRecord, Closing, EngineEvent, Failure, Identity, Stage};

/// Where a handshake that succeeds now will find a place among the sessions.
#[derive(Clone, Copy)]
pub(super) enum Room<P> {
    /// There is one; or there is no handshake.
    Free,
    /// That of the session at the same address.
    Replaces(Key, P),
    /// That of the session that is longest without a word.
    Evicts(Key),
    /// Nowhere.
    None,
}

/// What became of the association.
#[derive(Clone, Copy)]
pub(super) struct Outcome {
    /// Where it stands.
    pub(super) stage: Stage,
    /// The handshake has succeeded just now.
    pub(super) established: bool,
    /// And it is known whose it is.
    pub(super) known: bool,
    /// The handshake has succeeded just now, and found no room.
    pub(super) refused: bool,
    /// The peer was heard: by something authenticated, or in a handshake.
    pub(super) heard: bool,
    /// Something of what came was dropped.
    pub(super) dropped: bool,
}

impl Outcome {
    pub(super) fn of(stage: Stage) -> Self {
        Self { stage, established: false, known: false, refused: false, heard: false, dropped: false }
    }
}

pub(super) struct Outlet<'a, P, S> {
    pub(super) sink: &'a mut S,
    pub(super) counts: &'a mut Counts,
    pub(super) key: Key,
    /// Where the association was heard last.
    pub(super) path: &'a mut P,
    /// Where what it is at work on came from, if it is a datagram.
    pub(super) arrival: Option<P>,
    pub(super) shaking: Option<&'a mut Shaking>,
    pub(super) room: Room<P>,
    pub(super) outcome: Outcome,
}

impl<P: Copy, S: Sink<P>> Outlet<'_, P, S> {
    /// What is at work is authenticated: its sender is where it came from.
    fn authenticated(&mut self) {
        self.outcome.heard = true;
        if let Some(arrival) = self.arrival {
            *self.path = arrival;
        }
    }

    fn asked(&mut self, identity: Identity) {
        if let Some(shaking) = &mut self.shaking {
            shaking.identity = Some(identity.clone());
        }
        self.sink.event(Event::WhoIs { key: self.key, path: *self.path, identity });
    }

    fn established(&mut self, identity: Option<Identity>, suite: &'static str) {
        self.authenticated();
        self.outcome.known = identity.is_some();
        if identity.is_none() && !matches!(self.room, Room::Replaces(..)) {
            // Strangers have room of their own.
            self.room = Room::Free;
        }
        match self.room {
            Room::None => {
                self.outcome.refused = true;
                self.counts.limited += 1;
                return self.failed(Failure::Limit);
            }
            Room::Replaces(key, path) => {
                self.sink.event(Event::Closed { key, path, why: Closing::Replaced });
            }
            Room::Free | Room::Evicts(_) => {}
        }
        self.outcome.established = true;
        self.outcome.stage = Stage::Established;
        self.counts.established += 1;
        self.sink.event(Event::Established { key: self.key, path: *self.path, identity, suite });
    }

    /// Tells that the handshake has come to nothing.
    pub(super) fn failed(&mut self, why: Failure) {
        self.outcome.stage = Stage::Over;
        let identity = self.shaking.as_mut().and_then(|shaking| shaking.identity.take());
        let key = identity.is_some().then_some(self.key);
        self.sink.event(Event::Failed { key, path: *self.path, identity, why });
    }

    /// Tells that the session is over.
    pub(super) fn closed(&mut self, why: Closing) {
        self.outcome.stage = Stage::Over;
        self.sink.event(Event::Closed { key: self.key, path: *self.path, why });
    }

    fn dropped(&mut self, why: BadRecord) {
        self.outcome.dropped = true;
        let count = match why {
            BadRecord::Malformed => &mut self.counts.malformed,
            BadRecord::Forged => &mut self.counts.forged,
            BadRecord::Replayed => &mut self.counts.replayed,
            BadRecord::Unexpected => &mut self.counts.unexpected,
        };
        *count += 1;
    }
}

impl<P: Copy, S: Sink<P>> engine::Outlet for Outlet<'_, P, S> {
    fn transmit(&mut self, datagram: &[u8]) {
        self.sink.transmit(self.path, datagram);
    }

    fn data(&mut self, bytes: &[u8]) {
        if self.outcome.stage == Stage::Established {
            self.authenticated();
            self.sink.data(self.key, self.path, bytes);
        }
    }

    /// What is out of its place is not told: whoever listens hears of each association one beginning and one end.
    fn event(&mut self, event: EngineEvent) {
        match (self.outcome.stage, event) {
            (_, EngineEvent::Dropped(why)) => self.dropped(why),
            (_, EngineEvent::Retransmitted) => self.counts.retransmitted += 1,
            (Stage::Shaking, EngineEvent::WhoIs(identity)) => self.asked(identity),
            (Stage::Shaking, EngineEvent::Established { identity, suite }) => {
                self.established(identity, suite);
            }
            (Stage::Shaking, EngineEvent::Failed(why)) => self.failed(why),
            (Stage::Established, EngineEvent::Closed(why)) => {
                if why == Closing::Forged {
                    self.counts.guessed_at += 1;
                } else {
                    self.authenticated();
                }
                self.closed(why);
            }
            _ => {}
        }
    }
}

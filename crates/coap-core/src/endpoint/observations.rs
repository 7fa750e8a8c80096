//! Who observes what (RFC 7641, section 4).
//!
//! Owns: the list of observers, the rising numbers, how an observation ends. Does not own: the confirmable messages that
//! notifications are (`outgoing`).

use std::hash::Hash;

use super::answers::Cut;
use super::outgoing::{Outgoing, What};
use super::{Endpoint, Exchange, Parties};
use crate::Tick;
use crate::block::{BlockValue, Fingerprint};
use crate::message::Token;
use crate::options::Options;
use crate::output::{Ending, ExchangeId, NoteId, ObservationId, Output};
use crate::response::Response;

/// The Observe option has 24 bits.
const MASK: u64 = 0xFF_FFFF;

#[derive(Debug)]
pub(super) struct Observation {
    slot: u32,
    token: Token,
    resource: Fingerprint,
    /// The size of block that the client has asked for.
    szx: u8,
}

impl<P: Clone + Eq + Hash + std::fmt::Debug> Endpoint<P> {
    /// Answers a registration and from then on observes (RFC 7641, section 4.1).
    ///
    /// A registration with the token and resource of one that is in force refreshes it: the id stays, nothing is lost. Another
    /// one of the same peer with the same token, or for the same resource, takes its place.
    ///
    /// `None`: answered without observing, since the exchange is over, was no registration, the answer says no, a limit is
    /// reached, or the peer's address is to be proven first.
    pub fn observe(&mut self, now: Tick, exchange: ExchangeId, response: Response) -> Option<ObservationId> {
        let mut exchange = self.take_exchange(exchange)?;
        if !exchange.register || !response.code.is_success() {
            self.finish(now, &exchange, response, None);
            return None;
        }
        exchange.no_response = 0;
        let Some((observation, is_new)) = self.register(&exchange) else {
            self.finish(now, &exchange, response, None);
            return None;
        };
        let slot = exchange.slot;
        if !self.finish(now, &exchange, response, Some(observation)) && is_new {
            self.end_observation(Parties { slot, observation }, None);
            self.peers.release(slot);
            return None;
        }
        Some(ObservationId(observation))
    }

    /// Sends a notification, confirmable, behind those before it; [`Output::Delivered`] or [`Output::Failed`] follows.
    ///
    /// `None`: the observation is over, there is no room, or the body is above the limit. A response that is no success ends
    /// the observation (RFC 7641, section 4.2).
    pub fn notify(&mut self, now: Tick, observation: ObservationId, response: Response) -> Option<NoteId> {
        let observation = observation.0;
        let Observation { slot, token, resource, szx } = *self.observations.get(&observation)?;
        let note = NoteId(self.next_id());
        let wanted = BlockValue::first(szx);
        let cut = Cut { wanted, asked: false, wants_size2: false, resource, note: Some(note) };
        let is_last = !response.code.is_success();
        let what = What::Note(note, observation);
        let outgoing = Outgoing { what, token, response, own: Options::new(), cut };
        if outgoing.response.payload.len() > self.limits.max_body || !self.has_room(slot, outgoing.weight()) {
            return None;
        }
        if is_last {
            self.remove_observation(Parties { slot, observation });
        }
        self.enqueue(now, slot, outgoing);
        Some(note)
    }

    /// Ends an observation without a word to the observer; what is on its way for it fails. It is not told as ended.
    pub fn unobserve(&mut self, observation: ObservationId) {
        let observation = observation.0;
        let Some(slot) = self.observations.get(&observation).map(|known| known.slot) else { return };
        self.end_observation(Parties { slot, observation }, None);
        self.peers.release(slot);
    }

    /// Takes back what is on its way for an observation, which stays: it fails as [`NoteFailure::Ended`](crate::NoteFailure).
    pub fn recall(&mut self, observation: ObservationId) {
        let observation = observation.0;
        if let Some(slot) = self.observations.get(&observation).map(|known| known.slot) {
            self.withdraw(slot, |of| of == observation);
        }
    }

    /// Finds or makes the observation of a registration; says whether it is new.
    fn register(&mut self, exchange: &Exchange) -> Option<(u64, bool)> {
        let slot = exchange.slot;
        let of_peer = self.peers.get(slot)?.observations.clone();
        for observation in of_peer {
            let Some(other) = self.observations.get_mut(&observation) else { continue };
            let (same_token, same_resource) =
                (other.token == exchange.token, other.resource == exchange.resource);
            if same_token && same_resource {
                other.szx = exchange.szx();
                return Some((observation, false));
            }
            if same_token || same_resource {
                self.end_observation(Parties { slot, observation }, Some(Ending::Replaced));
            }
        }
        if self.observations.len() >= self.limits.max_observations {
            return None;
        }
        let observation = self.next_id();
        let peer = self.peers.get_mut(slot)?;
        if peer.observations.len() >= self.limits.max_observations_per_peer {
            return None;
        }
        peer.observations.push(observation);
        let (token, resource, szx) = (exchange.token, exchange.resource, exchange.szx());
        self.observations.insert(observation, Observation { slot, token, resource, szx });
        Some((observation, true))
    }

    /// GET with Observe 1 (RFC 7641, section 3.6).
    pub(super) fn cancel(&mut self, slot: u32, token: Token) {
        let observations = self.peers.get(slot).map(|peer| peer.observations.clone()).unwrap_or_default();
        let is_meant =
            |observation: &u64| self.observations.get(observation).is_some_and(|other| other.token == token);
        if let Some(observation) = observations.into_iter().find(is_meant) {
            self.end_observation(Parties { slot, observation }, Some(Ending::Cancelled));
        }
    }

    /// The next number of an observation that is in force (section 4.4): the milliseconds, or one more than the peer's last,
    /// so that it rises also over the end of one observation and the beginning of the next with the same token.
    pub(super) fn next_value(&mut self, now: Tick, observation: u64) -> Option<u32> {
        let slot = self.observations.get(&observation)?.slot;
        let peer = self.peers.get_mut(slot)?;
        peer.observe_value = now.max(peer.observe_value + 1);
        u32::try_from(peer.observe_value & MASK).ok()
    }

    /// Ends an observation with what is on its way for it; told where there is a reason that the shell does not know.
    pub(super) fn end_observation(&mut self, parties: Parties, why: Option<Ending>) {
        if !self.remove_observation(parties) {
            return;
        }
        let Parties { slot, observation } = parties;
        self.withdraw(slot, |of| of == observation);
        if let (Some(why), Some(peer)) = (why, self.peers.get(slot)) {
            let peer = peer.address.clone();
            self.outputs.push_back(Output::ObservationEnded {
                observation: ObservationId(observation),
                peer,
                why,
            });
        }
    }

    /// Ends all observations of a peer, and fails what was to be their last word.
    pub(super) fn end_all_observations(&mut self, slot: u32, why: Ending) {
        let observations = self.peers.get(slot).map(|peer| peer.observations.clone()).unwrap_or_default();
        for observation in observations {
            self.end_observation(Parties { slot, observation }, Some(why));
        }
        self.withdraw(slot, |_| true);
    }

    fn remove_observation(&mut self, Parties { slot, observation }: Parties) -> bool {
        if let Some(peer) = self.peers.get_mut(slot) {
            peer.observations.retain(|other| *other != observation);
        }
        self.observations.remove(&observation).is_some()
    }
}

//! One CoAP endpoint: every peer of one socket.
//!
//! Owns: the public face. Does not own: its parts.

use std::collections::VecDeque;
use std::hash::Hash;
use std::sync::Arc;

use crate::limits::Limits;
use crate::output::{ExchangeId, NoteId, ObservationId, Output};
use crate::response::Response;
use crate::{Tick, codec};

/// Random bytes of the shell: message ids, jitter and Echo values are derived from them. Secret, and never used twice.
pub type Seed = [u8; 32];

/// The machine for all peers of one socket; `P` says who a peer is: an address and the local one, or a secure session.
#[derive(Debug)]
pub struct Endpoint<P> {
    limits: Arc<Limits>,
    outputs: VecDeque<Output<P>>,
}

impl<P: Clone + Eq + Hash + std::fmt::Debug> Endpoint<P> {
    /// An endpoint without peers.
    #[must_use]
    pub fn new(limits: Arc<Limits>, _seed: &Seed) -> Self {
        Self { limits, outputs: VecDeque::new() }
    }

    /// A datagram came from a peer.
    pub fn receive(&mut self, _now: Tick, peer: &P, datagram: &[u8]) {
        if let Err(malformed) = codec::decode(datagram) {
            self.outputs.push_back(Output::Rejected {
                peer: peer.clone(),
                why: crate::Rejected::Malformed(malformed),
            });
        }
    }

    /// The next thing to do or to know; to be drained after every other call.
    pub fn poll(&mut self) -> Option<Output<P>> {
        self.outputs.pop_front()
    }

    /// When to call [`Self::handle_timeout`] at the latest.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Tick> {
        None
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, _now: Tick) {}

    /// Answers a request: with the acknowledgement while that has not left, else on its own (RFC 7252, section 5.2).
    ///
    /// Nothing happens if the exchange is over. What No-Response suppresses is not sent (RFC 7967).
    pub fn respond(&mut self, _now: Tick, _exchange: ExchangeId, _response: Response) {}

    /// Answers a registration and from then on observes (RFC 7641, section 4.1).
    ///
    /// `None`: answered without observing, since the exchange is over, was no registration, has an answer that says no, a
    /// limit is reached, or the peer's address is to be proven first.
    pub fn observe(
        &mut self,
        _now: Tick,
        _exchange: ExchangeId,
        _response: Response,
    ) -> Option<ObservationId> {
        None
    }

    /// Sends a notification, confirmable, behind those before it; [`Output::Delivered`] or [`Output::Failed`] follows.
    ///
    /// `None`: the observation is over, or the peer's queue is full. A response that is no success ends the observation (RFC
    /// 7641, section 4.2).
    pub fn notify(&mut self, _now: Tick, _observation: ObservationId, _response: Response) -> Option<NoteId> {
        None
    }

    /// The peer's session is over: its observations end, and what was on its way to it fails. Its requests are answered still.
    pub fn forget(&mut self, _peer: &P) {}

    /// The peer's address is proven: it has shown a secret, or a secure session is bound to it.
    pub fn prove(&mut self, _peer: &P) {}

    /// The bounds in force.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }
}

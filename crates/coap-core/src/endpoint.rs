//! One CoAP endpoint: every peer of one socket.
//!
//! Owns: the public face, the dispatch of datagrams and of time. Does not own: its parts, each of which is a module.

mod answers;
mod incoming;
mod observations;
mod outgoing;
mod peers;
mod proof;
mod requests;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;

use ahash::RandomState;
use bytes::Bytes;

use self::answers::{Cut, Head};
use self::incoming::Draft;
use self::observations::Observation;
use self::peers::{AMPLIFICATION, Peers};
use crate::block::{BlockValue, Downloads, Fingerprint, Uploads};
use crate::echo::Echo;
use crate::limits::Limits;
use crate::message::{Code, Kind, Message, Token};
use crate::options::{Options, number};
use crate::output::{Answered, Ending, ExchangeId, NoteId, Output, Rejected};
use crate::remembered::{Gone, Key, Remembered};
use crate::request::{Method, Observe};
use crate::response::Response;
use crate::secrets::{Secrets, Seed};
use crate::{Tick, codec};

/// Message ids that are forgotten with each datagram, at most: more than come.
const FORGOTTEN_PER_DATAGRAM: usize = 2;
/// The same with each deadline.
const FORGOTTEN_PER_TIMEOUT: usize = 4_096;

/// The machine for all peers of one socket; `P` says who a peer is: an address and the local one, or a secure session.
#[derive(Debug)]
pub struct Endpoint<P> {
    limits: Arc<Limits>,
    secrets: Secrets,
    /// Tells a message from another one with its id.
    marks: RandomState,
    echo: Echo,
    peers: Peers<P>,
    remembered: Remembered,
    /// By id, and so in the order in which they began.
    exchanges: BTreeMap<u64, Exchange>,
    /// When the empty acknowledgement of which exchange leaves, in order; the exchange may be over.
    acknowledgements: VecDeque<(Tick, u64)>,
    observations: HashMap<u64, Observation, RandomState>,
    uploads: Uploads<P>,
    downloads: Downloads<P, Head>,
    /// When which peer's outbox is due.
    timers: BTreeSet<(Tick, u32)>,
    outgoing_bytes: usize,
    retransmitted: u64,
    last_id: u64,
    outputs: VecDeque<Output<P>>,
}

/// A request that the shell has, or that is being answered.
#[derive(Debug)]
struct Exchange {
    number: u64,
    began: Tick,
    slot: u32,
    key: Key,
    token: Token,
    confirmable: bool,
    /// The empty acknowledgement has left.
    acknowledged: bool,
    /// A younger request of the peer has its token: the answer would pass for that one's.
    outdated: bool,
    no_response: u8,
    /// It changes nothing: GET.
    safe: bool,
    register: bool,
    wants_size2: bool,
    block1: Option<BlockValue>,
    /// The body that more is to come of.
    upload: Option<Fingerprint>,
    block2: Option<BlockValue>,
    resource: Fingerprint,
    /// Its answer is one of several blocks that the shell wants to hear of.
    note: Option<NoteId>,
}

impl Exchange {
    fn new(now: Tick, slot: u32, key: Key, message: &Message, draft: &Draft) -> Self {
        Self {
            number: 0,
            began: now,
            slot,
            key,
            token: message.token,
            confirmable: message.kind == Kind::Con,
            acknowledged: false,
            outdated: false,
            no_response: draft.request.no_response,
            safe: draft.request.method == Method::Get,
            register: draft.request.observe == Some(Observe::Register),
            wants_size2: draft.wants_size2,
            block1: draft.block1,
            upload: None,
            block2: draft.block2,
            resource: draft.resource,
            note: None,
        }
    }

    /// The exponent of the largest block that the client takes.
    fn szx(&self) -> u8 {
        self.block2.map_or(BlockValue::MAX_SZX, BlockValue::szx)
    }

    fn cut(&self) -> Cut {
        Cut {
            wanted: BlockValue::first(self.szx()),
            asked: self.block2.is_some(),
            wants_size2: self.wants_size2,
            resource: self.resource,
            note: self.note,
        }
    }

    /// The options of the answer that are not the resource's, but for Observe.
    fn own_options(&self) -> Options {
        let mut options = Options::new();
        if let Some(block) = self.block1 {
            options.push_uint(number::BLOCK1, block.to_uint());
        }
        options
    }
}

/// An observation and its observer.
#[derive(Clone, Copy, Debug)]
struct Parties {
    slot: u32,
    observation: u64,
}

/// A datagram that came.
struct Arrival<'a, P> {
    now: Tick,
    peer: &'a P,
    datagram: &'a [u8],
}

impl<P> Arrival<'_, P> {
    fn length(&self) -> usize {
        self.datagram.len()
    }
}

impl<P: Clone + Eq + Hash + Debug> Endpoint<P> {
    /// An endpoint without peers.
    #[must_use]
    pub fn new(limits: Arc<Limits>, seed: &Seed) -> Self {
        let secrets = Secrets::new(seed);
        Self {
            marks: secrets.marker(),
            echo: Echo::new(&secrets.derive(b"echo", &[]), limits.echo_window_ms),
            peers: Peers::new(secrets.hasher()),
            remembered: Remembered::new(secrets.hasher()),
            exchanges: BTreeMap::new(),
            acknowledgements: VecDeque::new(),
            observations: HashMap::with_hasher(secrets.hasher()),
            uploads: Uploads::new(limits.uploads()),
            downloads: Downloads::new(limits.downloads()),
            timers: BTreeSet::new(),
            outgoing_bytes: 0,
            retransmitted: 0,
            last_id: 0,
            outputs: VecDeque::new(),
            secrets,
            limits,
        }
    }

    /// A datagram came from a peer.
    pub fn receive(&mut self, now: Tick, peer: &P, datagram: &[u8]) {
        self.forget_old(now, FORGOTTEN_PER_DATAGRAM);
        let arrival = Arrival { now, peer, datagram };
        if let Some(known) = self.peers.find(peer).and_then(|slot| self.peers.get_mut(slot)) {
            known.earn(datagram.len());
        }
        let message = match codec::decode(datagram) {
            Ok(message) => message,
            Err(malformed) => {
                if let Some(id) = malformed.reset {
                    self.send(&arrival, codec::encode(&Message::empty(Kind::Rst, id)));
                }
                return self.reject(peer, Rejected::Malformed(malformed));
            }
        };
        match (message.kind, message.code) {
            (Kind::Con, Code::EMPTY) => {
                self.send(&arrival, codec::encode(&Message::empty(Kind::Rst, message.id)));
                self.outputs.push_back(Output::Ping { peer: peer.clone() });
            }
            (Kind::Ack, Code::EMPTY) => self.acknowledged(now, peer, message.id),
            (Kind::Rst, _) => self.reset(now, peer, message.id),
            (Kind::Con | Kind::Non, code) if code.is_request() => self.request(&arrival, &message),
            (Kind::Con, _) => {
                // A response to no request of ours, since there are none (section 4.2).
                self.send(&arrival, codec::encode(&Message::empty(Kind::Rst, message.id)));
                self.reject(peer, Rejected::Unmatched);
            }
            _ => self.reject(peer, Rejected::Unmatched),
        }
    }

    /// The next thing to do or to know; to be drained after every other call.
    pub fn poll(&mut self) -> Option<Output<P>> {
        self.outputs.pop_front()
    }

    /// When to call [`Self::handle_timeout`] at the latest. It may be early, or in the past.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Tick> {
        let lifetime = self.limits.exchange_lifetime_ms();
        [
            self.acknowledgements.front().map(|(at, _)| *at),
            self.timers.first().map(|(at, _)| *at),
            self.exchanges.first_key_value().map(|(_, exchange)| exchange.began + lifetime),
            self.remembered.next_timeout(),
            self.uploads.next_timeout(),
            self.downloads.next_timeout(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Tick) {
        while let Some((_, id)) = self.acknowledgements.pop_front_if(|(at, _)| *at <= now) {
            self.acknowledge_late(id);
        }
        while let Some((at, slot)) = self.timers.first().copied().filter(|(at, _)| *at <= now) {
            self.timers.remove(&(at, slot));
            self.outbox_due(now, slot);
        }
        let lifetime = self.limits.exchange_lifetime_ms();
        while let Some(entry) =
            self.exchanges.first_entry().filter(|entry| entry.get().began + lifetime <= now)
        {
            let exchange = entry.remove();
            self.leave(&exchange);
        }
        self.forget_old(now, FORGOTTEN_PER_TIMEOUT);
        self.uploads.expire(now);
        self.downloads.expire(now);
    }

    /// A peer is gone for good, such as a secure channel that is closed: nothing is sent to it any more. Its observations end
    /// ([`Ending::Gone`]), what is on its way fails, and answers to its requests go nowhere.
    pub fn forget(&mut self, peer: &P) {
        self.uploads.forget(peer);
        self.downloads.forget(peer);
        let Some(slot) = self.peers.find(peer) else { return };
        self.end_all_observations(slot, Ending::Gone);
        self.discard(slot);
        self.peers.part(slot);
    }

    /// Answers a request: with the acknowledgement while that has not left, else on its own (RFC 7252, section 5.2).
    ///
    /// Says whether this answer is on its way. It is not if the exchange is over, if No-Response suppresses it (RFC 7967), or
    /// if it is too long for an address that is not proven, or for [`Limits::max_body`], and another one went instead.
    pub fn respond(&mut self, now: Tick, exchange: ExchangeId, response: Response) -> bool {
        match self.take_exchange(exchange) {
            Some(exchange) => self.finish(now, &exchange, response, None),
            None => false,
        }
    }

    /// The same for an answer whose arrival matters: one of several blocks is not there before the last has been fetched.
    pub fn respond_in_full(&mut self, now: Tick, exchange: ExchangeId, response: Response) -> Answered {
        let Some(mut exchange) = self.take_exchange(exchange) else { return Answered::No };
        if response.payload.len() > exchange.cut().wanted.size() {
            exchange.note = Some(NoteId(self.next_id()));
        }
        match (self.finish(now, &exchange, response, None), exchange.note) {
            (false, _) => Answered::No,
            (true, None) => Answered::Whole,
            (true, Some(note)) => Answered::Begun(note),
        }
    }

    /// Ends an exchange that gets no answer: that of a non-confirmable request, which needs none (section 5.2.3).
    pub fn ignore(&mut self, exchange: ExchangeId) {
        if let Some(exchange) = self.take_exchange(exchange) {
            self.leave(&exchange);
        }
    }

    fn take_exchange(&mut self, id: ExchangeId) -> Option<Exchange> {
        let exchange = self.exchanges.remove(&id.0)?;
        // Deadlines of exchanges that are over go as soon as they are the first.
        while self.acknowledgements.pop_front_if(|(_, id)| !self.exchanges.contains_key(id)).is_some() {}
        if self.peers.get(exchange.slot).is_none_or(|peer| peer.gone) {
            self.leave(&exchange);
            return None;
        }
        Some(exchange)
    }

    /// Answers an exchange that was taken, and leaves it; says whether this answer is on its way.
    fn finish(
        &mut self,
        now: Tick,
        exchange: &Exchange,
        response: Response,
        observation: Option<u64>,
    ) -> bool {
        if response.code != Code::CONTINUE {
            self.give_up_upload(exchange);
        }
        let fits = response.payload.len() <= self.limits.max_body;
        let response = if fits { response } else { Response::new(Code::INTERNAL_SERVER_ERROR) };
        let sent = self.answer(now, exchange, response, observation);
        self.leave(exchange);
        sent && fits
    }

    /// More of a body is not wanted.
    fn give_up_upload(&mut self, exchange: &Exchange) {
        let Some(what) = exchange.upload else { return };
        if let Some(peer) = self.peers.get(exchange.slot) {
            self.uploads.drop_one(&peer.address, what);
        }
    }

    fn leave(&mut self, exchange: &Exchange) {
        if let Some(peer) = self.peers.get_mut(exchange.slot) {
            peer.exchanges.retain(|number| *number != exchange.number);
        }
        self.peers.release(exchange.slot);
    }

    /// The answer takes longer: the request is acknowledged without it (section 5.2.2).
    fn acknowledge_late(&mut self, id: u64) {
        let Some(mut exchange) = self.exchanges.remove(&id) else { return };
        self.acknowledge(&exchange);
        exchange.acknowledged = true;
        self.exchanges.insert(id, exchange);
    }

    fn forget_old(&mut self, now: Tick, max: usize) {
        for _ in 0..max {
            let Some(gone) = self.remembered.expire_one(now) else { return };
            self.forget_one(gone);
            self.peers.release(gone.slot);
        }
    }

    fn forget_one(&mut self, gone: Gone) {
        if let Some(peer) = self.peers.get_mut(gone.slot).filter(|peer| peer.serial == gone.serial) {
            peer.remembered -= 1;
        }
    }

    /// The longest datagram that may be sent for one that came.
    fn credit(&self, arrival: &Arrival<'_, P>) -> usize {
        let known = self.peers.find(arrival.peer).and_then(|slot| self.peers.get(slot));
        known.map_or(AMPLIFICATION * arrival.length(), peers::Peer::credit)
    }

    /// Sends what needs no state, within what may be sent.
    fn send(&mut self, arrival: &Arrival<'_, P>, bytes: Bytes) -> bool {
        if let Some(slot) = self.peers.find(arrival.peer) {
            return self.transmit(slot, bytes);
        }
        let fits = bytes.len() <= AMPLIFICATION * arrival.length();
        if fits {
            self.outputs.push_back(Output::Transmit { peer: arrival.peer.clone(), bytes });
        }
        fits
    }

    fn reject(&mut self, peer: &P, why: Rejected) {
        self.outputs.push_back(Output::Rejected { peer: peer.clone(), why });
    }

    fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// The bounds in force.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Peers of which anything is known.
    #[must_use]
    pub fn peers(&self) -> usize {
        self.peers.len()
    }

    /// Requests that wait for their answer.
    #[must_use]
    pub fn exchanges(&self) -> usize {
        self.exchanges.len()
    }

    /// Message ids that are remembered.
    #[must_use]
    pub fn remembered(&self) -> usize {
        self.remembered.len()
    }

    /// Observations in force.
    #[must_use]
    pub fn observations(&self) -> usize {
        self.observations.len()
    }

    /// Bodies on their way in.
    #[must_use]
    pub fn uploads(&self) -> usize {
        self.uploads.len()
    }

    /// Bodies on their way out.
    #[must_use]
    pub fn downloads(&self) -> usize {
        self.downloads.len()
    }

    /// Times that a message was sent again, so far.
    #[must_use]
    pub fn retransmitted(&self) -> u64 {
        self.retransmitted
    }

    /// Bytes of bodies, of answers kept for duplicates and of messages to be sent.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.uploads.bytes() + self.downloads.bytes() + self.remembered.bytes() + self.outgoing_bytes
    }
}

//! Requests, from the message to the exchange that the shell answers.
//!
//! Owns: duplicates, limits, blocks of bodies, when proof of address is asked for. Does not own: what the options say (`incoming`), how an
//! answer leaves (`answers`).

use std::hash::Hash;

use bytes::Bytes;

use super::answers::put_piece;
use super::incoming::{self, Draft};
use super::{Arrival, Endpoint, Exchange};
use crate::block::{BlockValue, Part, Refusal, Upload};
use crate::codec;
use crate::message::{Code, Kind, Message};
use crate::options::{Options, number};
use crate::output::{ExchangeId, Output, Rejected};
use crate::remembered::{Key, Known, Room};
use crate::request::Observe;
use crate::response::Response;

impl<P: Clone + Eq + Hash + std::fmt::Debug> Endpoint<P> {
    /// A message with a request code came.
    pub(super) fn request(&mut self, arrival: &Arrival<'_, P>, message: &Message) {
        self.serve(arrival, message);
        // A refused one leaves no trace, also of a peer that has just proven its address.
        if let Some(slot) = self.peers.find(arrival.peer) {
            self.peers.release(slot);
        }
    }

    fn serve(&mut self, arrival: &Arrival<'_, P>, message: &Message) {
        let mark = self.marks.hash_one(arrival.datagram);
        if self.is_duplicate(arrival, message, mark) {
            return;
        }
        self.supersede(arrival, message, mark);
        let draft = match incoming::read(message, arrival.length()) {
            Ok(draft) => draft,
            Err(refused) => {
                // What must be understood and is not makes a non-confirmable request one to ignore (section 5.4.1).
                if message.kind == Kind::Con || refused.why != Rejected::BadOption {
                    self.reply(arrival, message, Response::new(refused.code));
                }
                return self.reject(arrival.peer, refused.why);
            }
        };
        self.prove_by_echo(arrival, draft.echo.as_ref());
        if let Some(block) = draft.block2.filter(|block| block.num() > 0) {
            return self.resume(arrival, message, draft, block);
        }
        let needs_proof = draft.block1.is_some() && self.uploads.is_pressed();
        if needs_proof && self.credit(arrival) != usize::MAX {
            return self.ask_for_proof(arrival, message);
        }
        let Some(slot) = self.admit(arrival) else {
            self.reply(
                arrival,
                message,
                Response::new(Code::SERVICE_UNAVAILABLE).max_age(self.limits.retry_after_s),
            );
            return self.reject(arrival.peer, Rejected::Busy);
        };
        self.open(arrival, (slot, mark), message, draft);
    }

    /// Whether the message came before, byte by byte; then it gets what it got then (section 4.5).
    fn is_duplicate(&mut self, arrival: &Arrival<'_, P>, message: &Message, mark: u64) -> bool {
        let Some((slot, key)) = self.key(arrival, message, mark) else { return false };
        let Known::Again(answer) = self.remembered.find(arrival.now, key) else { return false };
        let again = match answer.datagram() {
            Some(datagram) => Some(Bytes::copy_from_slice(datagram)),
            None if answer.is_acknowledged() => Some(codec::encode(&Message::empty(Kind::Ack, message.id))),
            None => None,
        };
        if let Some(bytes) = again.filter(|_| message.kind == Kind::Con) {
            self.transmit(slot, bytes);
        }
        self.outputs.push_back(Output::Repeated { peer: arrival.peer.clone() });
        true
    }

    /// What the message is remembered by, if anything is known of its peer.
    fn key(&self, arrival: &Arrival<'_, P>, message: &Message, mark: u64) -> Option<(u32, Key)> {
        let slot = self.peers.find(arrival.peer)?;
        Some((slot, Key { serial: self.peers.get(slot)?.serial, id: message.id, mark }))
    }

    /// A request has come that is no duplicate. What is still to be answered to an older one with its message id or its token
    /// would pass for its answer: the sender of that one has begun anew, or is not there any more (sections 4.4, 5.3.1).
    fn supersede(&mut self, arrival: &Arrival<'_, P>, message: &Message, mark: u64) {
        let Some((slot, key)) = self.key(arrival, message, mark) else { return };
        self.remembered.supersede(key);
        let mut over = Vec::new();
        for number in self.peers.get(slot).map(|peer| peer.exchanges.as_slice()).unwrap_or_default() {
            let Some(exchange) = self.exchanges.get_mut(number) else { continue };
            exchange.outdated |= exchange.token == message.token;
            if exchange.key.id == message.id {
                over.push(*number);
            }
        }
        self.withdraw_answers(slot, message.token);
        for number in over {
            if let Some(exchange) = self.exchanges.remove(&number) {
                self.leave(&exchange);
            }
        }
    }

    /// A further block of a response (RFC 7959, section 2.4). It changes nothing, so nothing is remembered; but it is a word of whoever
    /// was let in with the first.
    fn resume(&mut self, arrival: &Arrival<'_, P>, message: &Message, draft: Draft, wanted: BlockValue) {
        let piece = self.downloads.resume(arrival.now, arrival.peer, draft.resource, wanted);
        match piece {
            Ok(piece) => {
                let (more, note) = (piece.block.more(), piece.head.2);
                let mut answer = self.reply_to(message, Code::CONTENT);
                put_piece(&mut answer, &Options::new(), piece, draft.wants_size2);
                if !self.send(arrival, codec::encode(&answer)) {
                    return self.ask_for_proof(arrival, message);
                }
                if let Some(note) = note.filter(|_| !more) {
                    self.settle_note(arrival.peer, note);
                    self.outputs.push_back(Output::Delivered { note, peer: arrival.peer.clone() });
                }
                if let Some(slot) = self.peers.find(arrival.peer) {
                    self.fetched(arrival.now, slot, more, note);
                }
                let peer = arrival.peer.clone();
                self.outputs.push_back(Output::Fetched { peer, request: draft.request });
            }
            Err(refusal) => {
                self.reply(arrival, message, refused(refusal));
                self.reject(arrival.peer, rejected(refusal));
            }
        }
    }

    /// 4.01 with an Echo value, if even that fits.
    fn ask_for_proof(&mut self, arrival: &Arrival<'_, P>, message: &Message) {
        let plain = self.reply_to(message, Code::UNAUTHORIZED);
        let challenge = self.challenge(arrival.now, arrival.peer, plain.kind, plain.id, plain.token);
        self.send(arrival, codec::encode(&challenge));
        self.reject(arrival.peer, Rejected::Unproven);
    }

    /// Room for one more request of this peer, or none.
    fn admit(&mut self, arrival: &Arrival<'_, P>) -> Option<u32> {
        if self.exchanges.len() >= self.limits.max_exchanges {
            return None;
        }
        let slot = self.peers.admit(self.limits.max_peers, arrival.peer, arrival.length())?;
        let peer = self.peers.get(slot)?;
        let within = peer.exchanges.len() < self.limits.max_exchanges_per_peer
            && peer.remembered < self.limits.max_remembered_per_peer;
        let room = if within { self.remembered.make_room(&self.limits, arrival.now) } else { Room::None };
        if let Room::Made(gone) = room {
            self.forget_one(gone);
            if gone.slot != slot {
                self.peers.release(gone.slot);
            }
        }
        (room != Room::None).then_some(slot)
    }

    /// Remembers the message, takes its block or its body, and hands the request on.
    fn open(&mut self, arrival: &Arrival<'_, P>, (slot, mark): (u32, u64), message: &Message, draft: Draft) {
        let Some(peer) = self.peers.get_mut(slot) else { return };
        peer.remembered += 1;
        let key = Key { serial: peer.serial, id: message.id, mark };
        let confirmable = message.kind == Kind::Con;
        self.remembered.insert(&self.limits, arrival.now, slot, key, confirmable);
        let mut exchange = Exchange::new(arrival.now, slot, key, message, &draft);
        let mut request = draft.request;
        if let Some(block) = draft.block1 {
            let what = incoming::upload(message);
            let (token, size1, payload) = (message.token, draft.size1, &message.payload[..]);
            let part = Part { what, token, block, size1, payload };
            match self.uploads.receive(arrival.now, arrival.peer, part) {
                Upload::Done { body, block } => {
                    request.payload = body;
                    exchange.block1 = Some(block);
                }
                Upload::Continue(block) => {
                    (exchange.block1, exchange.upload) = (Some(block), Some(what));
                    // Without its answer the transfer would not go on: No-Response is for the last one.
                    exchange.no_response = 0;
                    (request.payload, request.is_partial) = (Bytes::new(), true);
                }
                Upload::Refuse(refusal) => {
                    exchange.block1 = None;
                    self.answer(arrival.now, &exchange, refused(refusal), None);
                    return self.reject(arrival.peer, rejected(refusal));
                }
            }
        }
        if request.observe == Some(Observe::Deregister) && !request.is_partial {
            self.cancel(slot, message.token);
        }
        self.hand_on(arrival, exchange, request);
    }

    fn hand_on(&mut self, arrival: &Arrival<'_, P>, mut exchange: Exchange, request: crate::Request) {
        let id = self.next_id();
        exchange.number = id;
        if let Some(peer) = self.peers.get_mut(exchange.slot) {
            peer.exchanges.push(id);
        }
        if exchange.confirmable {
            self.acknowledgements.push_back((arrival.now + self.limits.piggyback_ms, id));
        }
        self.exchanges.insert(id, exchange);
        let (exchange, peer) = (ExchangeId(id), arrival.peer.clone());
        self.outputs.push_back(Output::Request { exchange, peer, request });
    }

    /// Answers without any state, unless No-Response suppresses it.
    fn reply(&mut self, arrival: &Arrival<'_, P>, message: &Message, response: Response) {
        let mut answer = self.reply_to(message, response.code);
        answer.options = response.options;
        if incoming::is_suppressed(incoming::no_response(&message.options), response.code) {
            if message.kind == Kind::Non {
                return;
            }
            answer = Message::empty(Kind::Ack, message.id);
        }
        self.send(arrival, codec::encode(&answer));
    }

    /// The beginning of an answer without state: an acknowledgement, or non-confirmable with any id.
    fn reply_to(&mut self, message: &Message, code: Code) -> Message {
        let (kind, id) = match message.kind {
            Kind::Con => (Kind::Ack, message.id),
            _ => (Kind::Non, self.secrets.next_u16()),
        };
        Message::new(kind, code, id, message.token)
    }
}

fn refused(refusal: Refusal) -> Response {
    match refusal {
        Refusal::Bad => Response::new(Code::BAD_REQUEST),
        Refusal::Incomplete => Response::new(Code::REQUEST_ENTITY_INCOMPLETE),
        Refusal::TooLarge { max } => {
            let mut response = Response::new(Code::REQUEST_ENTITY_TOO_LARGE);
            response.options.push_uint(number::SIZE1, max);
            response
        }
        Refusal::Busy { max_age } => Response::new(Code::SERVICE_UNAVAILABLE).max_age(max_age),
    }
}

fn rejected(refusal: Refusal) -> Rejected {
    match refusal {
        Refusal::Bad => Rejected::BadRequest,
        Refusal::Incomplete => Rejected::Incomplete,
        Refusal::TooLarge { .. } => Rejected::TooLarge,
        Refusal::Busy { .. } => Rejected::Busy,
    }
}

//! Answers: with the acknowledgement or on their own, whole or by blocks, within what may be sent.
//!
//! Owns: which message an answer is, what a duplicate of its request gets, the bound of three times what came for an address
//! that is not proven. Does not own: what is answered (the shell, `requests`).

use std::hash::Hash;

use bytes::Bytes;

use super::incoming::is_suppressed;
use super::outgoing::{Outgoing, What};
use super::{Endpoint, Exchange};
use crate::Tick;
use crate::block::{BlockValue, Fingerprint, Piece, szx_within};
use crate::codec;
use crate::message::{Code, Kind, Message, Token};
use crate::options::{Options, number};
use crate::output::{NoteId, Rejected};
use crate::response::Response;
use crate::secrets::peer_bytes;

/// What all blocks of one body have in common, and who wants to hear that they have been fetched.
pub(super) type Head = (Code, Options, Option<NoteId>);

/// How a body may leave.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cut {
    /// The first block: how large it may be.
    pub(super) wanted: BlockValue,
    /// The client has asked for a block, so it is told which one it gets.
    pub(super) asked: bool,
    pub(super) wants_size2: bool,
    pub(super) resource: Fingerprint,
    /// What the shell wants to hear of.
    pub(super) note: Option<NoteId>,
}

impl<P: Clone + Eq + Hash + std::fmt::Debug> Endpoint<P> {
    /// Answers a request that is no longer among the exchanges; says whether this answer is on its way.
    pub(super) fn answer(
        &mut self,
        now: Tick,
        exchange: &Exchange,
        response: Response,
        observation: Option<u64>,
    ) -> bool {
        if exchange.outdated || is_suppressed(exchange.no_response, response.code) {
            self.answer_nothing(exchange);
            return false;
        }
        if exchange.acknowledged && self.has_room(exchange.slot, response.payload.len() + 1_024) {
            return self.answer_separately(now, exchange, response, observation);
        }
        let Some(peer) = self.peers.get(exchange.slot) else { return false };
        let (address, credit, is_known) = (peer.address.clone(), peer.credit(), peer.vouched);
        let had_effect = !exchange.safe && response.code.is_success() || observation.is_some();
        let Some((kind, id)) = self.answer_kind(now, exchange) else { return false };
        let mut message = Message::new(kind, response.code, id, exchange.token);
        message.options = exchange.own_options();
        if let Some(value) = observation.and_then(|observation| self.next_value(now, observation)) {
            message.options.push_uint(number::OBSERVE, value);
        }
        let fits = self.fill(now, &address, response, &exchange.cut(), credit, &mut message);
        if !fits {
            self.reject(&address, Rejected::Unproven);
            message = self.challenge(now, &address, kind, id, exchange.token);
        }
        let bytes = codec::encode(&message);
        let sent = self.transmit(exchange.slot, bytes.clone());
        if !had_effect && !is_known && self.remembered.is_pressed(&self.limits) {
            self.unremember(exchange);
        } else if kind == Kind::Ack && sent {
            self.keep_answer(exchange, &message, &bytes);
        }
        fits && sent
    }

    /// The type and id of an answer that is sent once. `None`: there is no message id now.
    fn answer_kind(&mut self, now: Tick, exchange: &Exchange) -> Option<(Kind, u16)> {
        if exchange.confirmable && !exchange.acknowledged {
            return Some((Kind::Ack, exchange.key.id));
        }
        let peer = self.peers.get_mut(exchange.slot)?;
        if !peer.proven {
            // Perhaps nothing of it is known by its next request, so its ids cannot come in an order.
            return Some((Kind::Non, self.secrets.next_u16()));
        }
        let secrets = &self.secrets;
        let ids = peer.ids.get_or_insert_with(|| crate::secrets::MessageIds::new(secrets, &peer.address));
        ids.draw(now).ok().map(|id| (Kind::Non, id))
    }

    /// The request is acknowledged, and no more: No-Response says so (RFC 7967, section 2.1), or its token is another one's now.
    fn answer_nothing(&mut self, exchange: &Exchange) {
        if exchange.confirmable && !exchange.acknowledged {
            self.acknowledge(exchange);
        }
    }

    /// The empty acknowledgement, now and for duplicates.
    pub(super) fn acknowledge(&mut self, exchange: &Exchange) {
        self.transmit(exchange.slot, codec::encode(&Message::empty(Kind::Ack, exchange.key.id)));
        self.remembered.acknowledged(exchange.key);
    }

    /// A separate response, confirmable as the request was (RFC 7252, section 5.2.2).
    fn answer_separately(
        &mut self,
        now: Tick,
        exchange: &Exchange,
        response: Response,
        observation: Option<u64>,
    ) -> bool {
        let (token, own, cut) = (exchange.token, exchange.own_options(), exchange.cut());
        let outgoing = Outgoing { what: What::Separate(observation), token, response, own, cut };
        self.enqueue(now, exchange.slot, outgoing);
        true
    }

    /// Keeps what was answered for duplicates. Where there is no room, a request that changes nothing may be served again,
    /// and of another the code alone is kept.
    fn keep_answer(&mut self, exchange: &Exchange, message: &Message, bytes: &Bytes) {
        if self.remembered.answered(&self.limits, exchange.key, bytes) {
            return;
        }
        if exchange.safe {
            return self.remembered.forgive(exchange.key);
        }
        let bare = Message::new(message.kind, message.code, message.id, message.token);
        // A few bytes take no room of their own.
        let _ = self.remembered.answered(&self.limits, exchange.key, &codec::encode(&bare));
    }

    /// What had no effect may be done again (section 4.5, last paragraph), so when room is short a stranger's message id is not
    /// remembered for it, wherever he lives: else a flood of what is refused would take the room of everybody's.
    fn unremember(&mut self, exchange: &Exchange) {
        if let Some(gone) = self.remembered.take_back(exchange.key) {
            self.forget_one(gone);
        }
    }

    /// Puts the response into a message that holds its own options already; its first block, where it is longer than one or
    /// than the peer's credit. `false`: nothing of it fits.
    pub(super) fn fill(
        &mut self,
        now: Tick,
        peer: &P,
        mut response: Response,
        cut: &Cut,
        credit: usize,
        message: &mut Message,
    ) -> bool {
        clean(&mut response.options);
        let own = std::mem::take(&mut message.options);
        let size = response.payload.len();
        message.options = with(&response.options, &own);
        if !cut.asked && size <= cut.wanted.size() {
            message.payload = response.payload.clone();
            if fits(message, credit) {
                return true;
            }
        }
        message.payload = Bytes::new();
        let mut wanted = cut.wanted;
        if credit != usize::MAX {
            // What the options of a block add: its number in three bytes, ETag in nine, Size2 in four, and the marker.
            let around = codec::encode(message).len() + 20;
            let Some(szx) = szx_within(credit.saturating_sub(around)) else {
                return size == 0 && fits(message, credit);
            };
            if !response.code.is_success() && szx < wanted.szx() {
                return false;
            }
            wanted = wanted.at_most(szx);
        }
        let head = (response.code, response.options, cut.note);
        let piece = self.downloads.start(now, peer, cut.resource, head, response.payload, wanted);
        let Some(piece) = piece else { return false };
        put_piece(message, &own, piece, cut.wants_size2);
        fits(message, credit)
    }

    /// 4.01 with an Echo value: the request is to be sent again with it (RFC 9175, section 2.4).
    pub(super) fn challenge(&self, now: Tick, peer: &P, kind: Kind, id: u16, token: Token) -> Message {
        let mut message = Message::new(kind, Code::UNAUTHORIZED, id, token);
        let value = self.echo.challenge(now, &peer_bytes(peer));
        message.options.push(number::ECHO, Bytes::copy_from_slice(&value));
        message
    }

    /// Sends a datagram to a peer with state, if its credit allows it.
    pub(super) fn transmit(&mut self, slot: u32, bytes: Bytes) -> bool {
        let Some(peer) = self.peers.get_mut(slot).filter(|peer| !peer.gone) else { return false };
        if !peer.spend(bytes.len()) {
            return false;
        }
        let peer = peer.address.clone();
        self.outputs.push_back(crate::Output::Transmit { peer, bytes });
        true
    }
}

/// Puts one block into a message, with the options of the whole and those of its own.
pub(super) fn put_piece(message: &mut Message, own: &Options, piece: Piece<Head>, wants_size2: bool) {
    let (code, options, _) = piece.head;
    message.code = code;
    message.options = with(&options, own);
    message.options.remove(number::ETAG);
    message.options.push(number::ETAG, Bytes::copy_from_slice(&piece.etag));
    message.options.push_uint(number::BLOCK2, piece.block.to_uint());
    if wants_size2 {
        message.options.push_uint(number::SIZE2, piece.total);
    }
    message.payload = piece.payload;
}

/// The options that are not the resource's to set.
fn clean(options: &mut Options) {
    for number in [number::OBSERVE, number::BLOCK1, number::BLOCK2, number::SIZE2, number::ECHO] {
        options.remove(number);
    }
}

fn with(options: &Options, own: &Options) -> Options {
    let mut both = options.clone();
    own.iter().for_each(|(number, value)| both.push(number, value.clone()));
    both
}

fn fits(message: &Message, credit: usize) -> bool {
    credit == usize::MAX || codec::encode(message).len() <= credit
}

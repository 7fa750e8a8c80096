//! Clients, a shell and a clock that bytes direct.
//!
//! Owns: the moves. Does not own: what is right (`model`).

use std::sync::Arc;

use bytes::Bytes;

use super::model::{Model, Wants};
use super::source::Source;
use crate::block::BlockValue;
use crate::{Code, Endpoint, Kind, Limits, Message, ObservationId, Response, Tick, Token, codec, number};

/// Steps of one play at most: longer ones find nothing that these do not.
const STEPS: usize = 400;

/// Peers below this one show a secret with every request.
const TRUSTED: u8 = 2;

pub(super) struct Play<'a> {
    source: Source<'a>,
    endpoint: Endpoint<u8>,
    model: Model,
    now: Tick,
    /// Four peers; where one is gone, another comes.
    peers: [u8; 4],
    /// The last Echo value that each of the four got.
    echoes: [Option<Bytes>; 4],
}

/// Which of the four a peer is, or comes after.
fn place(peer: u8) -> usize {
    usize::from(peer % 4)
}

impl<'a> Play<'a> {
    pub(super) fn new(data: &'a [u8]) -> Self {
        let limits = Limits {
            max_exchanges_per_peer: 3,
            max_observations_per_peer: 2,
            max_outgoing_per_peer: 4,
            max_body: 3_000,
            max_uploads: 3,
            max_downloads: 3,
            ..Limits::default()
        };
        let model = Model::new(&limits);
        Self {
            source: Source::new(data),
            endpoint: Endpoint::new(Arc::new(limits), &[9; 32]),
            model,
            now: 0,
            peers: [0, 1, 2, 3],
            echoes: [const { None }; 4],
        }
    }

    pub(super) fn run(mut self) {
        for _ in 0..STEPS {
            if self.source.is_empty() {
                break;
            }
            self.step();
        }
        self.end();
    }

    fn step(&mut self) {
        let place = usize::from(self.source.below(4));
        let peer = self.peers.get(place).copied().unwrap_or_default();
        match self.source.below(16) {
            0..=5 => self.request(peer),
            6 | 7 => self.replies(peer),
            8 | 9 => self.answer(),
            10 | 11 => self.notify(),
            12 => self.pass(),
            13 => {
                let bytes = self.source.bytes(40);
                self.arrives(peer, bytes, None);
            }
            14 if self.source.below(2) == 0 => {
                self.endpoint.probe(self.now, &peer);
                self.drain(None);
            }
            14 => {
                self.endpoint.prove(&peer);
                if self.endpoint.is_proven(&peer) {
                    self.model.is_proven(peer);
                }
                self.drain(None);
            }
            _ if self.source.below(4) == 0 => self.forget(peer),
            _ => self.unobserve(peer),
        }
    }

    /// The peer goes, and another comes in its place.
    fn forget(&mut self, peer: u8) {
        self.endpoint.forget(&peer);
        self.drain(None);
        self.model.is_gone(peer);
        if let (Some(name), Some(next)) = (self.peers.get_mut(place(peer)), peer.checked_add(4)) {
            *name = next;
        }
        if let Some(echo) = self.echoes.get_mut(place(peer)) {
            *echo = None;
        }
    }

    /// A request from a small world, so that ids, tokens and paths meet often.
    fn request(&mut self, peer: u8) {
        let kind = if self.source.below(4) == 0 { Kind::Non } else { Kind::Con };
        let code = Code(self.source.of(&[1, 2, 1, 2, 3, 4, 5]));
        let id = u16::from(self.source.below(12));
        let token = Token::new(&[self.source.below(3)]).unwrap_or_default();
        let mut message = Message::new(kind, code, id, token);
        message.options.push(number::URI_PATH, self.source.of(&["a", "b"]));
        let choices = self.source.byte();
        if choices & 1 != 0 {
            message.options.push_uint(number::OBSERVE, u32::from(self.source.below(3)));
        }
        if choices & 2 != 0 {
            let value = self.source.byte();
            let block = BlockValue::new(u32::from(value >> 4), value & 8 != 0, value & 7);
            let number = if choices & 4 != 0 { number::BLOCK1 } else { number::BLOCK2 };
            message.options.push_uint(number, block.map_or(7, BlockValue::to_uint));
            message.payload = vec![b'p'; block.map_or(0, BlockValue::size)].into();
        }
        if choices & 8 != 0 {
            message.options.push_uint(number::NO_RESPONSE, u32::from(self.source.of(&[0, 2, 8, 16, 26_u8])));
        }
        if choices & 16 != 0
            && let Some(value) = self.echoes.get(place(peer)).cloned().flatten()
        {
            message.options.push(number::ECHO, value);
        }
        if choices & 32 != 0 {
            let number = u16::from(self.source.byte());
            message.options.push(number, Bytes::copy_from_slice(self.source.bytes(8)));
        }
        let bytes = codec::encode(&message);
        self.arrives(peer, &bytes, Some(&message));
    }

    /// The peer acknowledges or resets what is in flight, or something near it.
    fn replies(&mut self, peer: u8) {
        let choice = self.source.byte();
        let kind = if choice & 1 == 0 { Kind::Ack } else { Kind::Rst };
        let probe = self.model.probe(peer).filter(|_| choice & 2 == 0);
        let id = probe.or(self.model.flight(peer)).unwrap_or(0) ^ u16::from(choice & 0xE0 == 0xE0);
        let bytes = codec::encode(&Message::empty(kind, id));
        self.arrives(peer, &bytes, None);
    }

    fn arrives(&mut self, peer: u8, bytes: &[u8], message: Option<&Message>) {
        let decoded = codec::decode(bytes).ok();
        self.model.arrives(peer, bytes.len(), decoded.as_ref());
        if decoded.as_ref().is_some_and(|read| read.options.has(number::ECHO)) {
            // Whether it is the right value is for other tests to say.
            self.model.is_proven(peer);
        }
        self.endpoint.receive(self.now, &peer, bytes);
        self.drain(message.or(decoded.as_ref()));
    }

    /// The shell answers one of the requests that it has.
    fn answer(&mut self) {
        let at = usize::from(self.source.byte()).checked_rem(self.model.open.len());
        let Some(at) = at else { return };
        let (exchange, peer, wants) = self.model.open.swap_remove(at);
        let is_let_in = wants == Wants::More && self.source.below(4) > 0;
        let response = if is_let_in { Response::new(Code::CONTINUE) } else { self.response() };
        if wants == Wants::Observation && self.source.below(4) > 0 {
            let observation = self.endpoint.observe(self.now, exchange, response);
            // What it takes the place of ends before it begins.
            self.drain(None);
            if let Some(observation) = observation {
                self.model.observations.insert(observation, peer);
            }
        } else {
            self.endpoint.respond(self.now, exchange, response);
            self.drain(None);
        }
    }

    fn notify(&mut self) {
        let at = usize::from(self.source.byte()).checked_rem(self.model.observations.len());
        let Some(observation) = at.and_then(|at| self.model.observations.keys().nth(at).copied()) else {
            return;
        };
        let response = self.response();
        let is_last = !response.code.is_success();
        if let Some(note) = self.endpoint.notify(self.now, observation, response) {
            assert!(self.model.notes.insert(note), "an id of a notification is used twice");
            if is_last {
                self.model.is_over(observation);
            }
        }
        self.drain(None);
    }

    fn response(&mut self) -> Response {
        let code = self.source.of(&[0x45, 0x44, 0x45, 0x84, 0xA3_u8]);
        let length = self.source.of(&[0_usize, 5, 20, 60, 300, 1_024, 1_500, 2_900, 4_000]);
        Response::new(Code(code)).with_payload(vec![b'r'; length])
    }

    /// Time passes, deadline by deadline.
    fn pass(&mut self) {
        let ms = self.source.of(&[1_u64, 500, 1_000, 2_500, 3_000, 20_000, 60_000, 150_000, 250_000]);
        self.until(self.now + ms);
    }

    fn until(&mut self, until: Tick) {
        let mut turns = 0;
        while let Some(due) = self.endpoint.next_timeout().filter(|due| *due <= until) {
            self.now = self.now.max(due);
            self.endpoint.handle_timeout(self.now);
            self.drain(None);
            turns += 1;
            assert!(turns < 100_000, "a deadline that never passes");
        }
        self.now = until;
    }

    /// Ends one observation of the peer, or all of them.
    fn unobserve(&mut self, peer: u8) {
        let theirs: Vec<ObservationId> =
            self.model.observations.iter().filter(|(_, of)| **of == peer).map(|(id, _)| *id).collect();
        let most = if self.source.below(2) == 0 { 1 } else { theirs.len() };
        for observation in theirs.into_iter().take(most) {
            self.model.is_over(observation);
            self.endpoint.unobserve(observation);
        }
        self.drain(None);
    }

    fn drain(&mut self, cause: Option<&Message>) {
        while let Some(output) = self.endpoint.poll() {
            if let crate::Output::Transmit { peer, bytes } = &output
                && let Ok(message) = codec::decode(bytes)
                && let Some(value) = message.options.first(number::ECHO)
                && let Some(echo) = self.echoes.get_mut(place(*peer))
            {
                *echo = Some(value.clone());
            }
            if let crate::Output::Request { peer, .. } = &output
                && peer % 4 < TRUSTED
            {
                self.endpoint.prove(peer);
                self.model.is_trusted(*peer);
            }
            self.model.happens(self.now, cause, &output);
        }
    }

    /// Every notification has an outcome, and nothing is left of anybody.
    fn end(&mut self) {
        for observation in std::mem::take(&mut self.model.observations).into_keys() {
            self.endpoint.unobserve(observation);
        }
        self.drain(None);
        assert!(self.endpoint.observations() == 0, "an observation nobody knows of");
        // A late answer behind three others, each never acknowledged, and what is remembered meanwhile.
        self.until(self.now + 2_000_000);
        assert!(self.model.notes.is_empty(), "{:?} have no outcome", self.model.notes);
        let left = (self.endpoint.peers(), self.endpoint.exchanges(), self.endpoint.remembered());
        assert!(
            left == (0, 0, 0) && self.endpoint.bytes() == 0,
            "{left:?} are left, {} B",
            self.endpoint.bytes()
        );
        assert!(self.endpoint.next_timeout().is_none(), "a deadline for nobody");
    }
}

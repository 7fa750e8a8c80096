//! What an observer of the wire and of the shell knows, and so what a correct endpoint may do next.
//!
//! Owns: the assertions. Does not own: what is played.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;

use crate::{
    Code, ExchangeId, Kind, Limits, Message, NoteId, ObservationId, Output, Tick, Token, codec, number,
};

/// A request that was handed up, by its message.
#[derive(Debug)]
struct Asked {
    expires: Tick,
    message: Message,
    exchange: ExchangeId,
    /// The acknowledgements that left for it: the empty one, then none but it; or the one with the answer.
    acknowledgement: Option<Bytes>,
}

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wants {
    Answer,
    Observation,
    /// It is a block, and more are to come.
    More,
}

#[derive(Clone, Copy, Debug)]
struct Flight {
    id: u16,
    token: Token,
    left: Tick,
    /// It is in flight until it is answered or its time is over: it left at once, and was not withdrawn since.
    sure: bool,
}

#[derive(Debug, Default)]
struct Peer {
    received: usize,
    drawn: usize,
    proven: bool,
    /// Proven with every request: no transmission to it is ever held back.
    trusted: bool,
    asked: HashMap<u16, Asked>,
    /// The confirmable message in flight.
    flight: Option<Flight>,
    /// The ping that is to prove its address.
    probe: Option<u16>,
    /// Our ids, and when each left first.
    ids: HashMap<u16, Tick>,
    /// The last number with each token, and when it left.
    numbers: HashMap<Token, (u32, Tick)>,
}

#[derive(Debug)]
pub(super) struct Model {
    exchange_lifetime: Tick,
    non_lifetime: Tick,
    transmit_wait: Tick,
    peers: BTreeMap<u8, Peer>,
    gone: BTreeSet<u8>,
    /// Notifications without an outcome.
    pub(super) notes: BTreeSet<NoteId>,
    /// Those that the peer has begun to fetch: they may come to their outcome yet, or never do.
    unfetched: BTreeSet<NoteId>,
    pub(super) observations: BTreeMap<ObservationId, u8>,
    /// Requests without an answer.
    pub(super) open: Vec<(ExchangeId, u8, Wants)>,
    seen: BTreeSet<ExchangeId>,
}

impl Model {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            exchange_lifetime: limits.exchange_lifetime_ms(),
            non_lifetime: limits.non_lifetime_ms(),
            transmit_wait: limits.ack_timeout_ms * ((1 << (limits.max_retransmit + 1)) - 1),
            peers: BTreeMap::new(),
            gone: BTreeSet::new(),
            notes: BTreeSet::new(),
            unfetched: BTreeSet::new(),
            observations: BTreeMap::new(),
            open: Vec::new(),
            seen: BTreeSet::new(),
        }
    }

    fn peer(&mut self, peer: u8) -> &mut Peer {
        self.peers.entry(peer).or_default()
    }

    pub(super) fn arrives(&mut self, peer: u8, bytes: usize, message: Option<&Message>) {
        let peer = self.peer(peer);
        peer.received += bytes;
        if let Some(message) = message.filter(|message| message.code.is_request()) {
            peer.asks(message);
        }
    }

    pub(super) fn is_trusted(&mut self, peer: u8) {
        self.is_proven(peer);
        self.peer(peer).trusted = true;
    }

    pub(super) fn is_proven(&mut self, peer: u8) {
        self.peer(peer).proven = true;
    }

    pub(super) fn flight(&self, peer: u8) -> Option<u16> {
        self.peers.get(&peer)?.flight.map(|flight| flight.id)
    }

    pub(super) fn probe(&self, peer: u8) -> Option<u16> {
        self.peers.get(&peer)?.probe
    }

    /// The shell gave up on the peer's observations.
    pub(super) fn is_over(&mut self, observation: ObservationId) {
        self.observations.remove(&observation);
    }

    pub(super) fn is_gone(&mut self, peer: u8) {
        assert!(self.observations.values().all(|of| *of != peer), "it observes still");
        // The last of all names is used again.
        if peer < u8::MAX - 4 {
            self.gone.insert(peer);
        }
    }

    pub(super) fn happens(&mut self, now: Tick, cause: Option<&Message>, output: &Output<u8>) {
        match output {
            Output::Transmit { peer, bytes } => self.leaves(now, *peer, bytes),
            Output::Request { exchange, peer, request } => {
                let Some(message) = cause else { panic_with("a request comes of nothing") };
                assert!(self.seen.insert(*exchange), "{request:?} comes of nothing");
                self.handed_up(now, *peer, message, *exchange);
                let wants = match request.observe {
                    _ if request.is_partial => Wants::More,
                    Some(crate::Observe::Register) => Wants::Observation,
                    _ => Wants::Answer,
                };
                self.open.push((*exchange, *peer, wants));
            }
            Output::Heard { peer } => {
                let (peer, came) = (self.peer(*peer), cause.map(|message| message.id));
                let probed = peer.probe.take_if(|id| Some(*id) == came).is_some();
                assert!(probed || peer.flight.take().is_some(), "nothing was in flight");
                peer.proven = true;
            }
            Output::Proven { peer } => assert!(self.peer(*peer).proven, "it has not proven its address"),
            Output::Delivered { note, .. } => self.is_decided(*note),
            Output::Failed { note, peer, .. } => {
                self.is_decided(*note);
                if let Some(flight) = self.peer(*peer).flight.as_mut() {
                    flight.sure = false;
                }
            }
            Output::ObservationEnded { observation, peer, .. } => {
                assert!(self.observations.remove(observation) == Some(*peer), "{observation:?} twice");
            }
            Output::Unfetched { note, .. } => {
                self.is_decided(*note);
                self.unfetched.insert(*note);
            }
            Output::Ping { .. }
            | Output::Fetched { .. }
            | Output::Repeated { .. }
            | Output::Rejected { .. } => {}
        }
    }

    fn is_decided(&mut self, note: NoteId) {
        assert!(self.notes.remove(&note) || self.unfetched.remove(&note), "{note:?} twice");
    }

    fn handed_up(&mut self, now: Tick, peer: u8, message: &Message, exchange: ExchangeId) {
        let lifetime = if message.kind == Kind::Con { self.exchange_lifetime } else { self.non_lifetime };
        let (id, message) = (message.id, message.clone());
        let asked = Asked { expires: now + lifetime, message, exchange, acknowledgement: None };
        let before = self.peer(peer).asked.insert(id, asked);
        assert!(before.is_none_or(|before| before.expires <= now), "{id} of {peer} is handed up twice");
    }

    fn leaves(&mut self, now: Tick, peer: u8, bytes: &Bytes) {
        let decoded = codec::decode(bytes);
        let Ok(message) = decoded else { panic_with("what is sent is no message") };
        assert!(!self.gone.contains(&peer), "sent to one who is gone");
        let (lifetime, wait) = (self.exchange_lifetime, self.transmit_wait);
        let peer = self.peer(peer);
        peer.drawn += bytes.len();
        assert!(peer.proven || peer.drawn <= 3 * peer.received, "amplified: {peer:?}");
        match message.kind {
            Kind::Con if message.code == Code::EMPTY => peer.probe = Some(message.id),
            Kind::Con => peer.flies(now, &message, lifetime, wait),
            Kind::Ack => peer.is_acknowledged(now, &message, bytes),
            Kind::Non => assert!(message.code != Code::EMPTY, "NON is never empty"),
            Kind::Rst => assert!(message.code == Code::EMPTY, "RST is always empty"),
        }
    }
}

impl Peer {
    /// A request has come. Other bytes with an id are another request, and a token is one request's at a time.
    fn asks(&mut self, message: &Message) {
        let is_new = self.asked.get(&message.id).is_none_or(|asked| asked.message != *message);
        if is_new {
            self.asked.remove(&message.id);
        }
        if let Some(flight) = self.flight.as_mut().filter(|flight| flight.token == message.token) {
            flight.sure = false;
        }
    }

    /// A confirmable message of ours: again, or a new one after the last has landed.
    fn flies(&mut self, now: Tick, message: &Message, lifetime: Tick, wait: Tick) {
        match self.flight {
            Some(flight) if flight.id == message.id => return,
            Some(flight) if flight.sure => assert!(now >= flight.left + wait, "two in flight to one peer"),
            _ => {}
        }
        let (id, token, sure) = (message.id, message.token, self.trusted);
        self.flight = Some(Flight { id, token, left: now, sure });
        let before = self.ids.insert(message.id, now);
        assert!(before.is_none_or(|before| before + lifetime <= now), "an id of ours is used twice");
        if let Some(number) = message.options.uint(number::OBSERVE) {
            // RFC 7641, section 3.4: what a client compares.
            let rises = |(before, left): (u32, Tick)| {
                now > left + 128_000 || (1..1 << 23).contains(&(number.wrapping_sub(before) & 0xFF_FFFF))
            };
            assert!(self.numbers.insert(message.token, (number, now)).is_none_or(rises), "numbers fall");
        }
    }

    /// A duplicate gets what the first got; before the answer, nothing or the empty acknowledgement.
    fn is_acknowledged(&mut self, now: Tick, message: &Message, bytes: &Bytes) {
        let Some(asked) = self.asked.get_mut(&message.id).filter(|asked| now < asked.expires) else { return };
        let is_its_own = message.code == Code::EMPTY || message.token == asked.message.token;
        assert!(is_its_own, "{message:?} answers {asked:?}");
        let before = asked.acknowledgement.replace(bytes.clone());
        assert!(before.is_none_or(|before| before == *bytes), "another answer for {:?}", asked.exchange);
    }
}

/// Fails a check that has no value to go on with.
#[track_caller]
#[expect(clippy::panic, reason = "a broken invariant is what the targets look for")]
fn panic_with(what: &str) -> ! {
    panic!("{what}")
}

//! The endpoint, its clients, a resource and the bad link between them, in virtual time.
//!
//! Owns: what happens when, and what is right at every moment. Does not own: what is right in the end (`main`).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use landfall_coap_core::{
    Code, Endpoint, ExchangeId, Kind, Limits, Method, NoteFailure, NoteId, ObservationId, Observe, Output,
    Request, Response, codec, number,
};
use landfall_testkit::proxy::Seed;
use landfall_testkit::{Faults, Link};

use crate::client::Client;

/// Who a client is, to the endpoint.
pub(crate) type Peer = u32;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum End {
    /// The endpoint, as this client reaches it.
    Endpoint(Peer),
    Client(Peer),
}

#[derive(Debug)]
enum Deed {
    Answer {
        exchange: ExchangeId,
        peer: Peer,
        response: Response,
        observes: bool,
    },
    Notify(Peer),
    /// The link loses everything from here on.
    Cut,
}

/// What became of a notification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    UnderWay,
    Delivered,
    Failed(NoteFailure),
}

#[derive(Debug)]
pub(crate) struct Note {
    pub(crate) peer: Peer,
    pub(crate) text: Bytes,
    pub(crate) fate: Fate,
}

/// Bytes from and to a peer whose address nothing proves yet.
#[derive(Clone, Copy, Debug, Default)]
struct Stranger {
    proven: bool,
    from: usize,
    to: usize,
}

#[derive(Debug)]
pub(crate) struct Sim {
    pub(crate) now: u64,
    seed: Seed,
    link: Link<End>,
    pub(crate) endpoint: Endpoint<Peer>,
    pub(crate) clients: Vec<Client>,
    agenda: BTreeMap<(u64, u64), Deed>,
    serial: u64,
    observing: HashMap<Peer, ObservationId>,
    strangers: HashMap<Peer, Stranger>,
    /// How often each body of each peer was handed up.
    pub(crate) handed_up: HashMap<(Peer, Bytes), u32>,
    pub(crate) notes: HashMap<NoteId, Note>,
    /// The resource knows its clients, as by a key in the request; else each has to prove its address.
    pub(crate) knows_clients: bool,
    /// Bytes of a notification, at least.
    pub(crate) note_length: usize,
    /// How many strangers send what they overheard from clients, with errors; they never hear anything.
    pub(crate) strangers_about: u32,
    /// Datagrams without effect.
    pub(crate) rejected: u64,
}

/// The body of `GET /big/{name}` for a peer.
pub(crate) fn big(peer: Peer, name: &str) -> Bytes {
    let line = format!("{peer}:{name};");
    line.repeat(1_500 / line.len()).into()
}

/// The answer to a body.
pub(crate) fn answer_to(body: &[u8]) -> Bytes {
    let sum = body.iter().fold(7_u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(u32::from(*byte)));
    format!("{sum:08x}").into()
}

/// A body that only this peer sends, and only once.
pub(crate) fn body_of(peer: Peer, task: usize, length: usize) -> Bytes {
    let mut body = format!("{peer}/{task} ").into_bytes();
    body.extend((body.len()..length).map(|i| (i % 251) as u8));
    body.into()
}

impl Sim {
    pub(crate) fn new(seed: u64, faults: Faults, clients: Vec<Client>) -> Self {
        let mut seed = Seed(seed);
        let mut secret = [0; 32];
        secret.fill_with(|| seed.draw() as u8);
        let mut sim = Self {
            now: 1_000,
            link: Link::new(seed.draw(), faults),
            endpoint: Endpoint::new(Arc::new(Limits::default()), &secret),
            clients,
            agenda: BTreeMap::new(),
            serial: 0,
            observing: HashMap::new(),
            strangers: HashMap::new(),
            handed_up: HashMap::new(),
            notes: HashMap::new(),
            knows_clients: false,
            note_length: 0,
            strangers_about: 0,
            rejected: 0,
            seed,
        };
        for peer in 0..sim.clients.len() {
            for _ in 0..6 {
                let after = sim.seed.below(90_000);
                sim.plan(after, Deed::Notify(Peer::try_from(peer).unwrap()));
            }
        }
        sim
    }

    /// Makes the link go dead after so many ms.
    pub(crate) fn cut_at(&mut self, after: u64) {
        self.plan(after, Deed::Cut);
    }

    /// Runs until every client is done, every observation is ended, and nothing is left to do.
    pub(crate) fn run(&mut self) {
        self.run_until(|sim| {
            let decided = sim.notes.values().all(|note| note.fate != Fate::UnderWay);
            decided && sim.link.is_empty() && sim.agenda.is_empty() && sim.clients.iter().all(Client::is_done)
        });
        for observation in std::mem::take(&mut self.observing).into_values() {
            self.endpoint.unobserve(observation);
            self.drain();
        }
        self.run_until(|_| false);
    }

    fn run_until(&mut self, enough: impl Fn(&Self) -> bool) {
        for _ in 0..200_000 {
            self.drain();
            if enough(self) {
                return;
            }
            let Some(next) = self.next() else { return };
            self.now = self.now.max(next);
            self.step();
        }
        panic!("it does not come to rest: at {} ms, {self:?}", self.now);
    }

    fn next(&self) -> Option<u64> {
        let clients = self.clients.iter().filter_map(Client::next_timeout);
        let agenda = self.agenda.first_key_value().map(|((at, _), _)| *at);
        clients.chain(self.link.next_due()).chain(self.endpoint.next_timeout()).chain(agenda).min()
    }

    fn step(&mut self) {
        for (end, bytes) in self.link.deliver(self.now) {
            match end {
                End::Endpoint(peer) => {
                    self.note_proof(peer, &bytes);
                    self.endpoint.receive(self.now, &peer, &bytes);
                    self.drain();
                }
                End::Client(peer) => self.clients[peer as usize].receive(self.now, &bytes),
            }
        }
        let now = self.now;
        self.clients.iter_mut().for_each(|client| client.handle_timeout(now));
        while let Some(entry) = self.agenda.first_entry().filter(|entry| entry.key().0 <= now) {
            let deed = entry.remove();
            self.perform(deed);
            self.drain();
        }
        if self.endpoint.next_timeout().is_some_and(|at| at <= now) {
            self.endpoint.handle_timeout(now);
        }
    }

    fn plan(&mut self, after: u64, deed: Deed) {
        self.serial += 1;
        self.agenda.insert((self.now + after, self.serial), deed);
    }

    /// Sends what is to be sent and hears what the endpoint has to say, until there is no more of either.
    fn drain(&mut self) {
        while let Some(output) = self.endpoint.poll() {
            self.heed(output);
        }
        for peer in 0..self.clients.len() {
            for bytes in self.clients[peer].drain() {
                self.link.send(self.now, End::Endpoint(Peer::try_from(peer).unwrap()), &bytes);
                self.overhear(&bytes);
            }
        }
    }

    /// A stranger sends what a client sent: as it was, or with a few wrong bits, or cut, or with something behind it.
    fn overhear(&mut self, bytes: &[u8]) {
        if self.strangers_about == 0 {
            return;
        }
        let stranger = self.clients.len() as u64 + self.seed.below(u64::from(self.strangers_about));
        let mut bytes = bytes.to_vec();
        match self.seed.below(4) {
            0 => bytes.truncate(self.seed.below(bytes.len() as u64) as usize),
            1 => bytes.extend(self.seed.draw().to_le_bytes()),
            2 => {
                for _ in 0..=self.seed.below(4) {
                    let bit = self.seed.below(bytes.len() as u64 * 8) as usize;
                    bytes[bit / 8] ^= 1 << (bit % 8);
                }
            }
            _ => {}
        }
        self.link.send(self.now, End::Endpoint(Peer::try_from(stranger).unwrap()), &bytes);
    }

    fn is_stranger(&self, peer: Peer) -> bool {
        peer as usize >= self.clients.len()
    }

    fn heed(&mut self, output: Output<Peer>) {
        match output {
            Output::Transmit { peer, bytes } => {
                let stranger = self.strangers.entry(peer).or_default();
                stranger.to += bytes.len();
                assert!(
                    stranger.proven || stranger.to <= 3 * stranger.from,
                    "{} bytes to a stranger who sent {}",
                    stranger.to,
                    stranger.from
                );
                if !self.is_stranger(peer) {
                    self.link.send(self.now, End::Client(peer), &bytes);
                }
            }
            Output::Request { exchange, peer, request } => self.serve(exchange, peer, &request),
            Output::Delivered { note, peer } => self.decide(note, peer, Fate::Delivered),
            Output::Failed { note, peer, why } => self.decide(note, peer, Fate::Failed(why)),
            Output::ObservationEnded { observation, peer, .. } => {
                if self.observing.get(&peer) == Some(&observation) {
                    self.observing.remove(&peer);
                }
            }
            Output::Unfetched { .. }
            | Output::Ping { .. }
            | Output::Fetched { .. }
            | Output::Heard { .. }
            | Output::Proven { .. }
            | Output::Repeated { .. } => {}
            Output::Rejected { .. } => self.rejected += 1,
        }
    }

    fn serve(&mut self, exchange: ExchangeId, peer: Peer, request: &Request) {
        if self.knows_clients && !self.is_stranger(peer) {
            self.endpoint.prove(&peer);
            self.strangers.entry(peer).or_default().proven = true;
        }
        let path: Vec<&str> = request.path.iter().map(String::as_str).collect();
        if request.is_partial {
            self.endpoint.respond(self.now, exchange, Response::new(Code::CONTINUE));
            return;
        }
        let (response, observes) = match (request.method, &path[..]) {
            (Method::Post, ["up"]) if !self.is_stranger(peer) => {
                *self.handed_up.entry((peer, request.payload.clone())).or_default() += 1;
                (Response::new(Code::CHANGED).with_payload(answer_to(&request.payload)), false)
            }
            (Method::Get, ["big", name]) => {
                (Response::new(Code::CONTENT).with_payload(big(peer, name)), false)
            }
            (Method::Get, ["obs"]) => {
                let response = Response::new(Code::CONTENT).with_payload(Bytes::from_static(b"state"));
                (response, request.observe == Some(Observe::Register))
            }
            _ if self.is_stranger(peer) => (Response::new(Code::NOT_FOUND), false),
            _ => panic!("{request:?} of no client"),
        };
        let after = match self.seed.below(4) {
            0 => self.seed.below(900),
            1 => 1_000 + self.seed.below(8_000),
            _ => 0,
        };
        self.plan(after, Deed::Answer { exchange, peer, response, observes });
    }

    fn perform(&mut self, deed: Deed) {
        match deed {
            Deed::Answer { exchange, peer, response, observes: true } => {
                if let Some(observation) = self.endpoint.observe(self.now, exchange, response) {
                    self.observing.insert(peer, observation);
                }
            }
            Deed::Answer { exchange, response, .. } => {
                self.endpoint.respond(self.now, exchange, response);
            }
            Deed::Cut => self.link.set(Faults::CUT),
            Deed::Notify(peer) => {
                let Some(observation) = self.observing.get(&peer) else { return };
                let text = format!("note {} for {peer} ", self.serial);
                let text = Bytes::from(text.repeat(1 + self.note_length / text.len()));
                self.serial += 1;
                let response = Response::new(Code::CONTENT).with_payload(text.clone());
                if let Some(note) = self.endpoint.notify(self.now, *observation, response) {
                    let before = self.notes.insert(note, Note { peer, text, fate: Fate::UnderWay });
                    assert!(before.is_none(), "a note has its own id");
                }
            }
        }
    }

    fn decide(&mut self, note: NoteId, peer: Peer, fate: Fate) {
        let note = self.notes.get_mut(&note).expect("a note that was given");
        assert_eq!((note.peer, note.fate), (peer, Fate::UnderWay), "a fate is told once");
        note.fate = fate;
    }

    /// What a peer sends that proves its address, or may. Nothing that a stranger sends does.
    fn note_proof(&mut self, peer: Peer, datagram: &[u8]) {
        let is_stranger = self.is_stranger(peer);
        let stranger = self.strangers.entry(peer).or_default();
        stranger.from += datagram.len();
        if !is_stranger && let Ok(message) = codec::decode(datagram) {
            stranger.proven |=
                matches!(message.kind, Kind::Ack | Kind::Rst) || message.options.has(number::ECHO);
        }
    }
}

//! Clients, an authenticator, a clock and somebody in between, whom bytes direct.
//!
//! Owns: the moves, and what is right (`Watch`). Does not own: a client's half of the protocol (`client`).

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use super::client::{self, Client, KEY, Stage};
use super::source::Source;
use crate::engine::Answer;
use crate::handshake::{FragmentHeader, MessageType};
use crate::listener::{Event, Key, Listener, Sink};
use crate::record::{ContentType, RecordHeader};
use crate::server::{Server, ServerConfig};
use crate::{Limits, Tick};

/// Steps of one play at most.
const STEPS: usize = 200;
/// Datagrams that are remembered, to be sent again or changed.
const REMEMBERED: usize = 32;
/// Who is there; the first two share a host.
const CLIENTS: usize = 4;

const LIMITS: Limits = Limits {
    max_sessions: 2,
    max_handshakes: 2,
    max_per_host: 3,
    handshake_timeout_ms: 30_000,
    session_timeout_ms: 300_000,
    max_handshakes_per_host: 2,
    alerts_per_second: 3,
};

/// What the listener told, and whether it may.
#[derive(Default)]
struct Watch {
    /// Sent to each client since it was looked at last.
    sent: Vec<(u8, Vec<u8>)>,
    asked: Vec<Key>,
    sessions: BTreeSet<u64>,
    /// All that ever were.
    keys: BTreeSet<u64>,
    /// What the client at an address has sealed as data, and its session has not brought yet.
    sealed: BTreeMap<(u8, Vec<u8>), usize>,
    /// Who has said Finished since it began anew.
    finished: [bool; CLIENTS],
}

impl Watch {
    fn over(&mut self, key: Key) {
        self.asked.retain(|asked| *asked != key);
    }
}

impl Sink<u8> for Watch {
    fn transmit(&mut self, path: &u8, datagram: &[u8]) {
        assert!(usize::from(*path) < CLIENTS, "a way to nobody");
        let mut rest = datagram;
        while !rest.is_empty() {
            let record =
                RecordHeader::read(rest).and_then(|(header, rest)| rest.get(usize::from(header.length)..));
            assert!(record.is_some(), "what is sent is no record");
            rest = record.unwrap_or_default();
        }
        self.sent.push((*path, datagram.to_vec()));
    }

    fn data(&mut self, key: Key, path: &u8, bytes: &[u8]) {
        assert!(self.sessions.contains(&key.number()), "data of nobody");
        let left = self.sealed.get_mut(&(*path, bytes.to_vec())).filter(|left| **left > 0);
        assert!(left.is_some(), "data that its client has not sent, or not so often: {bytes:?}");
        if let Some(left) = left {
            *left -= 1;
        }
    }

    fn event(&mut self, event: Event<u8>) {
        match event {
            Event::WhoIs { key, .. } => {
                assert!(self.keys.insert(key.number()), "a key twice, or a question");
                self.asked.push(key);
            }
            Event::Established { key, path, identity, .. } => {
                assert!(identity.is_some() && self.keys.contains(&key.number()), "nobody asked who it is");
                assert!(self.sessions.insert(key.number()), "established twice");
                assert!(self.finished.get(usize::from(path)) == Some(&true), "its client did not finish");
                self.over(key);
            }
            Event::Closed { key, .. } => assert!(self.sessions.remove(&key.number()), "closed twice"),
            Event::Failed { key, identity, .. } => {
                assert!(key.is_some() == identity.is_some(), "half a name");
                assert!(key.is_none_or(|key| !self.sessions.contains(&key.number())), "a session failed");
                if let Some(key) = key {
                    self.over(key);
                }
            }
        }
    }
}

pub(super) struct Play<'a> {
    source: Source<'a>,
    listener: Listener<Server, u8>,
    watch: Watch,
    clients: [Client; CLIENTS],
    remembered: Vec<(u8, Vec<u8>)>,
    texts: u32,
    now: Tick,
}

impl<'a> Play<'a> {
    /// The first client has a session, the second has begun.
    pub(super) fn new(data: &'a [u8]) -> Self {
        let config = ServerConfig {
            psk: true,
            certificate: None,
            client_ca: None,
            require_client_certificate: false,
            mtu: 512,
            max_forged: 8,
        };
        let mut play = Self {
            source: Source::new(&[]),
            listener: Listener::new(Arc::new(config), LIMITS, [9; 32], 0),
            watch: Watch::default(),
            clients: [0x100, 0x202, 0x304, 0x405].map(Client::new),
            remembered: Vec::new(),
            texts: 0,
            now: 0,
        };
        for at in [0, 0, 0, 1, 1] {
            play.goes_on(at);
        }
        play.answer_with(0, Answer::Psk(KEY));
        assert!(play.listener.sessions() == 1 && play.listener.handshakes() == 1, "it does not begin well");
        play.source = Source::new(data);
        play
    }

    pub(super) fn run(mut self) {
        for _ in 0..STEPS {
            if self.source.is_empty() {
                break;
            }
            self.step();
            self.check();
        }
        self.end();
    }

    fn step(&mut self) {
        let at = self.source.below(CLIENTS);
        match self.source.below(17) {
            0..=3 => self.goes_on(at),
            4 | 5 => self.again(),
            6 | 7 => self.changed(),
            8 => {
                let bytes = self.source.bytes();
                self.arrives(at, bytes);
            }
            9 => self.fragment(at),
            10 => self.sealed(at),
            11 => self.begins_anew(at),
            12 => self.answer(),
            13 => self.caller(),
            14 => self.pass(),
            15 => self.several(at),
            _ => self.connects(at),
        }
    }

    /// A client says what comes next, with or without what goes wrong at that.
    fn goes_on(&mut self, at: usize) {
        let Some(client) = self.clients.get_mut(at) else { return };
        match client.stage {
            Stage::New | Stage::Invited => {
                let hello = client.hello();
                self.sends(at, &hello);
            }
            Stage::Turn => {
                let how = self.source.byte();
                // One in eight says what is not so.
                let is_right = how & 14 != 14;
                let flight = client.finish(is_right);
                if let Some(finished) = self.watch.finished.get_mut(at) {
                    *finished = *finished || is_right;
                }
                if how & 1 == 0 {
                    self.sends(at, &flight.concat());
                } else {
                    // Each on its own, and the last first.
                    for datagram in flight.iter().rev() {
                        self.sends(at, datagram);
                    }
                }
            }
            Stage::Finished if self.source.byte() & 7 == 7 => {
                let finished = client.finished();
                self.sends(at, &finished);
            }
            Stage::Finished => {
                self.texts += 1;
                let text = self.texts.to_be_bytes();
                self.seals(at, ContentType::APPLICATION_DATA, &text);
            }
        }
    }

    /// A whole handshake of a client that begins anew.
    fn connects(&mut self, at: usize) {
        self.begins_anew(at);
        for _ in 0..3 {
            self.goes_on(at);
        }
        self.answer_with(self.watch.asked.len().saturating_sub(1), Answer::Psk(KEY));
    }

    /// Something that was sent comes again, perhaps from elsewhere.
    fn again(&mut self) {
        let chosen = self.source.below(self.remembered.len());
        let Some((from, datagram)) = self.remembered.get(chosen).cloned() else { return };
        let elsewhere = self.source.byte();
        let from = if elsewhere < 192 { usize::from(from) } else { usize::from(elsewhere) % CLIENTS };
        self.arrives(from, &datagram);
    }

    /// Something that was sent comes again, and not as it was.
    fn changed(&mut self) {
        let chosen = self.source.below(self.remembered.len());
        let Some((from, mut datagram)) = self.remembered.get(chosen).cloned() else { return };
        for _ in 0..=self.source.below(4) {
            let place = usize::from(self.source.byte());
            // Most of what counts is in front.
            let place = if place & 1 == 0 { place / 2 % client::BEFORE_TEXT } else { place };
            let value = self.source.byte();
            if let Some(byte) = datagram.get_mut(place) {
                *byte = value;
            }
        }
        match self.source.byte() {
            0..160 => {}
            160..200 => datagram.truncate(self.source.below(datagram.len())),
            _ => datagram.extend(self.source.bytes()),
        }
        self.arrives(usize::from(from), &datagram);
    }

    /// A piece of a message, with numbers of any kind.
    fn fragment(&mut self, at: usize) {
        let Some(client) = self.clients.get_mut(at) else { return };
        let kind = MessageType(self.source.of(&[1, 11, 14, 15, 16, 20, 0, 2, 3, 12, 255]));
        let near = client.next_message();
        let message_seq = near.wrapping_add(self.source.of(&[0, 0, 1, 2, 0xFFFF, 7, 100, 0x8000_u16]));
        let body = self.source.bytes();
        let length = match self.source.byte() {
            0..128 => body.len() as u32,
            128..192 => u32::from(self.source.u16()),
            _ => u32::from(self.source.u16()) << 8,
        };
        let offset = u32::from(self.source.of(&[0_u16, 0, 1, 10, 100, 8_000, 0xFFFF]));
        let fragment = body.len() as u32;
        let header = FragmentHeader { kind, length, message_seq, offset, fragment };
        let epoch = u16::from(self.source.byte() > 200);
        let record = client.record(ContentType::HANDSHAKE, epoch, &[&header.to_bytes(), body].concat());
        self.sends(at, &record);
    }

    /// Whoever has the keys says anything with them.
    fn sealed(&mut self, at: usize) {
        let content = ContentType(self.source.of(&[23, 21, 22, 20, 24, 0_u8]));
        let text = match self.source.byte() {
            0..80 => self.source.of(&[[1, 0], [2, 40], [1, 100], [2, 0], [3, 3_u8]]).to_vec(),
            _ => self.source.bytes().to_vec(),
        };
        self.seals(at, content, &text);
    }

    fn seals(&mut self, at: usize, content: ContentType, text: &[u8]) {
        let Some(client) = self.clients.get_mut(at) else { return };
        if content == ContentType::APPLICATION_DATA && client.stage == Stage::Finished {
            *self.watch.sealed.entry((at as u8, text.to_vec())).or_insert(0) += 1;
        }
        let record = client.record(content, 1, text);
        self.sends(at, &record);
    }

    /// A client has forgotten everything, or says something odd in its next ClientHello.
    fn begins_anew(&mut self, at: usize) {
        let number = self.source.u16();
        let tail = (self.source.byte() > 128).then(|| self.source.bytes().to_vec());
        if let (Some(client), Some(finished)) = (self.clients.get_mut(at), self.watch.finished.get_mut(at)) {
            *client = Client::new(number);
            client.tail = tail;
            // What was on its way of the one before may still arrive.
            *finished = *finished || self.remembered.iter().any(|(from, _)| usize::from(*from) == at);
        }
    }

    /// Two records in one datagram.
    fn several(&mut self, at: usize) {
        let (one, other) =
            (self.source.below(self.remembered.len()), self.source.below(self.remembered.len()));
        let both = [one, other].map(|chosen| self.remembered.get(chosen).cloned().unwrap_or_default().1);
        self.arrives(at, &both.concat());
    }

    fn answer(&mut self) {
        let which = self.source.below(self.watch.asked.len());
        let answer = match self.source.below(8) {
            0..=3 => Answer::Psk(KEY),
            4 => Answer::Psk(b"another"),
            5 => Answer::Admitted,
            6 => Answer::Refused,
            _ => Answer::Unavailable,
        };
        self.answer_with(which, answer);
    }

    fn answer_with(&mut self, which: usize, answer: Answer<'_>) {
        if which < self.watch.asked.len() {
            let key = self.watch.asked.swap_remove(which);
            self.listener.answer(self.now, key, answer, &mut self.watch);
            self.fetch();
        }
    }

    /// Whoever the listener serves sends to a session, or ends it; any number may be its key.
    fn caller(&mut self) {
        let which = self.source.below(self.watch.sessions.len() + 1);
        let number = self.watch.sessions.iter().nth(which).copied().unwrap_or(u64::from(self.source.u16()));
        let Some(key) = Key::from_number(number) else { return };
        let is_there = self.watch.sessions.contains(&number);
        if self.source.byte() < 192 {
            let text = self.source.bytes();
            let sent = self.listener.send(key, text, &mut self.watch);
            assert!(sent.is_ok() == is_there, "{sent:?}");
        } else {
            self.listener.close(key, &mut self.watch);
            self.watch.sessions.remove(&number);
            self.watch.over(key);
        }
        self.fetch();
    }

    /// Time passes, deadline by deadline.
    fn pass(&mut self) {
        let ms = self.source.of(&[1_u64, 500, 1_000, 5_000, 31_000, 61_000, 200_000]);
        self.until(self.now + ms);
    }

    fn until(&mut self, until: Tick) {
        let mut turns = 0;
        while let Some(due) = self.listener.next_timeout().filter(|due| *due <= until) {
            self.now = self.now.max(due);
            self.listener.handle_timeout(self.now, &mut self.watch);
            turns += 1;
            assert!(turns < 100_000, "a deadline that never passes");
        }
        self.now = until;
        self.fetch();
    }

    /// A datagram is sent, and arrives unless it is lost; what was sent may come again.
    fn sends(&mut self, at: usize, datagram: &[u8]) {
        if self.remembered.len() == REMEMBERED {
            self.remembered.remove(0);
        }
        self.remembered.push((at as u8, datagram.to_vec()));
        if self.source.byte() < 240 {
            self.arrives(at, datagram);
        }
    }

    fn arrives(&mut self, at: usize, datagram: &[u8]) {
        let before = *self.listener.counts();
        let there = self.listener.sessions() + self.listener.handshakes();
        let mut bytes = datagram.to_vec();
        let remote = address(at);
        self.listener.receive(self.now, (at as u8, remote), &mut bytes, &mut self.watch);
        let after = self.listener.counts();
        let stateless =
            (before.cookies, before.versions, before.strays) != (after.cookies, after.versions, after.strays);
        let drawn: usize = self.watch.sent.iter().map(|(_, sent)| sent.len()).sum();
        if stateless {
            assert!(drawn <= datagram.len(), "{drawn} bytes for {} of a stranger", datagram.len());
        }
        if after.begun > before.begun {
            assert!(client::shows_cookie(datagram), "it began without a cookie");
        } else if there == 0 {
            assert!(drawn <= datagram.len() && self.listener.handshakes() == 0, "nobody is there");
        }
        self.fetch();
    }

    /// The clients hear what they were sent.
    fn fetch(&mut self) {
        for (to, datagram) in std::mem::take(&mut self.watch.sent) {
            if let Some(client) = self.clients.get_mut(usize::from(to)) {
                client.hear(&datagram);
            }
        }
    }

    fn check(&self) {
        let (sessions, handshakes) = (self.listener.sessions(), self.listener.handshakes());
        assert!(sessions == self.watch.sessions.len(), "{sessions} sessions, others were told");
        assert!(sessions <= LIMITS.max_sessions && handshakes <= LIMITS.max_handshakes, "a limit is passed");
        assert!(
            self.listener.next_timeout().is_some() == (sessions + handshakes > 0),
            "a deadline of nobody"
        );
        for number in &self.watch.keys {
            let is_there = Key::from_number(*number).is_some_and(|key| self.listener.path(key).is_some());
            let should = self.watch.sessions.contains(number);
            assert!(is_there || !should, "a session that is gone");
        }
        let counts = self.listener.counts();
        assert!(counts.established <= counts.begun, "more succeeded than began");
    }

    /// Handshakes end by themselves, and sessions too.
    fn end(&mut self) {
        self.until(self.now + LIMITS.handshake_timeout_ms + 10);
        assert!(self.listener.handshakes() == 0, "a handshake that does not end");
        self.check();
        if self.source.byte() & 1 == 0 {
            self.listener.close_all(&mut self.watch);
            self.watch.sessions.clear();
        }
        self.until(self.now + LIMITS.session_timeout_ms + 10);
        assert!(
            self.listener.sessions() == 0 && self.watch.sessions.is_empty(),
            "a session that does not end"
        );
        assert!(self.listener.next_timeout().is_none(), "a deadline for nobody");
    }
}

fn address(at: usize) -> SocketAddr {
    let at = at as u8;
    SocketAddr::from(([192, 0, 2, at.max(1)], 1_000 + u16::from(at)))
}

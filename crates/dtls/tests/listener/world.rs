//! A listener, its clients and its clock.
//!
//! Owns: how a client's datagrams are made, what the listener has said. Does not own: what it should say.

use std::net::SocketAddr;
use std::sync::Arc;

use landfall_dtls::{Answer, Closing, Event, Failure, Key, Limits, Listener, SendError, Sink, Tick};

use crate::fake::{Fake, script};

/// A way to a peer: any number.
pub(crate) type Way = u32;

/// What a listener has said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    Transmit(Way, Vec<u8>),
    Data(Key, Way, Vec<u8>),
    WhoIs(Key, Way),
    Established(Key, Way),
    Closed(Key, Way, Closing),
    /// With whether the key and the identity of its `WhoIs` were there.
    Failed(Option<Key>, Way, Failure),
}

#[derive(Default)]
pub(crate) struct Heard(pub(crate) Vec<Said>);

impl Sink<Way> for Heard {
    fn transmit(&mut self, path: &Way, datagram: &[u8]) {
        self.0.push(Said::Transmit(*path, datagram.to_vec()));
    }

    fn data(&mut self, key: Key, path: &Way, bytes: &[u8]) {
        self.0.push(Said::Data(key, *path, bytes.to_vec()));
    }

    fn event(&mut self, event: Event<Way>) {
        self.0.push(match event {
            Event::WhoIs { key, path, .. } => Said::WhoIs(key, path),
            Event::Established { key, path, .. } => Said::Established(key, path),
            Event::Closed { key, path, why } => Said::Closed(key, path, why),
            Event::Failed { key, path, identity, why } => {
                assert_eq!(key.is_some(), identity.is_some(), "who was asked of is named");
                Said::Failed(key, path, why)
            }
        });
    }
}

/// Somebody with an address and a random; its first byte stands for the keys of its session.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Client {
    pub(crate) remote: SocketAddr,
    pub(crate) way: Way,
    pub(crate) random: [u8; 32],
}

impl Client {
    /// Somebody on a host of its own.
    pub(crate) fn new(number: u32) -> Self {
        let ip = std::net::Ipv4Addr::from(0x0A00_0000 + number);
        Self { remote: SocketAddr::from((ip, 5684)), way: number, random: [number as u8; 32] }
    }

    pub(crate) fn with_random(self, byte: u8) -> Self {
        Self { random: [byte; 32], ..self }
    }

    pub(crate) fn by(self, way: Way) -> Self {
        Self { way, ..self }
    }

    pub(crate) fn tag(&self) -> u8 {
        self.random[0]
    }

    /// A ClientHello in one record, as some client would send it.
    pub(crate) fn hello(&self, cookie: &[u8]) -> Vec<u8> {
        hello(0xFEFD, &self.random, cookie)
    }

    pub(crate) fn handshake(&self, epoch: u16, word: u8, rest: &[u8]) -> Vec<u8> {
        record(22, epoch, &script(self.tag(), word, rest))
    }

    pub(crate) fn data(&self, word: u8, rest: &[u8]) -> Vec<u8> {
        record(23, 1, &script(self.tag(), word, rest))
    }
}

pub(crate) fn hello(version: u16, random: &[u8; 32], cookie: &[u8]) -> Vec<u8> {
    let body = [
        version.to_be_bytes().as_slice(),
        random,
        &[0, cookie.len() as u8],
        cookie,
        &[0, 2, 0xC0, 0xA8, 1, 0],
    ]
    .concat();
    let length = [0, (body.len() >> 8) as u8, body.len() as u8];
    record(22, 0, &[&[1], &length[..], &[0, 0], &[0, 0, 0], &length, &body].concat())
}

pub(crate) fn record(content: u8, epoch: u16, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u16).to_be_bytes();
    [&[content, 0xFE, 0xFD], &epoch.to_be_bytes()[..], &[0, 0, 0, 0, 0, 9], &length, payload].concat()
}

pub(crate) struct World {
    pub(crate) listener: Listener<Fake, Way>,
    pub(crate) now: Tick,
    heard: Heard,
}

impl World {
    pub(crate) fn new(limits: Limits) -> Self {
        let now = 1_000_000;
        Self { listener: Listener::new(Arc::new(()), limits, [3; 32], now), now, heard: Heard::default() }
    }

    /// What was said since.
    pub(crate) fn said(&mut self) -> Vec<Said> {
        std::mem::take(&mut self.heard.0)
    }

    pub(crate) fn receive(&mut self, from: &Client, datagram: &[u8]) -> Vec<Said> {
        let mut datagram = datagram.to_vec();
        self.listener.receive(self.now, (from.way, from.remote), &mut datagram, &mut self.heard);
        self.said()
    }

    pub(crate) fn answer(&mut self, key: Key, answer: Answer<'_>) -> Vec<Said> {
        self.listener.answer(self.now, key, answer, &mut self.heard);
        self.said()
    }

    pub(crate) fn send(&mut self, key: Key, data: &[u8]) -> (Result<(), SendError>, Vec<Said>) {
        let sent = self.listener.send(key, data, &mut self.heard);
        (sent, self.said())
    }

    pub(crate) fn close(&mut self, key: Key) -> Vec<Said> {
        self.listener.close(key, &mut self.heard);
        self.said()
    }

    pub(crate) fn close_all(&mut self) -> Vec<Said> {
        self.listener.close_all(&mut self.heard);
        self.said()
    }

    /// Time passes, deadline by deadline.
    pub(crate) fn pass(&mut self, ms: u64) -> Vec<Said> {
        let until = self.now + ms;
        let mut turns = 0;
        while let Some(due) = self.listener.next_timeout().filter(|due| *due <= until) {
            self.now = self.now.max(due);
            self.listener.handle_timeout(self.now, &mut self.heard);
            turns += 1;
            assert!(turns < 1_000_000, "a deadline that never passes");
        }
        self.now = until;
        self.said()
    }

    /// The cookie that a client is given.
    pub(crate) fn cookie(&mut self, client: &Client) -> Vec<u8> {
        match self.receive(client, &client.hello(&[])).as_slice() {
            [Said::Transmit(_, reply)] if reply[13] == 3 => reply[28..].to_vec(),
            other => panic!("no cookie: {other:?}"),
        }
    }

    /// A client knocks, comes back with its cookie, and says this much more in its handshake.
    pub(crate) fn knock(&mut self, client: &Client) -> Vec<Said> {
        let cookie = self.cookie(client);
        self.receive(client, &client.hello(&cookie))
    }

    /// A whole handshake.
    pub(crate) fn connect(&mut self, client: &Client) -> Key {
        self.knock(client);
        let said = self.receive(client, &client.handshake(1, b'e', &[]));
        established(&said).unwrap_or_else(|| panic!("{client:?} is not established: {said:?}"))
    }
}

impl World {
    /// A whole handshake of one who proves nothing.
    pub(crate) fn come_in(&mut self, client: &Client) -> (Key, Vec<Said>) {
        self.knock(client);
        let said = self.receive(client, &client.handshake(1, b'E', &[]));
        let key = established(&said).unwrap_or_else(|| panic!("{client:?} is not established: {said:?}"));
        (key, said)
    }

    pub(crate) fn vouch(&mut self, key: Key) -> (bool, Vec<Said>) {
        let is_known = self.listener.vouch(self.now, key, &mut self.heard);
        (is_known, self.said())
    }
}

/// Whose handshake has succeeded.
pub(crate) fn established(said: &[Said]) -> Option<Key> {
    said.iter().find_map(|said| match said {
        Said::Established(key, _) => Some(*key),
        _ => None,
    })
}

pub(crate) fn data(said: &[Said]) -> Vec<(Key, Way, &[u8])> {
    let data = said.iter().filter_map(|said| match said {
        Said::Data(key, way, bytes) => Some((*key, *way, bytes.as_slice())),
        _ => None,
    });
    data.collect()
}

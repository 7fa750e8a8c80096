//! A client with a key, made of the crate's own codec.
//!
//! Owns: its half of a PSK handshake, and records that are sealed as they should be, whatever is in them. Does not own: when it
//! says what (`play`).

use ring::digest;

use crate::handshake::hello::HelloStart;
use crate::handshake::{self, FragmentHeader, MessageType};
use crate::keys::{Master, Side, TrafficKeys, psk_premaster};
use crate::record::{ContentType, HEADER, RecordHeader};
use crate::suite::Suite;

pub(super) const KEY: &[u8] = b"sixteen byte key";

/// How far it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Its ClientHello has no cookie yet.
    New,
    /// It has a cookie.
    Invited,
    /// The server has said all that it says before it is its turn.
    Turn,
    /// It has said Finished.
    Finished,
}

pub(super) struct Client {
    pub(super) stage: Stage,
    random: [u8; 32],
    suite: Suite,
    extended_master_secret: bool,
    cookie: Vec<u8>,
    /// What stands in its ClientHello behind the cookie instead of what should.
    pub(super) tail: Option<Vec<u8>>,
    server_random: Option<[u8; 32]>,
    next_message: u16,
    next_record: [u64; 2],
    /// All messages so far, as if each had come in one piece.
    transcript: Vec<u8>,
    /// Its last message, which it may have to say again.
    last: Vec<u8>,
    keys: Option<(Master, TrafficKeys)>,
}

impl Client {
    /// `number` makes its random; its low bits choose suite and extension.
    pub(super) fn new(number: u16) -> Self {
        let mut random = [0; 32];
        random.iter_mut().zip(number.to_be_bytes().into_iter().cycle()).for_each(|(to, from)| *to = from);
        Self {
            stage: Stage::New,
            random,
            suite: if number & 1 == 0 { Suite::PskCcm8 } else { Suite::PskGcm },
            extended_master_secret: number & 2 == 0,
            cookie: Vec::new(),
            tail: None,
            server_random: None,
            next_message: 0,
            next_record: [0; 2],
            transcript: Vec::new(),
            last: Vec::new(),
            keys: None,
        }
    }

    /// Its ClientHello, with a cookie if it has one; that one is the same each time.
    pub(super) fn hello(&mut self) -> Vec<u8> {
        if self.cookie.is_empty() || self.last.is_empty() {
            let body = [
                [0xFE, 0xFD].as_slice(),
                &self.random,
                &[0],
                &[self.cookie.len() as u8],
                &self.cookie,
                self.tail.as_deref().unwrap_or(&self.offers()),
            ]
            .concat();
            self.transcript.clear();
            self.last = self.message(MessageType::CLIENT_HELLO, &body);
        }
        let message = self.last.clone();
        self.record(ContentType::HANDSHAKE, 0, &message)
    }

    fn offers(&self) -> Vec<u8> {
        let [s0, s1] = self.suite.code().to_be_bytes();
        let mut offers = vec![0, 4, s0, s1, 0, 0xFF, 1, 0];
        if self.extended_master_secret {
            offers.extend([0, 4, 0, 23, 0, 0]);
        }
        offers
    }

    /// The flight with which it finishes: rightly, or with a Finished that is sealed and wrong.
    pub(super) fn finish(&mut self, is_right: bool) -> Vec<Vec<u8>> {
        let identity = b"meter@farm";
        let exchange = self
            .message(MessageType::CLIENT_KEY_EXCHANGE, &[&[0, identity.len() as u8], &identity[..]].concat());
        let randoms = [self.random, self.server_random.unwrap_or_default()];
        let premaster = psk_premaster(KEY);
        let master = if self.extended_master_secret {
            Master::extended(&premaster, hash(&self.transcript).as_ref())
        } else {
            Master::classic(&premaster, &randoms)
        };
        let side = if is_right { Side::Client } else { Side::Server };
        let verify_data = master.verify_data(side, hash(&self.transcript).as_ref());
        let keys = master.traffic_keys(&randoms, self.suite.key_length());
        self.keys = Some((master, keys));
        self.last = self.message(MessageType::FINISHED, &verify_data);
        self.stage = Stage::Finished;
        vec![
            self.record(ContentType::HANDSHAKE, 0, &exchange),
            self.record(ContentType::CHANGE_CIPHER_SPEC, 0, &[1]),
            self.finished(),
        ]
    }

    /// Its Finished, in a record of its own each time.
    pub(super) fn finished(&mut self) -> Vec<u8> {
        let finished = self.last.clone();
        self.record(ContentType::HANDSHAKE, 1, &finished)
    }

    /// One record of it, sealed when it is of the protected epoch and there are keys.
    pub(super) fn record(&mut self, content: ContentType, epoch: u16, text: &[u8]) -> Vec<u8> {
        let length = text.len() as u16;
        let next = if epoch == 0 { &mut self.next_record[0] } else { &mut self.next_record[1] };
        let header = RecordHeader::new(content, epoch, *next, length);
        *next += 1;
        let mut out = Vec::new();
        match &self.keys {
            Some((_, keys)) if epoch == 1 => {
                let _ = self.suite.seal(&keys.client, header, text, &mut out);
            }
            _ => {
                out.extend(header.to_bytes());
                out.extend(text);
            }
        }
        out
    }

    /// A message in one piece.
    fn message(&mut self, kind: MessageType, body: &[u8]) -> Vec<u8> {
        let header = FragmentHeader::whole(kind, body.len() as u32, self.next_message);
        self.next_message += 1;
        let message = [&header.to_bytes(), body].concat();
        self.transcript.extend(&message);
        message
    }

    /// The number of its next message.
    pub(super) fn next_message(&self) -> u16 {
        self.next_message
    }

    /// Reads what the server says.
    pub(super) fn hear(&mut self, datagram: &[u8]) {
        let mut rest = datagram;
        while let Some((header, after)) = RecordHeader::read(rest) {
            let Some((body, next)) = after.split_at_checked(usize::from(header.length)) else { return };
            if header.epoch == 0 && header.content == ContentType::HANDSHAKE {
                self.messages(body);
            }
            rest = next;
        }
    }

    fn messages(&mut self, mut rest: &[u8]) {
        while let Some((header, body, after)) = FragmentHeader::read(rest) {
            let message = rest.get(..handshake::HEADER + body.len()).unwrap_or_default();
            match (self.stage, header.kind) {
                (Stage::New, MessageType::HELLO_VERIFY_REQUEST) => {
                    self.cookie = body.get(3..).unwrap_or_default().to_vec();
                    self.stage = Stage::Invited;
                    self.last.clear();
                }
                (Stage::Invited, MessageType::SERVER_HELLO) if self.server_random.is_none() => {
                    self.server_random = body.get(2..).and_then(|rest| rest.first_chunk()).copied();
                    self.transcript.extend(message);
                }
                (Stage::Invited, MessageType::SERVER_KEY_EXCHANGE) => self.transcript.extend(message),
                (Stage::Invited, MessageType::SERVER_HELLO_DONE) if self.server_random.is_some() => {
                    self.transcript.extend(message);
                    self.stage = Stage::Turn;
                }
                _ => {}
            }
            rest = after;
        }
    }
}

fn hash(bytes: &[u8]) -> digest::Digest {
    digest::digest(&digest::SHA256, bytes)
}

/// Whether a datagram shows something as a cookie.
pub(super) fn shows_cookie(datagram: &[u8]) -> bool {
    HelloStart::read(datagram).is_some_and(|hello| !hello.cookie.is_empty())
}

/// Bytes that a record has before its text; enough of them to change one that counts.
pub(super) const BEFORE_TEXT: usize = HEADER + handshake::HEADER;

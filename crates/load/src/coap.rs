//! One CoAP client: requests to one resource, and their responses (RFC 7252).
//!
//! Owns: the request's bytes, ids and tokens, sending again. Does not own: how options are written (`landfall-coap-core`),
//! many requests at a time ([`crate::publish`]).

use std::io;
use std::str::FromStr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::ValueEnum;
use landfall_coap_core::{Code, Kind, Message, Token, codec, number};
use tokio::net::UdpSocket;

use crate::sources::Sources;

/// ACK_TIMEOUT (section 4.8): a confirmable message without an acknowledgement is sent again after it, and after twice that.
pub(crate) const ACK_TIMEOUT: Duration = Duration::from_secs(2);
/// MAX_RETRANSMIT.
pub(crate) const RETRANSMIT: u32 = 4;
/// Ids of one socket: none is used twice within EXCHANGE_LIFETIME, or the server would take it for the same message. The
/// client goes on from another port.
const IDS: u16 = 60_000;
const DATAGRAM: usize = 2048;

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Method {
    Get,
    Post,
    Put,
    Delete,
}

impl Method {
    pub(crate) fn code(self) -> Code {
        match self {
            Self::Get => Code::GET,
            Self::Post => Code::POST,
            Self::Put => Code::PUT,
            Self::Delete => Code::DELETE,
        }
    }
}

/// `2.04`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Expected(pub(crate) Code);

impl FromStr for Expected {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let read = || {
            let (class, detail) = text.split_once('.')?;
            let (class, detail) = (class.parse().ok()?, detail.parse().ok()?);
            (detail < 32 && class < 8).then(|| Code::new(class, detail))
        };
        read().map(Self).ok_or_else(|| "a code is written like 2.04".to_owned())
    }
}

/// A request as it is sent again and again, but for its id and token.
#[derive(Clone, Debug)]
pub(crate) struct Request(Vec<u8>);

impl Request {
    /// `path` may have a query: `/telemetry?ep=pump-17`.
    pub(crate) fn new(kind: Kind, code: Code, path: &str, payload: &[u8]) -> Self {
        Self::with(kind, code, path, payload, |_| ())
    }

    /// The same with more options.
    pub(crate) fn with(
        kind: Kind,
        code: Code,
        path: &str,
        payload: &[u8],
        more: impl FnOnce(&mut Message),
    ) -> Self {
        let token = Token::new(&[0; 4]).unwrap_or_default();
        let mut message = Message::new(kind, code, 0, token);
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        for (number, text, between) in [(number::URI_PATH, path, '/'), (number::URI_QUERY, query, '&')] {
            for part in text.split(between).filter(|part| !part.is_empty()) {
                message.options.push(number, Bytes::copy_from_slice(part.as_bytes()));
            }
        }
        message.payload = Bytes::copy_from_slice(payload);
        more(&mut message);
        Self(codec::encode(&message).to_vec())
    }

    /// With this id and token: they stand at the same place in every message (section 3).
    pub(crate) fn stamped(&mut self, id: u16, token: u32) -> &[u8] {
        if let Some(place) = self.0.get_mut(2..4) {
            place.copy_from_slice(&id.to_be_bytes());
        }
        if let Some(place) = self.0.get_mut(4..8) {
            place.copy_from_slice(&token.to_be_bytes());
        }
        &self.0
    }

    /// The payload, which stands at the end.
    pub(crate) fn payload_mut(&mut self, length: usize) -> &mut [u8] {
        let from = self.0.len().saturating_sub(length);
        self.0.get_mut(from..).unwrap_or_default()
    }
}

/// The beginning of a message of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) kind: Kind,
    pub(crate) code: Code,
    pub(crate) id: u16,
    /// If it is one of ours.
    pub(crate) token: Option<u32>,
}

impl Reply {
    pub(crate) fn read(datagram: &[u8]) -> Option<Self> {
        let [first, code, high, low] = *datagram.first_chunk()?;
        let kind = match first >> 4 {
            4 => Kind::Con,
            5 => Kind::Non,
            6 => Kind::Ack,
            7 => Kind::Rst,
            _ => return None,
        };
        let token = (first & 15 == 4).then(|| datagram.get(4..)?.first_chunk().copied()).flatten();
        let (id, token) = (u16::from_be_bytes([high, low]), token.map(u32::from_be_bytes));
        Some(Self { kind, code: Code(code), id, token })
    }
}

/// The empty acknowledgement of a message that wants one.
pub(crate) fn acknowledgement(id: u16) -> [u8; 4] {
    let [high, low] = id.to_be_bytes();
    [0x60, 0, high, low]
}

/// A socket, and the ids that were used on it.
#[derive(Debug)]
pub(crate) struct Mouth {
    sources: Sources,
    n: u32,
    pub(crate) socket: UdpSocket,
    id: u16,
    used: u16,
}

impl Mouth {
    pub(crate) async fn open(sources: Sources, n: u32) -> io::Result<Self> {
        let socket = sources.udp(n).await?;
        // Not all begin with the same id.
        let id = u16::try_from(n.wrapping_mul(40_503) & 0xffff).unwrap_or(0);
        Ok(Self { sources, n, socket, id, used: 0 })
    }

    pub(crate) fn next_id(&mut self) -> u16 {
        (self.id, self.used) = (self.id.wrapping_add(1), self.used.saturating_add(1));
        self.id
    }

    pub(crate) fn is_worn(&self) -> bool {
        self.used >= IDS
    }

    /// Goes on from another port.
    pub(crate) async fn renew(&mut self) -> io::Result<()> {
        (self.socket, self.used) = (self.sources.udp(self.n).await?, 0);
        Ok(())
    }
}

/// One client with one request at a time.
#[derive(Debug)]
pub(crate) struct Coap {
    pub(crate) mouth: Mouth,
    pub(crate) token: u32,
    /// Times that something was sent again.
    pub(crate) again: u64,
}

impl Coap {
    pub(crate) async fn open(sources: Sources, n: u32) -> io::Result<Self> {
        Ok(Self { mouth: Mouth::open(sources, n).await?, token: 0, again: 0 })
    }

    /// Sends a confirmable request and waits for its response.
    pub(crate) async fn ask(&mut self, request: &mut Request) -> io::Result<Code> {
        if self.mouth.is_worn() {
            self.mouth.renew().await?;
        }
        self.token = self.token.wrapping_add(1);
        let id = self.mouth.next_id();
        for attempt in 0..=RETRANSMIT {
            self.again += u64::from(attempt > 0);
            self.mouth.socket.send(request.stamped(id, self.token)).await?;
            if let Some(code) = self.response(Instant::now() + ACK_TIMEOUT * (1 << attempt)).await? {
                return Ok(code);
            }
        }
        Err(io::Error::new(io::ErrorKind::TimedOut, "no response"))
    }

    async fn response(&mut self, until: Instant) -> io::Result<Option<Code>> {
        let mut buffer = [0; DATAGRAM];
        loop {
            let receiving = self.mouth.socket.recv(&mut buffer);
            let Ok(received) = tokio::time::timeout_at(until.into(), receiving).await else {
                return Ok(None);
            };
            let Some(reply) = Reply::read(buffer.get(..received?).unwrap_or_default()) else { continue };
            if reply.kind == Kind::Con {
                self.mouth.socket.send(&acknowledgement(reply.id)).await?;
            }
            if reply.code != Code::EMPTY && reply.token == Some(self.token) {
                return Ok(Some(reply.code));
            }
            if reply.kind == Kind::Rst {
                return Err(io::Error::other("the server resets the request"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_stamped_where_its_id_and_token_stand() {
        let mut request = Request::new(Kind::Con, Code::POST, "/a/b?ep=x&lt=60", b"hello");
        let message = codec::decode(request.stamped(0x1234, 0x0506_0708)).unwrap();
        assert_eq!((message.kind, message.code, message.id), (Kind::Con, Code::POST, 0x1234));
        assert_eq!((message.token.as_bytes(), &message.payload[..]), (&[5, 6, 7, 8][..], &b"hello"[..]));
        let all = |number| message.options.all(number).map(|value| value.to_vec()).collect::<Vec<_>>();
        assert_eq!(all(number::URI_PATH), [b"a", b"b"]);
        assert_eq!(all(number::URI_QUERY), [b"ep=x".to_vec(), b"lt=60".to_vec()]);
        request.payload_mut(5).copy_from_slice(b"there");
        assert_eq!(&codec::decode(request.stamped(1, 1)).unwrap().payload[..], b"there");
        // The root has no path.
        let mut root = Request::new(Kind::Non, Code::GET, "/", b"");
        assert_eq!(root.stamped(1, 2).len(), 8);
    }

    #[test]
    fn replies_are_told_apart() {
        let reply = |bytes: &[u8]| Reply::read(bytes).unwrap();
        let found = reply(&[0x64, 0x44, 0, 9, 0, 0, 1, 0, 0xff, b'x']);
        assert_eq!((found.kind, found.code, found.id), (Kind::Ack, Code::CHANGED, 9));
        assert_eq!((found.token, reply(&acknowledgement(7)).id), (Some(256), 7));
        assert_eq!((reply(&acknowledgement(7)).token, Reply::read(&[0x60, 0, 0])), (None, None));
        assert_eq!("4.04".parse(), Ok(Expected(Code::NOT_FOUND)));
        assert!("204".parse::<Expected>().is_err() && "2.40".parse::<Expected>().is_err());
    }

    #[tokio::test]
    async fn a_separate_response_is_acknowledged_and_what_was_lost_is_sent_again() {
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let mut coap = Coap::open(Sources::new(server.local_addr().unwrap(), 1), 3).await.unwrap();
        let mut request = Request::new(Kind::Con, Code::GET, "/", b"");
        let serve = async {
            let mut buffer = [0; 64];
            let (length, first) = server.recv_from(&mut buffer).await.unwrap();
            let lost = buffer[..length].to_vec();
            let (length, from) = server.recv_from(&mut buffer).await.unwrap();
            assert_eq!((&buffer[..length], from), (&lost[..], first), "the same again");
            server.send_to(&[0x60, 0, lost[2], lost[3]], from).await.unwrap();
            let mut answer = vec![0x44, 0x45, 0, 77];
            answer.extend(&lost[4..8]);
            server.send_to(&answer, from).await.unwrap();
            let length = server.recv(&mut buffer).await.unwrap();
            assert_eq!(buffer[..length], acknowledgement(77));
        };
        let (code, ()) = tokio::join!(coap.ask(&mut request), serve);
        assert_eq!((code.unwrap(), coap.again), (Code::CONTENT, 1));
    }
}

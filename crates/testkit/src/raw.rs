//! An MQTT client of bare bytes: sends what a test says and shows what comes back.
//!
//! Owns: one socket and taking packets apart. Does not own: forming packets ([`crate::packet`]).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::packet::{Connect, Version, kind};
use crate::wait::{PATIENCE, within};

/// Anything that carries bytes both ways.
pub trait Wire: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Wire for T {}

/// A packet from the server.
#[derive(Clone, PartialEq, Eq)]
pub struct Packet {
    /// Its first byte.
    pub first: u8,
    /// Its body.
    pub body: Vec<u8>,
}

impl std::fmt::Debug for Packet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "packet type {} flags {:#x} body {:02x?}", self.kind(), self.first & 0x0f, self.body)
    }
}

/// What a PUBLISH from the server says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivered {
    /// The topic.
    pub topic: String,
    /// The packet id, above QoS 0.
    pub id: Option<u16>,
    /// Quality of service.
    pub qos: u8,
    /// Sent again.
    pub dup: bool,
    /// The retain flag.
    pub retain: bool,
    /// MQTT 5 properties, as they came.
    pub properties: Vec<u8>,
    /// The payload.
    pub payload: Vec<u8>,
}

impl Packet {
    /// Its control packet type.
    pub fn kind(&self) -> u8 {
        self.first >> 4
    }

    /// A two-byte number of its body.
    fn two(&self, at: usize) -> u16 {
        u16::from_be_bytes([self.body[at], self.body[at + 1]])
    }

    /// The packet id that it begins with: every acknowledgement, SUBACK, UNSUBACK.
    pub fn id(&self) -> u16 {
        self.two(0)
    }

    /// CONNACK: the session present flag.
    pub fn session_present(&self) -> bool {
        self.body[0] & 1 == 1
    }

    /// CONNACK: the return or reason code.
    pub fn connack_code(&self) -> u8 {
        self.body[1]
    }

    /// PUBACK, PUBREC, PUBREL, PUBCOMP: the reason code; 0 where it is left out.
    pub fn ack_code(&self) -> u8 {
        self.body.get(2).copied().unwrap_or(0)
    }

    /// DISCONNECT: the reason code; 0 where it is left out.
    pub fn disconnect_code(&self) -> u8 {
        self.body.first().copied().unwrap_or(0)
    }

    /// SUBACK, UNSUBACK: the codes.
    pub fn codes(&self, version: Version) -> Vec<u8> {
        let skip = match version {
            Version::V4 => 0,
            Version::V5 => varint(&self.body[2..]).map_or(0, |(length, used)| length + used),
        };
        self.body[2 + skip..].to_vec()
    }

    /// MQTT 5 CONNACK: a property's value, by its identifier.
    pub fn connack_property(&self, id: u8) -> Option<Vec<u8>> {
        let (length, used) = varint(&self.body[2..])?;
        properties(&self.body[2 + used..2 + used + length])
            .into_iter()
            .find(|(have, _)| *have == id)
            .map(|(_, v)| v)
    }

    /// PUBLISH: what it says.
    ///
    /// # Panics
    /// When it is malformed.
    pub fn delivered(&self, version: Version) -> Delivered {
        assert_eq!(self.kind(), kind::PUBLISH, "{self:?} is no PUBLISH");
        let qos = self.first >> 1 & 3;
        let mut at = 2 + usize::from(self.two(0));
        let topic = String::from_utf8(self.body[2..at].to_vec()).expect("a topic in UTF-8");
        let id = (qos > 0).then(|| self.two(at));
        at += if qos > 0 { 2 } else { 0 };
        let mut properties = Vec::new();
        if version == Version::V5 {
            let (length, used) = varint(&self.body[at..]).expect("a property length");
            properties = self.body[at + used..at + used + length].to_vec();
            at += used + length;
        }
        let payload = self.body[at..].to_vec();
        let (dup, retain) = (self.first & 8 != 0, self.first & 1 != 0);
        Delivered { topic, id, qos, dup, retain, properties, payload }
    }
}

impl Delivered {
    /// An MQTT 5 property's value, by its identifier.
    pub fn property(&self, id: u8) -> Option<Vec<u8>> {
        properties(&self.properties).into_iter().find(|(have, _)| *have == id).map(|(_, value)| value)
    }
}

/// A variable byte integer and how many bytes it took.
fn varint(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut value = 0;
    for (at, byte) in bytes.iter().take(4).enumerate() {
        value |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some((value, at + 1));
        }
    }
    None
}

/// Takes properties apart: identifier and value, texts without their length.
fn properties(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut all = Vec::new();
    while let Some((&id, rest)) = bytes.split_first() {
        let text = |at: usize| usize::from(u16::from_be_bytes([rest[at], rest[at + 1]]));
        let (skip, length) = match id {
            0x01 | 0x17 | 0x19 | 0x24 | 0x25 | 0x28 | 0x29 | 0x2a => (0, 1),
            0x13 | 0x21 | 0x22 | 0x23 => (0, 2),
            0x02 | 0x11 | 0x18 | 0x27 => (0, 4),
            0x0b => (0, varint(rest).expect("a variable byte integer").1),
            0x26 => (0, 4 + text(0) + text(2 + text(0))),
            _ => (2, text(0)),
        };
        all.push((id, rest[skip..skip + length].to_vec()));
        bytes = &rest[skip + length..];
    }
    all
}

/// A client of bare bytes.
pub struct RawClient {
    wire: Box<dyn Wire>,
    pending: Vec<u8>,
    version: Version,
    local: Option<SocketAddr>,
}

impl std::fmt::Debug for RawClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RawClient").field("version", &self.version).finish_non_exhaustive()
    }
}

impl RawClient {
    /// Opens a TCP connection and says nothing.
    ///
    /// # Panics
    /// When it is refused.
    pub async fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap_or_else(|error| panic!("{address}: {error}"));
        stream.set_nodelay(true).expect("a TCP socket");
        let local = stream.local_addr().ok();
        Self { local, ..Self::over(stream, Version::V5) }
    }

    /// Opens a TCP connection whose drop resets it (RST) instead of closing it in order.
    ///
    /// # Panics
    /// When it is refused.
    pub async fn open_abrupt(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap_or_else(|error| panic!("{address}: {error}"));
        // An abrupt close throws away what has not left, so nothing may wait for an acknowledgement (Nagle).
        stream.set_nodelay(true).expect("a TCP socket");
        stream.set_zero_linger().expect("a TCP socket");
        Self::over(stream, Version::V5)
    }

    /// Takes what carries bytes already.
    pub fn over(wire: impl Wire + 'static, version: Version) -> Self {
        Self { wire: Box::new(wire), pending: Vec::new(), version, local: None }
    }

    /// Opens a TLS connection.
    ///
    /// # Errors
    /// When the connection or the handshake fails.
    pub async fn open_tls(address: SocketAddr, config: Arc<ClientConfig>) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        let name = ServerName::try_from("localhost").expect("a name");
        Ok(Self::over(TlsConnector::from(config).connect(name, stream).await?, Version::V5))
    }

    /// Opens a TCP connection, sends a CONNECT and returns the CONNACK, whatever it says.
    ///
    /// # Panics
    /// When none comes.
    pub async fn connect(address: SocketAddr, connect: &Connect) -> (Self, Packet) {
        let mut client = Self::open(address).await;
        let connack = client.login(connect).await;
        (client, connack)
    }

    /// As [`RawClient::connect`], and the CONNACK says yes.
    ///
    /// # Panics
    /// When it says no.
    pub async fn accepted(address: SocketAddr, connect: &Connect) -> Self {
        let (client, connack) = Self::connect(address, connect).await;
        assert_eq!(connack.connack_code(), 0, "the CONNECT is accepted");
        client
    }

    /// Sends a CONNECT and returns the CONNACK, whatever it says.
    pub async fn login(&mut self, connect: &Connect) -> Packet {
        self.version = connect.version;
        self.send(&connect.encode()).await;
        self.expect(kind::CONNACK).await
    }

    /// Its own address, as the gateway sees it; known for [`RawClient::open`].
    ///
    /// # Panics
    /// When it is not known.
    pub fn local_address(&self) -> SocketAddr {
        self.local.expect("a client opened over TCP")
    }

    /// Subscribes to one filter and returns the SUBACK's code.
    pub async fn subscribe(&mut self, filter: &str, qos: u8) -> u8 {
        let version = self.version;
        self.send(&crate::packet::subscribe(version, 1, &[(filter, qos)])).await;
        self.expect(kind::SUBACK).await.codes(version)[0]
    }

    /// Publishes at QoS 1 and waits for the PUBACK's code.
    pub async fn publish_acked(&mut self, topic: &str, payload: impl AsRef<[u8]>, id: u16) -> u8 {
        self.send(&crate::packet::Publish::new(self.version, topic, payload, 1, id).encode()).await;
        let ack = self.expect(kind::PUBACK).await;
        assert_eq!(ack.id(), id, "the PUBACK of this PUBLISH");
        ack.ack_code()
    }

    /// The version that it speaks.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Sends bytes.
    ///
    /// # Panics
    /// When the connection is broken.
    pub async fn send(&mut self, bytes: &[u8]) {
        self.try_send(bytes).await.expect("the connection stands");
    }

    /// Sends bytes.
    ///
    /// # Errors
    /// When the connection is broken.
    pub async fn try_send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.wire.write_all(bytes).await?;
        self.wire.flush().await
    }

    /// The next packet, however long it takes; `None` when the connection is at its end.
    pub async fn try_next(&mut self) -> Option<Packet> {
        self.read().await
    }

    /// The next packet; `None` when the server has closed the connection.
    pub async fn next(&mut self) -> Option<Packet> {
        self.next_within(PATIENCE).await
    }

    /// The next packet; `None` when the server has closed the connection.
    ///
    /// # Panics
    /// When neither happens within `deadline`.
    pub async fn next_within(&mut self, deadline: Duration) -> Option<Packet> {
        within(deadline, "a packet from the server or the end of the connection", self.read()).await
    }

    /// The next packet, which is of this kind.
    ///
    /// # Panics
    /// When another comes, or none.
    pub async fn expect(&mut self, kind: u8) -> Packet {
        match self.next().await {
            Some(packet) if packet.kind() == kind => packet,
            other => panic!("{other:?} came where a packet of type {kind} was due"),
        }
    }

    /// A round trip: PINGREQ, and PINGRESP as the next packet, so that nothing else was under way.
    pub async fn ping(&mut self) {
        self.send(&crate::packet::ping()).await;
        self.expect(kind::PINGRESP).await;
    }

    /// The packets that come until the server closes the connection.
    ///
    /// # Panics
    /// When it does not.
    pub async fn until_closed(&mut self) -> Vec<Packet> {
        let mut packets = Vec::new();
        while let Some(packet) = self.next().await {
            packets.push(packet);
        }
        packets
    }

    /// The packets that come until the server closes the connection, or until `time` has passed.
    pub async fn until_closed_or(&mut self, time: Duration) -> Vec<Packet> {
        let mut packets = Vec::new();
        while let Ok(Some(packet)) = tokio::time::timeout(time, self.read()).await {
            packets.push(packet);
        }
        packets
    }

    /// True while no byte and no end of the connection has come within `time`: only for what must not happen.
    pub async fn is_quiet_for(&mut self, time: Duration) -> bool {
        tokio::time::timeout(time, self.read()).await.is_err()
    }

    async fn read(&mut self) -> Option<Packet> {
        loop {
            if let Some(packet) = self.take() {
                return Some(packet);
            }
            let mut chunk = [0; 4096];
            match self.wire.read(&mut chunk).await {
                Ok(0) | Err(_) => return None,
                Ok(n) => self.pending.extend_from_slice(&chunk[..n]),
            }
        }
    }

    fn take(&mut self) -> Option<Packet> {
        let (length, used) = varint(self.pending.get(1..)?)?;
        let end = 1 + used + length;
        if self.pending.len() < end {
            return None;
        }
        let rest = self.pending.split_off(end);
        let whole = std::mem::replace(&mut self.pending, rest);
        Some(Packet { first: whole[0], body: whole[1 + used..].to_vec() })
    }
}

//! A client in the hands of a test: it speaks bytes, and hears actions and bytes.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use landfall_mqtt_core::{
    Accept, Ack, Action, Connection, DeliveryToken, Fault, Inbound, Limits, SessionState, Verdict, Violation,
};
pub(crate) use landfall_mqtt_core::{Delivery, Message, QoS, Version};

pub(crate) struct Peer {
    pub(crate) conn: Connection,
    input: BytesMut,
    out: BytesMut,
}

impl Peer {
    pub(crate) fn fresh(limits: Limits) -> Self {
        Self { conn: Connection::new(Arc::new(limits)), input: BytesMut::new(), out: BytesMut::new() }
    }

    /// A client that was let in, with the CONNACK taken off.
    pub(crate) fn of(version: Version) -> Self {
        Self::with(version, Limits::default(), &connect(version).bytes(), None)
    }

    pub(crate) fn v5() -> Self {
        Self::of(Version::V5)
    }

    pub(crate) fn v311() -> Self {
        Self::of(Version::V311)
    }

    pub(crate) fn with(
        version: Version,
        limits: Limits,
        connect: &[u8],
        state: Option<SessionState>,
    ) -> Self {
        let mut peer = Self::fresh(limits);
        let actions = peer.send(connect);
        assert!(matches!(&actions[..], [Action::Connect(_)]), "{version:?} {actions:?}");
        peer.conn.accept(&Accept::default(), state, &mut peer.out);
        let connack = 2 + usize::from(peer.out[1]);
        let _ = peer.out.split_to(connack);
        peer
    }

    /// The client sends; every action that comes of it.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> Vec<Action> {
        self.input.extend_from_slice(bytes);
        self.poll()
    }

    pub(crate) fn poll(&mut self) -> Vec<Action> {
        std::iter::from_fn(|| self.conn.poll(&mut self.input, &mut self.out)).collect()
    }

    /// The client sends a PUBLISH and exactly one message comes of it.
    pub(crate) fn publish(&mut self, publish: &[u8]) -> Inbound {
        match self.send(publish).pop() {
            Some(Action::Publish(inbound)) => inbound,
            other => panic!("{other:?} after {publish:02x?}"),
        }
    }

    /// The client sends and hears an answer without the shell.
    pub(crate) fn ask(&mut self, bytes: &[u8]) -> Vec<u8> {
        let actions = self.send(bytes);
        assert!(actions.is_empty(), "{actions:?} after {bytes:02x?}");
        self.heard()
    }

    pub(crate) fn stored(&mut self, message: &Inbound) -> Vec<u8> {
        self.conn.stored(message.token, &mut self.out);
        self.heard()
    }

    /// Everything that the client has been sent since.
    pub(crate) fn heard(&mut self) -> Vec<u8> {
        self.out.split().to_vec()
    }

    pub(crate) fn left(&self) -> usize {
        self.input.len()
    }

    pub(crate) fn both(&mut self) -> (&mut Connection, &mut BytesMut) {
        (&mut self.conn, &mut self.out)
    }

    /// The client sends something that ends the connection.
    pub(crate) fn fault(&mut self, bytes: &[u8]) -> Fault {
        let mut actions = self.send(bytes);
        assert!(self.conn.is_over(), "{actions:?} after {bytes:02x?}");
        match actions.pop() {
            Some(Action::Fault(fault)) => fault,
            other => panic!("{other:?} after {bytes:02x?}"),
        }
    }

    /// The client subscribes and is granted everything.
    pub(crate) fn subscribe(&mut self, filters: &[(&str, u8)]) {
        let packet = match self.conn.version() {
            Some(Version::V5) => subscribe_v5(1, &[], filters),
            _ => subscribe_v311(1, filters),
        };
        self.grant(&packet);
    }

    pub(crate) fn grant(&mut self, packet: &[u8]) -> Vec<u8> {
        let Some(Action::Subscribe(request)) = self.send(packet).pop() else { panic!("no request") };
        let verdicts = vec![Verdict::Granted(QoS::ExactlyOnce); request.filters().count()];
        self.conn.subscribed(request, &verdicts, &mut self.out);
        self.heard()
    }

    pub(crate) fn deliver(&mut self, message: Message) -> Delivery {
        self.conn.deliver(message, &mut self.out)
    }

    /// Delivers and returns the token and the packet id of the PUBLISH.
    pub(crate) fn deliver_acknowledged(&mut self, topic: &str, qos: QoS) -> (DeliveryToken, u16) {
        let Delivery::Sent { token: Some(token), .. } = self.deliver(Message::new(topic, "x", qos)) else {
            panic!("not sent")
        };
        let sent = self.heard();
        let at = 4 + topic.len();
        (token, u16::from_be_bytes([sent[at], sent[at + 1]]))
    }

    /// The client sends an acknowledgement that ends one message.
    pub(crate) fn acknowledged(&mut self, bytes: &[u8]) -> (DeliveryToken, Ack) {
        let actions = self.send(bytes);
        match &actions[..] {
            [Action::Acknowledged(token, ack), ..] => (*token, *ack),
            other => panic!("{other:?} after {bytes:02x?}"),
        }
    }
}

/// What the fault is called on the wire of 5.0, and that 3.1.1 hears nothing.
pub(crate) fn assert_ends(version: Version, bytes: &[u8], violation: Violation) {
    let mut peer = Peer::of(version);
    let fault = peer.fault(bytes);
    assert_eq!(fault.violation, violation, "{version:?} {bytes:02x?}: {fault:?}");
    let heard = peer.heard();
    match version {
        Version::V31 | Version::V311 => assert!(heard.is_empty(), "{heard:02x?}"),
        Version::V5 => {
            assert_eq!(heard[0], 0xE0, "{heard:02x?}");
            assert_eq!(heard[2], violation.code(), "{heard:02x?}");
        }
    }
    assert!(peer.send(&[0xC0, 0]).is_empty(), "nothing is read after the end");
}

/// A CONNECT in parts.
#[derive(Clone)]
pub(crate) struct Connect {
    pub(crate) version: Version,
    pub(crate) flags: u8,
    pub(crate) keep_alive: u16,
    pub(crate) properties: Vec<u8>,
    /// Client id, and whatever follows it.
    pub(crate) payload: Vec<u8>,
}

pub(crate) fn connect(version: Version) -> Connect {
    Connect { version, flags: 0b10, keep_alive: 60, properties: Vec::new(), payload: text("pump") }
}

impl Connect {
    pub(crate) fn flags(mut self, flags: u8) -> Self {
        self.flags = flags;
        self
    }

    pub(crate) fn keep_alive(mut self, seconds: u16) -> Self {
        self.keep_alive = seconds;
        self
    }

    pub(crate) fn properties(mut self, properties: &[u8]) -> Self {
        self.properties = properties.to_vec();
        self
    }

    pub(crate) fn payload(mut self, parts: &[&[u8]]) -> Self {
        self.payload = parts.concat();
        self
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let (name, level) = match self.version {
            Version::V31 => ("MQIsdp", 3),
            Version::V311 => ("MQTT", 4),
            Version::V5 => ("MQTT", 5),
        };
        let mut body = [text(name), vec![level, self.flags], self.keep_alive.to_be_bytes().to_vec()].concat();
        if self.version == Version::V5 {
            body.extend(with_length(&self.properties));
        }
        body.extend(&self.payload);
        packet(0x10, &body)
    }
}

/// A text with its two bytes of length.
pub(crate) fn text(text: &str) -> Vec<u8> {
    data(text.as_bytes())
}

pub(crate) fn data(bytes: &[u8]) -> Vec<u8> {
    [&u16::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat()
}

fn variable(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = (value & 0x7F) as u8;
        value >>= 7;
        if value == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}

pub(crate) fn with_length(bytes: &[u8]) -> Vec<u8> {
    [variable(bytes.len()), bytes.to_vec()].concat()
}

pub(crate) fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    [vec![first], with_length(body)].concat()
}

/// A PUBLISH of either version: `properties` are for 5.0.
pub(crate) fn publish(
    version: Version,
    first: u8,
    topic: &str,
    id: u16,
    properties: &[u8],
    payload: &[u8],
) -> Vec<u8> {
    let mut body = text(topic);
    if first & 0b110 != 0 {
        body.extend(id.to_be_bytes());
    }
    if version == Version::V5 {
        body.extend(with_length(properties));
    }
    body.extend(payload);
    packet(first, &body)
}

/// A PUBLISH of QoS 1 without properties.
pub(crate) fn qos1(version: Version, id: u16) -> Vec<u8> {
    publish(version, 0x32, "t", id, &[], b"x")
}

/// A PUBLISH of QoS 2 without properties.
pub(crate) fn qos2(version: Version, id: u16) -> Vec<u8> {
    publish(version, 0x34, "t", id, &[], b"x")
}

/// PUBACK (0x40), PUBREC (0x50), PUBREL (0x62) or PUBCOMP (0x70).
pub(crate) fn ack(first: u8, id: u16) -> Vec<u8> {
    packet(first, &id.to_be_bytes())
}

/// The same with a reason code.
pub(crate) fn ack_with(first: u8, id: u16, code: u8) -> Vec<u8> {
    packet(first, &[&id.to_be_bytes()[..], &[code]].concat())
}

fn filters(filters: &[(&str, u8)]) -> Vec<u8> {
    filters.iter().flat_map(|(filter, options)| [text(filter), vec![*options]].concat()).collect()
}

pub(crate) fn subscribe_v311(id: u16, list: &[(&str, u8)]) -> Vec<u8> {
    packet(0x82, &[id.to_be_bytes().to_vec(), filters(list)].concat())
}

pub(crate) fn subscribe_v5(id: u16, properties: &[u8], list: &[(&str, u8)]) -> Vec<u8> {
    packet(0x82, &[id.to_be_bytes().to_vec(), with_length(properties), filters(list)].concat())
}

pub(crate) fn payload(bytes: &'static [u8]) -> Bytes {
    Bytes::from_static(bytes)
}

/// The oldest QoS 2 message that the shell has not settled.
pub(crate) fn unsettled(peer: &Peer) -> Option<landfall_mqtt_core::Token> {
    peer.conn.session_state().unsettled().min()
}

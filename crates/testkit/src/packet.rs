//! MQTT packets as bytes, formed and read by hand: a test says exactly what is on the wire.
//!
//! Owns: both versions' packets, well formed; a test that needs a broken one changes bytes. Does not own: sockets
//! ([`crate::raw`]).

/// The version of MQTT that a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Version {
    /// MQTT 3.1.1.
    V4,
    /// MQTT 5.0.
    V5,
}

impl Version {
    /// The protocol level of its CONNECT.
    pub fn level(self) -> u8 {
        match self {
            Self::V4 => 4,
            Self::V5 => 5,
        }
    }

    /// The `protocol` of its `connected` event.
    pub fn protocol(self) -> &'static str {
        match self {
            Self::V4 => "MQTT/3.1.1",
            Self::V5 => "MQTT/5.0",
        }
    }
}

/// Control packet types (MQTT 2.1.2).
#[allow(missing_docs, reason = "the names of the specification")]
pub mod kind {
    pub const CONNECT: u8 = 1;
    pub const CONNACK: u8 = 2;
    pub const PUBLISH: u8 = 3;
    pub const PUBACK: u8 = 4;
    pub const PUBREC: u8 = 5;
    pub const PUBREL: u8 = 6;
    pub const PUBCOMP: u8 = 7;
    pub const SUBSCRIBE: u8 = 8;
    pub const SUBACK: u8 = 9;
    pub const UNSUBSCRIBE: u8 = 10;
    pub const UNSUBACK: u8 = 11;
    pub const PINGREQ: u8 = 12;
    pub const PINGRESP: u8 = 13;
    pub const DISCONNECT: u8 = 14;
    pub const AUTH: u8 = 15;
}

/// A variable byte integer (MQTT 1.5.5).
pub fn varint(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = u8::try_from(number % 128).expect("below 128");
        number /= 128;
        if number == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}

/// Bytes behind their two-byte length.
pub fn field(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let bytes = bytes.as_ref();
    let length = u16::try_from(bytes.len()).expect("a field of at most 65,535 bytes");
    [&length.to_be_bytes(), bytes].concat()
}

/// A packet: its first byte, the length of its body, its body.
pub fn frame(first: u8, body: &[u8]) -> Vec<u8> {
    [&[first], varint(body.len()).as_slice(), body].concat()
}

/// Properties behind their length on MQTT 5; nothing on 3.1.1.
fn properties(version: Version, bytes: &[u8]) -> Vec<u8> {
    match version {
        Version::V4 => Vec::new(),
        Version::V5 => [varint(bytes.len()).as_slice(), bytes].concat(),
    }
}

/// A will.
#[derive(Clone, Debug, Default)]
pub struct Will {
    /// Where to.
    pub topic: String,
    /// What.
    pub payload: Vec<u8>,
    /// Its quality of service.
    pub qos: u8,
    /// Its retain flag.
    pub retain: bool,
    /// MQTT 5 properties, encoded.
    pub properties: Vec<u8>,
}

/// A CONNECT.
#[derive(Clone, Debug)]
pub struct Connect {
    /// The version.
    pub version: Version,
    /// The client id's bytes.
    pub client_id: Vec<u8>,
    /// Clean session, clean start.
    pub clean: bool,
    /// Seconds.
    pub keep_alive: u16,
    /// The user name's bytes.
    pub username: Option<Vec<u8>>,
    /// The password.
    pub password: Option<Vec<u8>>,
    /// The will.
    pub will: Option<Will>,
    /// MQTT 5 properties, encoded.
    pub properties: Vec<u8>,
}

impl Connect {
    /// A clean one with this client id and 60 s of keep-alive.
    pub fn new(version: Version, client_id: impl AsRef<[u8]>) -> Self {
        Self {
            version,
            client_id: client_id.as_ref().to_vec(),
            clean: true,
            keep_alive: 60,
            username: None,
            password: None,
            will: None,
            properties: Vec::new(),
        }
    }

    /// With this keep-alive in seconds.
    #[must_use]
    pub fn keep_alive(self, seconds: u16) -> Self {
        Self { keep_alive: seconds, ..self }
    }

    /// Of a persistent session: clean session off; on MQTT 5 clean start off and this expiry in seconds.
    #[must_use]
    pub fn persistent(mut self, expiry: u32) -> Self {
        self.clean = false;
        if self.version == Version::V5 {
            self.properties.extend(property::session_expiry(expiry));
        }
        self
    }

    /// With a user name and a password.
    #[must_use]
    pub fn login(self, username: &str, password: &str) -> Self {
        Self { username: Some(username.into()), password: Some(password.into()), ..self }
    }

    /// With a will.
    #[must_use]
    pub fn will(self, will: Will) -> Self {
        Self { will: Some(will), ..self }
    }

    /// With this MQTT 5 property, encoded.
    #[must_use]
    pub fn property(mut self, bytes: &[u8]) -> Self {
        self.properties.extend_from_slice(bytes);
        self
    }

    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut flags = u8::from(self.clean) << 1;
        if let Some(will) = &self.will {
            flags |= 0x04 | will.qos << 3 | u8::from(will.retain) << 5;
        }
        flags |= u8::from(self.password.is_some()) << 6 | u8::from(self.username.is_some()) << 7;
        let mut body = field("MQTT");
        body.extend([self.version.level(), flags]);
        body.extend(self.keep_alive.to_be_bytes());
        body.extend(properties(self.version, &self.properties));
        body.extend(field(&self.client_id));
        if let Some(will) = &self.will {
            body.extend(properties(self.version, &will.properties));
            body.extend(field(&will.topic));
            body.extend(field(&will.payload));
        }
        body.extend(self.username.iter().chain(&self.password).flat_map(field));
        frame(kind::CONNECT << 4, &body)
    }
}

/// MQTT 5 properties, encoded one by one (MQTT 2.2.2.2).
pub mod property {
    use super::{field, varint};

    fn four(id: u8, value: u32) -> Vec<u8> {
        [&[id], value.to_be_bytes().as_slice()].concat()
    }

    fn two(id: u8, value: u16) -> Vec<u8> {
        [&[id], value.to_be_bytes().as_slice()].concat()
    }

    fn text(id: u8, value: impl AsRef<[u8]>) -> Vec<u8> {
        [&[id], field(value).as_slice()].concat()
    }

    /// Payload format indicator.
    pub fn payload_format(utf8: bool) -> Vec<u8> {
        vec![0x01, u8::from(utf8)]
    }
    /// Message expiry interval, seconds.
    pub fn message_expiry(seconds: u32) -> Vec<u8> {
        four(0x02, seconds)
    }
    /// Content type.
    pub fn content_type(value: &str) -> Vec<u8> {
        text(0x03, value)
    }
    /// Response topic.
    pub fn response_topic(value: &str) -> Vec<u8> {
        text(0x08, value)
    }
    /// Correlation data.
    pub fn correlation_data(value: &[u8]) -> Vec<u8> {
        text(0x09, value)
    }
    /// Subscription identifier.
    pub fn subscription_identifier(value: usize) -> Vec<u8> {
        [&[0x0b], varint(value).as_slice()].concat()
    }
    /// Session expiry interval, seconds.
    pub fn session_expiry(seconds: u32) -> Vec<u8> {
        four(0x11, seconds)
    }
    /// Authentication method.
    pub fn authentication_method(value: &str) -> Vec<u8> {
        text(0x15, value)
    }
    /// Will delay interval, seconds.
    pub fn will_delay(seconds: u32) -> Vec<u8> {
        four(0x18, seconds)
    }
    /// Receive maximum.
    pub fn receive_maximum(value: u16) -> Vec<u8> {
        two(0x21, value)
    }
    /// Topic alias maximum.
    pub fn topic_alias_maximum(value: u16) -> Vec<u8> {
        two(0x22, value)
    }
    /// Topic alias.
    pub fn topic_alias(value: u16) -> Vec<u8> {
        two(0x23, value)
    }
    /// User property.
    pub fn user(name: &str, value: &str) -> Vec<u8> {
        [&[0x26], field(name).as_slice(), field(value).as_slice()].concat()
    }
    /// Maximum packet size, bytes.
    pub fn maximum_packet_size(bytes: u32) -> Vec<u8> {
        four(0x27, bytes)
    }
}

/// A PUBLISH.
#[derive(Clone, Debug)]
pub struct Publish {
    /// The version.
    pub version: Version,
    /// Sent again.
    pub dup: bool,
    /// Quality of service.
    pub qos: u8,
    /// The retain flag.
    pub retain: bool,
    /// The topic's bytes.
    pub topic: Vec<u8>,
    /// The packet id, above QoS 0.
    pub id: u16,
    /// MQTT 5 properties, encoded.
    pub properties: Vec<u8>,
    /// The payload.
    pub payload: Vec<u8>,
}

impl Publish {
    /// One of QoS `qos` with the packet id `id` (unused at QoS 0).
    pub fn new(
        version: Version,
        topic: impl AsRef<[u8]>,
        payload: impl AsRef<[u8]>,
        qos: u8,
        id: u16,
    ) -> Self {
        Self {
            version,
            dup: false,
            qos,
            retain: false,
            topic: topic.as_ref().to_vec(),
            id,
            properties: Vec::new(),
            payload: payload.as_ref().to_vec(),
        }
    }

    /// With this MQTT 5 property, encoded.
    #[must_use]
    pub fn property(mut self, bytes: &[u8]) -> Self {
        self.properties.extend_from_slice(bytes);
        self
    }

    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        let first = kind::PUBLISH << 4 | u8::from(self.dup) << 3 | self.qos << 1 | u8::from(self.retain);
        let mut body = field(&self.topic);
        if self.qos > 0 {
            body.extend(self.id.to_be_bytes());
        }
        body.extend(properties(self.version, &self.properties));
        body.extend(&self.payload);
        frame(first, &body)
    }
}

/// A PUBACK, PUBREC, PUBREL or PUBCOMP in its shortest form, which both versions share.
pub fn acknowledgement(kind: u8, id: u16) -> Vec<u8> {
    let flags = if kind == kind::PUBREL { 2 } else { 0 };
    frame(kind << 4 | flags, &id.to_be_bytes())
}

/// A SUBSCRIBE to filters with their options byte (the QoS, on 3.1.1).
pub fn subscribe(version: Version, id: u16, filters: &[(&str, u8)]) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    body.extend(properties(version, &[]));
    for (filter, options) in filters {
        body.extend(field(filter));
        body.push(*options);
    }
    frame(kind::SUBSCRIBE << 4 | 2, &body)
}

/// An UNSUBSCRIBE.
pub fn unsubscribe(version: Version, id: u16, filters: &[&str]) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    body.extend(properties(version, &[]));
    body.extend(filters.iter().flat_map(field));
    frame(kind::UNSUBSCRIBE << 4 | 2, &body)
}

/// A PINGREQ.
pub fn ping() -> Vec<u8> {
    frame(kind::PINGREQ << 4, &[])
}

/// A DISCONNECT; the reason code and the encoded properties exist on MQTT 5 only.
pub fn disconnect(version: Version, code: u8, more: &[u8]) -> Vec<u8> {
    match version {
        Version::V4 => frame(kind::DISCONNECT << 4, &[]),
        Version::V5 => {
            let body = [&[code], properties(version, more).as_slice()].concat();
            frame(kind::DISCONNECT << 4, &body)
        }
    }
}

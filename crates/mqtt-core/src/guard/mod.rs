//! Walks a packet before anything is made of it: the fixed header against the limits, then every length inside.
//!
//! Owns: what is malformed, what is a protocol error and what is too much, as far as bytes alone tell; so the codec sees
//! well-formed, bounded packets only, and no claim of a length makes anybody allocate. Does not own: what a packet means.

mod properties;
mod walk;

use crate::fault::{Broken, Violation};
use crate::{Limits, QoS, Version};
pub(crate) use properties::Found;
use properties::{Set, walk_properties};
use walk::Walk;

/// Packet types (MQTT 5.0 section 2.1.2), the upper four bits of the first byte.
pub(crate) mod kind {
    pub(crate) const CONNECT: u8 = 1;
    pub(crate) const CONNACK: u8 = 2;
    pub(crate) const PUBLISH: u8 = 3;
    pub(crate) const PUBACK: u8 = 4;
    pub(crate) const PUBREC: u8 = 5;
    pub(crate) const PUBREL: u8 = 6;
    pub(crate) const PUBCOMP: u8 = 7;
    pub(crate) const SUBSCRIBE: u8 = 8;
    pub(crate) const SUBACK: u8 = 9;
    pub(crate) const UNSUBSCRIBE: u8 = 10;
    pub(crate) const UNSUBACK: u8 = 11;
    pub(crate) const PINGREQ: u8 = 12;
    pub(crate) const PINGRESP: u8 = 13;
    pub(crate) const DISCONNECT: u8 = 14;
    pub(crate) const AUTH: u8 = 15;

    /// What the type is called.
    pub(crate) fn name(kind: u8) -> &'static str {
        const NAMES: [&str; 16] = [
            "packet type 0",
            "CONNECT",
            "CONNACK",
            "PUBLISH",
            "PUBACK",
            "PUBREC",
            "PUBREL",
            "PUBCOMP",
            "SUBSCRIBE",
            "SUBACK",
            "UNSUBSCRIBE",
            "UNSUBACK",
            "PINGREQ",
            "PINGRESP",
            "DISCONNECT",
            "AUTH",
        ];
        NAMES.get(usize::from(kind)).copied().unwrap_or_default()
    }
}

/// A packet's fixed header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) first: u8,
    /// Its own length in bytes.
    pub(crate) length: usize,
    /// Bytes that follow it.
    pub(crate) remaining: usize,
}

impl Header {
    pub(crate) fn kind(self) -> u8 {
        self.first >> 4
    }

    pub(crate) fn total(self) -> usize {
        self.length + self.remaining
    }

    /// The quality of service in a PUBLISH's flags.
    pub(crate) fn qos(self) -> Option<QoS> {
        QoS::from_level((self.first >> 1) & 0b11)
    }

    /// Is the remaining length written with the fewest bytes [MQTT-1.5.5-1]?
    pub(crate) fn is_minimal(self) -> bool {
        let needed = match self.remaining {
            0..=127 => 2,
            128..=16_383 => 3,
            16_384..=2_097_151 => 4,
            _ => 5,
        };
        self.length == needed
    }
}

/// What the walk noticed and the codec cannot tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Notes {
    /// Clean Start.
    pub(crate) clean_start: bool,
    /// Where, from the packet's first byte, a Message Expiry Interval of zero stands: legal, and unknown to the codec.
    pub(crate) zero_expiry: Option<usize>,
    /// The same in the will's properties.
    pub(crate) zero_will_expiry: Option<usize>,
    /// CONNECT flags of texts that are not there, which MQTT 3.1 allows and the codec does not.
    pub(crate) missing: u8,
}

/// Reads the remaining length; `None` when more bytes are needed.
pub(crate) fn header(input: &[u8]) -> Result<Option<Header>, Broken> {
    let Some((&first, rest)) = input.split_first() else { return Ok(None) };
    let mut remaining = 0_usize;
    for (at, byte) in rest.iter().enumerate().take(4) {
        remaining |= usize::from(byte & 0x7F) << (7 * at);
        if byte & 0x80 == 0 {
            return Ok(Some(Header { first, length: at + 2, remaining }));
        }
    }
    if rest.len() >= 4 {
        return Err(Broken::malformed("a remaining length of more than four bytes"));
    }
    Ok(None)
}

/// Judges the first byte of a packet after CONNECT: its type and its reserved flags [MQTT-2.1.3-1].
pub(crate) fn first_byte(first: u8, version: Version) -> Result<(), Broken> {
    let flags = first & 0x0F;
    let expected = match first >> 4 {
        0 => return Err(Broken::malformed("packet type 0")),
        kind::CONNECT => return Err(Broken::protocol("a second CONNECT")),
        kind::CONNACK | kind::SUBACK | kind::UNSUBACK | kind::PINGRESP => {
            return Err(Broken::protocol("a packet that only a server sends"));
        }
        kind::PUBLISH => {
            return match (flags >> 1 & 0b11, flags & 0b1000) {
                (3, _) => Err(Broken::malformed("a PUBLISH of QoS 3")),
                (0, 0b1000) => Err(Broken::malformed("a PUBLISH of QoS 0 with DUP set")),
                _ => Ok(()),
            };
        }
        kind::AUTH if !version.is_5() => return Err(Broken::malformed("packet type 15")),
        // In 3.1 they have QoS 1 and may be sent again, with DUP (its section 2.1).
        kind::PUBREL | kind::SUBSCRIBE | kind::UNSUBSCRIBE if version == Version::V31 => {
            0b0010 | flags & 0b1000
        }
        kind::PUBREL | kind::SUBSCRIBE | kind::UNSUBSCRIBE => 0b0010,
        _ => 0,
    };
    if flags != expected {
        return Err(Broken::malformed("reserved flags that are not as reserved"));
    }
    match first >> 4 {
        kind::AUTH => Err(Broken::protocol("an AUTH without enhanced authentication")),
        _ => Ok(()),
    }
}

/// Judges the length that a packet claims, before it is there.
pub(crate) fn length(header: Header, version: Version, limits: &Limits) -> Result<(), Broken> {
    if version.is_5() && !header.is_minimal() {
        return Err(Broken::malformed("a remaining length of more bytes than it needs"));
    }
    if header.total() > usize::try_from(limits.max_packet_size).unwrap_or(usize::MAX) {
        return Err(Broken::new(Violation::PacketTooLarge, "a packet above the maximum packet size"));
    }
    let fits = match (header.kind(), version) {
        (kind::PINGREQ, _) | (kind::DISCONNECT, Version::V31 | Version::V311) => header.remaining == 0,
        (kind::PUBACK | kind::PUBREC | kind::PUBREL | kind::PUBCOMP, Version::V31 | Version::V311) => {
            header.remaining == 2
        }
        (kind::PUBLISH | kind::PUBACK | kind::PUBREC | kind::PUBREL | kind::PUBCOMP, _) => {
            header.remaining >= 2
        }
        (kind::SUBSCRIBE | kind::UNSUBSCRIBE, _) => header.remaining >= 5,
        _ => true,
    };
    if fits { Ok(()) } else { Err(Broken::malformed("a length that its packet cannot have")) }
}

/// Walks a whole packet after CONNECT. `packet` begins with the fixed header and is complete.
pub(crate) fn packet(
    packet: &[u8],
    header: Header,
    version: Version,
    limits: &Limits,
) -> Result<Notes, Broken> {
    let mut walk = Walk::new(packet, header.length);
    let mut notes = Notes::default();
    match header.kind() {
        kind::PUBLISH => notes.zero_expiry = publish(&mut walk, header, version, limits)?,
        kind::SUBSCRIBE => subscribe(&mut walk, version, limits)?,
        kind::UNSUBSCRIBE => unsubscribe(&mut walk, version, limits)?,
        kind::DISCONNECT if version.is_5() => {
            reason_and_properties(&mut walk, Set::Disconnect, limits)?;
        }
        kind::PUBACK | kind::PUBREC | kind::PUBREL | kind::PUBCOMP => {
            packet_id(&mut walk)?;
            if version.is_5() {
                reason_and_properties(&mut walk, Set::Ack, limits)?;
            }
        }
        _ => {}
    }
    Ok(notes)
}

fn packet_id(walk: &mut Walk<'_>) -> Result<u16, Broken> {
    match walk.u16()? {
        0 => Err(Broken::malformed("packet id 0")),
        id => Ok(id),
    }
}

fn publish(
    walk: &mut Walk<'_>,
    header: Header,
    version: Version,
    limits: &Limits,
) -> Result<Option<usize>, Broken> {
    let topic_bytes = walk.binary()?.len();
    if header.qos() != Some(QoS::AtMostOnce) {
        packet_id(walk)?;
    }
    let mut found = Found::default();
    if version.is_5() {
        found = walk_properties(walk, Set::Publish, limits)?;
    }
    if topic_bytes == 0 && !found.topic_alias {
        return Err(Broken::protocol("a PUBLISH with neither topic name nor topic alias"));
    }
    if found.payload_is_utf8 && std::str::from_utf8(walk.rest()).is_err() {
        return Err(Broken::new(Violation::PayloadFormatInvalid, "a payload declared as UTF-8 that is not"));
    }
    Ok(found.zero_expiry)
}

fn subscribe(walk: &mut Walk<'_>, version: Version, limits: &Limits) -> Result<(), Broken> {
    packet_id(walk)?;
    if version.is_5() {
        walk_properties(walk, Set::Subscribe, limits)?;
    }
    filters(walk, limits, |walk, filter| {
        let options = walk.u8()?;
        let reserved = if version.is_5() { 0b1100_0000 } else { 0b1111_1100 };
        if options & reserved != 0 {
            return Err(Broken::malformed("reserved subscription options"));
        }
        if options & 0b11 == 0b11 {
            return Err(match version {
                Version::V5 => Broken::protocol("a subscription of QoS 3"),
                Version::V31 | Version::V311 => Broken::malformed("a subscription of QoS 3"),
            });
        }
        if options & 0b0011_0000 == 0b0011_0000 {
            return Err(Broken::protocol("a retain handling of 3"));
        }
        if options & 0b0100 != 0 && filter.starts_with("$share/") {
            return Err(Broken::protocol("a shared subscription with No Local"));
        }
        Ok(())
    })
}

fn unsubscribe(walk: &mut Walk<'_>, version: Version, limits: &Limits) -> Result<(), Broken> {
    packet_id(walk)?;
    if version.is_5() {
        walk_properties(walk, Set::Unsubscribe, limits)?;
    }
    filters(walk, limits, |_, _| Ok(()))
}

/// Walks the payload of SUBSCRIBE and UNSUBSCRIBE: at least one filter [MQTT-3.8.3-2], no more than the limit.
fn filters(
    walk: &mut Walk<'_>,
    limits: &Limits,
    mut each: impl FnMut(&mut Walk<'_>, &str) -> Result<(), Broken>,
) -> Result<(), Broken> {
    let mut count = 0;
    while !walk.is_at_end() {
        let filter = walk.text()?;
        if filter.is_empty() {
            return Err(Broken::malformed("an empty topic filter"));
        }
        each(walk, filter)?;
        count += 1;
        if count > limits.max_filters_per_packet {
            return Err(Broken::new(Violation::QuotaExceeded, "more topic filters than one packet may hold"));
        }
    }
    if count == 0 { Err(Broken::protocol("no topic filter")) } else { Ok(()) }
}

/// The optional reason code and the optional properties at the end of an acknowledgement or a DISCONNECT (5.0).
fn reason_and_properties(walk: &mut Walk<'_>, set: Set, limits: &Limits) -> Result<(), Broken> {
    if walk.is_at_end() {
        return Ok(());
    }
    walk.u8()?;
    if walk.is_at_end() {
        return Ok(());
    }
    walk_properties(walk, set, limits)?;
    walk.end()
}

/// What the first bytes of a CONNECT's body say of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// One that is served.
    Served(Version),
    /// MQTT of another level: it is told so in the form of this version.
    Unsupported(Version),
    /// Not MQTT.
    Unknown,
}

/// The bytes of a CONNECT's body that [`protocol`] looks at: "MQIsdp" and a level.
pub(crate) const PROTOCOL_BYTES: usize = 9;

/// The highest bit of a level below 5: a bridge's way of saying that it is one. It asks that no message of its own comes back and
/// that RETAIN is passed on, which is so for everybody here.
pub(crate) const BRIDGE: u8 = 0x80;
const BRIDGE_V31: u8 = BRIDGE | 3;
const BRIDGE_V311: u8 = BRIDGE | 4;

/// Reads protocol name and level (MQTT 5.0 section 3.1.2.1). A level that is not served is refused in the form of the version
/// that is nearest to it: below 5 nobody reads a reason code.
pub(crate) fn protocol(body: &[u8]) -> Protocol {
    match body {
        [0, 4, b'M', b'Q', b'T', b'T', level, ..] => match *level {
            4 | BRIDGE_V311 => Protocol::Served(Version::V311),
            5 => Protocol::Served(Version::V5),
            other if other & !BRIDGE < 5 => Protocol::Unsupported(Version::V311),
            _ => Protocol::Unsupported(Version::V5),
        },
        [0, 6, b'M', b'Q', b'I', b's', b'd', b'p', 3 | BRIDGE_V31, ..] => Protocol::Served(Version::V31),
        [0, 6, b'M', b'Q', b'I', b's', b'd', b'p', _, ..] => Protocol::Unsupported(Version::V31),
        _ => Protocol::Unknown,
    }
}

const USERNAME: u8 = 0b1000_0000;
const PASSWORD: u8 = 0b0100_0000;
const WILL_RETAIN: u8 = 0b0010_0000;
const WILL_QOS: u8 = 0b0001_1000;
const WILL: u8 = 0b0000_0100;
const CLEAN_START: u8 = 0b0000_0010;
const RESERVED: u8 = 0b0000_0001;

/// Offset of the flags in a CONNECT's body, behind protocol name and level.
pub(crate) fn connect_flags_at(version: Version) -> usize {
    if version == Version::V31 { 9 } else { 7 }
}

/// Walks a whole CONNECT whose protocol is served (MQTT 5.0 sections 3.1.2 and 3.1.3).
pub(crate) fn connect(
    packet: &[u8],
    header: Header,
    version: Version,
    limits: &Limits,
) -> Result<Notes, Broken> {
    if version.is_5() && !header.is_minimal() {
        return Err(Broken::malformed("a remaining length of more bytes than it needs"));
    }
    let mut walk = Walk::new(packet, header.length + connect_flags_at(version));
    let flags = walk.u8()?;
    connect_flags(flags, version)?;
    walk.u16()?; // keep alive
    if version.is_5() {
        let found = walk_properties(&mut walk, Set::Connect, limits)?;
        if found.auth_data && !found.auth_method {
            return Err(Broken::protocol("authentication data without a method"));
        }
    }
    let client_id = walk.text()?;
    let mut notes = Notes { clean_start: flags & CLEAN_START != 0, ..Notes::default() };
    if flags & WILL != 0 {
        notes.zero_will_expiry = will(&mut walk, version, limits)?;
    }
    // In 3.1 the flags may promise more than there is (its section 3.1).
    notes.missing =
        if version == Version::V31 && walk.is_at_end() { flags & (USERNAME | PASSWORD) } else { 0 };
    let flags = flags & !notes.missing;
    if flags & USERNAME != 0 {
        walk.text()?;
    }
    if version == Version::V31 && walk.is_at_end() {
        notes.missing |= flags & PASSWORD;
    }
    if flags & !notes.missing & PASSWORD != 0 {
        walk.binary()?;
    }
    walk.end()?;
    client_id_is_taken(client_id, version, notes.clean_start)?;
    Ok(notes)
}

/// Before 5.0 a client without a name gets one only for a session that nobody resumes, and in 3.1 never.
fn client_id_is_taken(client_id: &str, version: Version, clean_start: bool) -> Result<(), Broken> {
    let rejected = match version {
        _ if !client_id.is_empty() => return Ok(()),
        Version::V31 => "an empty client id",
        Version::V311 if !clean_start => "an empty client id with a session to be kept",
        Version::V311 | Version::V5 => return Ok(()),
    };
    Err(Broken::new(Violation::IdentifierRejected, rejected))
}

fn connect_flags(flags: u8, version: Version) -> Result<(), Broken> {
    if flags & RESERVED != 0 {
        return Err(Broken::malformed("the reserved CONNECT flag is set"));
    }
    if flags & WILL == 0 && flags & (WILL_QOS | WILL_RETAIN) != 0 {
        return Err(Broken::malformed("will flags without a will"));
    }
    if flags & WILL_QOS == WILL_QOS {
        return Err(Broken::malformed("a will of QoS 3"));
    }
    if !version.is_5() && flags & PASSWORD != 0 && flags & USERNAME == 0 {
        return Err(Broken::malformed("a password without a user name"));
    }
    Ok(())
}

fn will(walk: &mut Walk<'_>, version: Version, limits: &Limits) -> Result<Option<usize>, Broken> {
    let mut found = Found::default();
    if version.is_5() {
        found = walk_properties(walk, Set::Will, limits)?;
    }
    topic_name(walk.text()?, limits)?;
    let payload = walk.binary()?;
    if found.payload_is_utf8 && std::str::from_utf8(payload).is_err() {
        return Err(Broken::new(Violation::PayloadFormatInvalid, "a will declared as UTF-8 that is not"));
    }
    Ok(found.zero_expiry)
}

/// A topic name that is taken: valid [MQTT-3.3.2-2], and no longer than the limit.
pub(crate) fn topic_name(text: &str, limits: &Limits) -> Result<(), Broken> {
    if text.contains('\0') {
        return Err(Broken::malformed("U+0000 in a topic name"));
    }
    if text.len() > limits.max_topic_length {
        return Err(Broken::new(Violation::TopicNameInvalid, "a topic name above the maximum length"));
    }
    landfall_event::check_topic_name(text)
        .map_err(|_| Broken::new(Violation::TopicNameInvalid, "an invalid topic name"))
}

//! MQTT packets, 3.1.1 and 5, as a client writes and reads them: as few instructions as possible between the load and the
//! socket.
//!
//! Owns: the bytes. Does not own: connections ([`crate::link`]), who says what when ([`crate::mqtt`]).

use std::io;

use bytes::{Buf as _, BufMut as _, BytesMut};
use clap::ValueEnum;

/// Goodbye, in both versions (section 3.14).
pub(crate) const DISCONNECT: [u8; 2] = [0xe0, 0];
/// Are you there? (section 3.12)
pub(crate) const PINGREQ: [u8; 2] = [0xc0, 0];

pub(crate) const PUBACK: u8 = 0x40;
pub(crate) const PUBREC: u8 = 0x50;
pub(crate) const PUBREL: u8 = 0x62;
pub(crate) const PUBCOMP: u8 = 0x70;

/// What a server may have unacknowledged that does not say (section 3.2.2.3.3).
const RECEIVE_MAXIMUM: u16 = u16::MAX;

/// The protocol's version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Version {
    /// 3.1.1
    #[value(name = "3.1.1")]
    V4,
    /// 5.0
    #[value(name = "5", alias = "5.0")]
    V5,
}

/// A packet of the server.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Packet<'a> {
    Connack {
        code: u8,
        receive_maximum: u16,
    },
    Publish {
        topic: &'a str,
        qos: u8,
        id: u16,
        payload: &'a [u8],
    },
    /// PUBACK, PUBREC, PUBREL or PUBCOMP, by their first byte.
    Answer {
        kind: u8,
        id: u16,
        code: u8,
    },
    Suback {
        code: u8,
    },
    Pingresp,
    Disconnect {
        code: u8,
    },
}

fn put_length(out: &mut BytesMut, mut length: usize) {
    loop {
        let more = length >> 7;
        let digit = u8::try_from(length & 0x7f).unwrap_or(0);
        out.put_u8(if more > 0 { digit | 0x80 } else { digit });
        if more == 0 {
            break;
        }
        length = more;
    }
}

fn put_text(out: &mut BytesMut, text: &str) {
    out.put_u16(u16::try_from(text.len()).unwrap_or(u16::MAX));
    out.put_slice(text.as_bytes());
}

/// 5.0 has properties; here there are none.
fn put_no_properties(out: &mut BytesMut, version: Version) {
    if version == Version::V5 {
        out.put_u8(0);
    }
}

fn properties(version: Version) -> usize {
    usize::from(version == Version::V5)
}

/// Appends a CONNECT with a clean start. A password needs a user name (section 3.1.2.9 of 3.1.1).
pub(crate) fn put_connect(
    out: &mut BytesMut,
    version: Version,
    client_id: &str,
    keep_alive_s: u16,
    (username, password): (Option<&str>, Option<&str>),
) {
    let text = |text: Option<&str>| text.map_or(0, |text| 2 + text.len());
    let flag = |text: Option<&str>, bit: u8| text.map_or(0, |_| 1 << bit);
    out.put_u8(0x10);
    put_length(out, 12 + properties(version) + client_id.len() + text(username) + text(password));
    put_text(out, "MQTT");
    out.put_u8(if version == Version::V5 { 5 } else { 4 });
    out.put_u8(2 | flag(username, 7) | flag(password, 6));
    out.put_u16(keep_alive_s);
    put_no_properties(out, version);
    put_text(out, client_id);
    for text in [username, password].into_iter().flatten() {
        put_text(out, text);
    }
}

/// Appends a PUBLISH; `id` is for QoS 1 and 2.
pub(crate) fn put_publish(
    out: &mut BytesMut,
    version: Version,
    topic: &str,
    (qos, id): (u8, u16),
    payload: &[u8],
) {
    out.put_u8(0x30 | qos << 1);
    let id_length = if qos > 0 { 2 } else { 0 };
    put_length(out, 2 + topic.len() + id_length + properties(version) + payload.len());
    put_text(out, topic);
    if qos > 0 {
        out.put_u16(id);
    }
    put_no_properties(out, version);
    out.put_slice(payload);
}

/// Appends a PUBACK, PUBREC, PUBREL or PUBCOMP that says yes.
pub(crate) fn put_answer(out: &mut BytesMut, kind: u8, id: u16) {
    out.put_slice(&[kind, 2]);
    out.put_u16(id);
}

/// Appends a SUBSCRIBE.
pub(crate) fn put_subscribe(out: &mut BytesMut, version: Version, id: u16, filter: &str, qos: u8) {
    out.put_u8(0x82);
    put_length(out, 5 + properties(version) + filter.len());
    out.put_u16(id);
    put_no_properties(out, version);
    put_text(out, filter);
    out.put_u8(qos);
}

/// Takes every complete packet out of `input` and hands it to `each`.
pub(crate) fn take_packets(
    input: &mut BytesMut,
    version: Version,
    mut each: impl FnMut(Packet<'_>) -> io::Result<()>,
) -> io::Result<()> {
    while let Some((head, length)) = frame(input)? {
        let first = input.first().copied().unwrap_or_default();
        let body = input.get(head..head + length).unwrap_or_default();
        each(read(first, body, version).ok_or_else(|| malformed(first))?)?;
        input.advance(head + length);
    }
    Ok(())
}

fn malformed(first: u8) -> io::Error {
    io::Error::other(format!("not what a server says: a packet that begins with {first:02x}"))
}

/// The lengths of the first packet's fixed header and of what follows, if all of it is there (section 2.1.4).
fn frame(input: &[u8]) -> io::Result<Option<(usize, usize)>> {
    let mut length = 0;
    for (place, byte) in input.iter().skip(1).take(4).enumerate() {
        length |= usize::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            let head = 2 + place;
            return Ok((input.len() >= head + length).then_some((head, length)));
        }
    }
    if input.len() > 4 { Err(malformed(input.first().copied().unwrap_or_default())) } else { Ok(None) }
}

fn read(first: u8, body: &[u8], version: Version) -> Option<Packet<'_>> {
    let id = || Some(u16::from_be_bytes(*body.first_chunk()?));
    Some(match first {
        PUBACK | PUBREC | PUBREL | PUBCOMP => {
            Packet::Answer { kind: first, id: id()?, code: body.get(2).copied().unwrap_or(0) }
        }
        0x20 => Packet::Connack {
            code: *body.get(1)?,
            receive_maximum: body.get(2..).and_then(receive_maximum).unwrap_or(RECEIVE_MAXIMUM),
        },
        0x30..=0x3f => publish(first >> 1 & 3, body, version)?,
        0x90 => Packet::Suback { code: *body.last()? },
        0xd0 => Packet::Pingresp,
        0xe0 => Packet::Disconnect { code: body.first().copied().unwrap_or(0) },
        _ => return None,
    })
}

fn publish(qos: u8, body: &[u8], version: Version) -> Option<Packet<'_>> {
    let (length, rest) = body.split_first_chunk()?;
    let (topic, mut rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
    let mut id = 0;
    if qos > 0 {
        let (two, behind) = rest.split_first_chunk()?;
        (id, rest) = (u16::from_be_bytes(*two), behind);
    }
    if version == Version::V5 {
        let (length, behind) = variable(rest)?;
        rest = behind.get(length..)?;
    }
    Some(Packet::Publish { topic: std::str::from_utf8(topic).ok()?, qos, id, payload: rest })
}

/// A variable byte integer and what follows it (section 1.5.5).
fn variable(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let mut value = 0;
    for (place, byte) in bytes.iter().take(4).enumerate() {
        value |= usize::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return Some((value, bytes.get(place + 1..)?));
        }
    }
    None
}

/// Receive Maximum among the properties of a CONNACK (section 3.2.2.3).
fn receive_maximum(properties: &[u8]) -> Option<u16> {
    let (length, rest) = variable(properties)?;
    let mut rest = rest.get(..length)?;
    while let Some((kind, value)) = rest.split_first() {
        let two = || value.first_chunk().map(|two| u16::from_be_bytes(*two));
        let length = match kind {
            0x21 => return two(),
            0x24 | 0x25 | 0x28..=0x2a => 1,
            0x13 | 0x22 => 2,
            0x11 | 0x27 => 4,
            0x12 | 0x15 | 0x16 | 0x1a | 0x1c | 0x1f => 2 + usize::from(two()?),
            0x26 => {
                let name = 2 + usize::from(two()?);
                let text = value.get(name..)?.first_chunk().map(|two| u16::from_be_bytes(*two))?;
                name + 2 + usize::from(text)
            }
            _ => return None,
        };
        rest = value.get(length..)?;
    }
    None
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;

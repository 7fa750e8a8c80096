//! Packets to bytes: what a server sends, written straight into the output buffer.
//!
//! Owns: the layout of CONNACK, PUBLISH, the acknowledgements, SUBACK, UNSUBACK, PINGRESP and DISCONNECT in both versions.
//! Does not own: when one is sent. Every text handed in is at most 65,535 bytes.

use std::num::NonZeroU32;

use bytes::{BufMut, BytesMut};

use crate::packet::AckKind;
use crate::{Message, QoS, Version};

/// The properties of a CONNACK that lets the client in (MQTT 5.0 section 3.2.2.3). Absent means the protocol's default.
#[derive(Debug, Default)]
pub(crate) struct ConnAck<'a> {
    pub(crate) session_present: bool,
    pub(crate) session_expiry: Option<u32>,
    pub(crate) receive_maximum: Option<u16>,
    pub(crate) maximum_packet_size: Option<u32>,
    pub(crate) assigned_client_id: Option<&'a str>,
    /// 0: not sent.
    pub(crate) topic_alias_maximum: u16,
    pub(crate) server_keep_alive: Option<u16>,
    /// Shared Subscription Available is sent, as 0.
    pub(crate) no_shared_subscriptions: bool,
    /// Retain Available is sent, as 1.
    pub(crate) retain_available: bool,
}

impl ConnAck<'_> {
    fn properties_size(&self) -> usize {
        self.session_expiry.map_or(0, |_| 5)
            + self.receive_maximum.map_or(0, |_| 3)
            + if self.retain_available { 2 } else { 0 }
            + self.maximum_packet_size.map_or(0, |_| 5)
            + self.assigned_client_id.map_or(0, |id| 3 + id.len())
            + if self.topic_alias_maximum > 0 { 3 } else { 0 }
            + if self.no_shared_subscriptions { 2 } else { 0 }
            + self.server_keep_alive.map_or(0, |_| 3)
    }

    fn fits(&self, limit: u32) -> bool {
        let properties = self.properties_size();
        let body = 2 + variable_size(properties) + properties;
        !exceeds(1 + variable_size(body) + body, limit)
    }

    /// Leaves out properties until the client can take the packet [MQTT-3.1.2-24]: first what says the same as its absence
    /// or what a client finds out by its first try, last what binds it.
    pub(crate) fn shrink(&mut self, limit: u32) {
        let steps: [fn(&mut Self); 8] = [
            |ack| ack.retain_available = false,
            |ack| ack.no_shared_subscriptions = false,
            |ack| ack.topic_alias_maximum = 0,
            |ack| ack.maximum_packet_size = None,
            |ack| ack.receive_maximum = None,
            |ack| ack.session_expiry = None,
            |ack| ack.server_keep_alive = None,
            |ack| ack.assigned_client_id = None,
        ];
        for leave_out in steps {
            if self.fits(limit) {
                return;
            }
            leave_out(self);
        }
    }
}

pub(crate) fn connack(ack: &ConnAck<'_>, version: Version, out: &mut BytesMut) {
    if !version.is_5() {
        out.put_slice(&[0x20, 2, u8::from(ack.session_present), 0]);
        return;
    }
    let length = ack.properties_size();
    out.put_u8(0x20);
    variable(2 + variable_size(length) + length, out);
    out.put_slice(&[u8::from(ack.session_present), 0]);
    variable(length, out);
    if let Some(seconds) = ack.session_expiry {
        out.put_u8(0x11);
        out.put_u32(seconds);
    }
    if let Some(messages) = ack.receive_maximum {
        out.put_u8(0x21);
        out.put_u16(messages);
    }
    if ack.retain_available {
        out.put_slice(&[0x25, 1]);
    }
    if let Some(bytes) = ack.maximum_packet_size {
        out.put_u8(0x27);
        out.put_u32(bytes);
    }
    if let Some(id) = ack.assigned_client_id {
        out.put_u8(0x12);
        text(id, out);
    }
    if ack.topic_alias_maximum > 0 {
        out.put_u8(0x22);
        out.put_u16(ack.topic_alias_maximum);
    }
    if ack.no_shared_subscriptions {
        out.put_slice(&[0x2A, 0]);
    }
    if let Some(seconds) = ack.server_keep_alive {
        out.put_u8(0x13);
        out.put_u16(seconds);
    }
}

/// A CONNACK that turns the client away. `code` is of the version's own list; Session Present is 0 [MQTT-3.2.2-6].
pub(crate) fn connack_refusal(code: u8, reason: Option<&str>, version: Version, out: &mut BytesMut) {
    match version {
        Version::V31 | Version::V311 => out.put_slice(&[0x20, 2, 0, code]),
        Version::V5 => {
            let reason = reason.unwrap_or_default();
            let length = if reason.is_empty() { 0 } else { 3 + reason.len() };
            out.put_u8(0x20);
            variable(2 + variable_size(length) + length, out);
            out.put_slice(&[0, code]);
            variable(length, out);
            reason_string(reason, out);
        }
    }
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP; a code of 0 takes no byte, and 3.1.1 has none.
pub(crate) fn ack(kind: AckKind, packet_id: u16, code: u8, out: &mut BytesMut) {
    let first = match kind {
        AckKind::Ack => 0x40,
        AckKind::Rec => 0x50,
        AckKind::Rel => 0x62,
        AckKind::Comp => 0x70,
    };
    let [high, low] = packet_id.to_be_bytes();
    if code == 0 {
        out.put_slice(&[first, 2, high, low]);
    } else {
        out.put_slice(&[first, 3, high, low, code]);
    }
}

/// The bytes of a SUBACK or a 5.0 UNSUBACK of `count` codes.
pub(crate) fn suback_size(count: usize, version: Version) -> usize {
    let body = 2 + usize::from(version.is_5()) + count;
    1 + variable_size(body) + body
}

/// SUBACK; for 3.1.1 the caller has put 0x80 in place of every other failure.
pub(crate) fn suback(packet_id: u16, codes: &[u8], version: Version, out: &mut BytesMut) {
    codes_packet(0x90, packet_id, codes, version, out);
}

/// UNSUBACK; on 3.1.1 it has no codes.
pub(crate) fn unsuback(packet_id: u16, codes: &[u8], version: Version, out: &mut BytesMut) {
    codes_packet(0xB0, packet_id, if version.is_5() { codes } else { &[] }, version, out);
}

fn codes_packet(first: u8, packet_id: u16, codes: &[u8], version: Version, out: &mut BytesMut) {
    out.put_u8(first);
    variable(2 + usize::from(version.is_5()) + codes.len(), out);
    out.put_u16(packet_id);
    if version.is_5() {
        out.put_u8(0);
    }
    out.put_slice(codes);
}

pub(crate) fn pingresp(out: &mut BytesMut) {
    out.put_slice(&[0xD0, 0]);
}

/// DISCONNECT from the server, which only 5.0 has. The reason string is left out where the packet would grow above
/// `limit` [MQTT-3.14.2-3].
pub(crate) fn disconnect(code: u8, reason: &str, limit: u32, out: &mut BytesMut) {
    let length = if reason.is_empty() { 0 } else { 3 + reason.len() };
    let body = 1 + variable_size(length) + length;
    if length == 0 || exceeds(1 + variable_size(body) + body, limit) {
        out.put_slice(&[0xE0, 1, code]);
        return;
    }
    out.put_u8(0xE0);
    variable(body, out);
    out.put_u8(code);
    variable(length, out);
    reason_string(reason, out);
}

fn reason_string(reason: &str, out: &mut BytesMut) {
    if !reason.is_empty() {
        out.put_u8(0x1F);
        text(reason, out);
    }
}

/// How a message is sent to one client.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sending {
    pub(crate) version: Version,
    pub(crate) qos: QoS,
    /// 0 with QoS 0.
    pub(crate) packet_id: u16,
    pub(crate) dup: bool,
    /// The client's Maximum Packet Size.
    pub(crate) limit: u32,
}

/// Writes a PUBLISH; false, and nothing written, when it is larger than the client takes [MQTT-3.1.2-24].
pub(crate) fn publish<I: Iterator<Item = NonZeroU32>>(
    message: &Message,
    how: Sending,
    subscription_ids: impl Fn() -> I,
    out: &mut BytesMut,
) -> bool {
    let packet_id_size = if how.qos == QoS::AtMostOnce { 0 } else { 2 };
    let mut body = 2 + message.topic.len() + packet_id_size + message.payload.len();
    let mut properties = 0;
    if how.version.is_5() {
        properties = properties_size(message, subscription_ids());
        body += variable_size(properties) + properties;
    }
    let size = 1 + variable_size(body) + body;
    if body > MAX_BODY || exceeds(size, how.limit) {
        return false;
    }
    out.reserve(size);
    out.put_u8(0x30 | u8::from(how.dup) << 3 | how.qos.level() << 1);
    variable(body, out);
    text(&message.topic, out);
    if how.qos != QoS::AtMostOnce {
        out.put_u16(how.packet_id);
    }
    if how.version.is_5() {
        variable(properties, out);
        put_properties(message, subscription_ids(), out);
    }
    out.put_slice(&message.payload);
    true
}

/// The largest remaining length that can be written (section 2.1.4).
const MAX_BODY: usize = 268_435_455;

fn exceeds(size: usize, limit: u32) -> bool {
    usize::try_from(limit).is_ok_and(|limit| size > limit)
}

fn properties_size(message: &Message, subscription_ids: impl Iterator<Item = NonZeroU32>) -> usize {
    let ids: usize = subscription_ids.map(|id| 1 + variable_size(id_value(id))).sum();
    let user: usize = message.user_properties.iter().map(|(name, value)| 5 + name.len() + value.len()).sum();
    ids + user
        + if message.payload_is_utf8 { 2 } else { 0 }
        + message.message_expiry.map_or(0, |_| 5)
        + message.content_type.as_ref().map_or(0, |t| 3 + t.len())
        + message.response_topic.as_ref().map_or(0, |t| 3 + t.len())
        + message.correlation_data.as_ref().map_or(0, |d| 3 + d.len())
}

fn put_properties(message: &Message, subscription_ids: impl Iterator<Item = NonZeroU32>, out: &mut BytesMut) {
    if message.payload_is_utf8 {
        out.put_slice(&[0x01, 1]);
    }
    if let Some(seconds) = message.message_expiry {
        out.put_u8(0x02);
        out.put_u32(seconds.max(1));
    }
    if let Some(content_type) = &message.content_type {
        out.put_u8(0x03);
        text(content_type, out);
    }
    if let Some(topic) = &message.response_topic {
        out.put_u8(0x08);
        text(topic, out);
    }
    if let Some(data) = &message.correlation_data {
        out.put_u8(0x09);
        binary(data, out);
    }
    for id in subscription_ids {
        out.put_u8(0x0B);
        variable(id_value(id), out);
    }
    for (name, value) in &message.user_properties {
        out.put_u8(0x26);
        text(name, out);
        text(value, out);
    }
}

fn id_value(id: NonZeroU32) -> usize {
    usize::try_from(id.get()).unwrap_or(MAX_BODY)
}

fn variable_size(value: usize) -> usize {
    match value {
        0..=127 => 1,
        128..=16_383 => 2,
        16_384..=2_097_151 => 3,
        _ => 4,
    }
}

/// A Variable Byte Integer (section 1.5.5); `value` is at most [`MAX_BODY`].
fn variable(mut value: usize, out: &mut BytesMut) {
    loop {
        let low = u8::try_from(value & 0x7F).unwrap_or(0);
        value >>= 7;
        if value == 0 {
            return out.put_u8(low);
        }
        out.put_u8(low | 0x80);
    }
}

fn text(text: &str, out: &mut BytesMut) {
    binary(text.as_bytes(), out);
}

fn binary(bytes: &[u8], out: &mut BytesMut) {
    out.put_u16(u16::try_from(bytes.len()).unwrap_or(u16::MAX));
    out.put_slice(bytes);
}

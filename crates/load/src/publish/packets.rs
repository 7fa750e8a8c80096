//! Messages over MQTT.
//!
//! Owns: the handshakes of QoS 1 and 2, and a stand-in for QoS 0. Does not own: when a message is sent ([`super::drive`]).
//!
//! At QoS 0 nobody acknowledges, and what was written may lie in the kernel for long. So a ping goes behind all that is
//! written together: the server answers it when it has read what came before.

use std::collections::VecDeque;
use std::io;

use bytes::BytesMut;

use super::drive::{Message, Pipe, Taken};
use super::payload::Payload;
use crate::client::{self, Packet};
use crate::mqtt::Mqtt;

/// One connection; a message's place is its packet id.
pub(crate) struct Packets {
    mqtt: Mqtt,
    topic: String,
    qos: u8,
    payload: Payload,
    out: BytesMut,
    /// At QoS 0, the places of what was put and not written yet, and of what stands before each ping.
    put: Vec<u16>,
    pinged: VecDeque<Vec<u16>>,
}

impl Packets {
    pub(crate) fn new(mqtt: Mqtt, topic: String, qos: u8, payload: Payload) -> Self {
        let out = BytesMut::with_capacity(16 * 1024);
        Self { mqtt, topic, qos, payload, out, put: Vec::new(), pinged: VecDeque::new() }
    }
}

impl Pipe for Packets {
    fn is_acked(&self) -> bool {
        true
    }

    fn put(&mut self, place: u16, message: Message) {
        let payload = self.payload.of(message);
        client::put_publish(&mut self.out, self.mqtt.version, &self.topic, (self.qos, place), payload);
        if self.qos == 0 {
            self.put.push(place);
        }
    }

    async fn flush(&mut self) -> io::Result<()> {
        if !self.put.is_empty() {
            self.out.extend_from_slice(&client::PINGREQ);
            self.pinged.push_back(std::mem::take(&mut self.put));
        }
        self.mqtt.link.write(&mut self.out).await
    }

    async fn take(&mut self, taken: &mut Taken) -> io::Result<()> {
        let Mqtt { link, input, version, .. } = &mut self.mqtt;
        link.read(input).await?;
        let (out, pinged, qos) = (&mut self.out, &mut self.pinged, self.qos);
        client::take_packets(input, *version, |packet| {
            match packet {
                Packet::Answer { id, code: 0x80.., .. } => taken.refused.push(id),
                Packet::Answer { kind: client::PUBACK, id, .. } if qos == 1 => taken.acked.push(id),
                Packet::Answer { kind: client::PUBREC, id, .. } => {
                    client::put_answer(out, client::PUBREL, id);
                }
                Packet::Answer { kind: client::PUBCOMP, id, .. } => taken.acked.push(id),
                Packet::Pingresp => taken.acked.extend(pinged.pop_front().unwrap_or_default()),
                Packet::Disconnect { code } => {
                    return Err(io::Error::other(format!("the server disconnects with {code}")));
                }
                _ => {}
            }
            Ok(())
        })
    }

    async fn finish(mut self) -> io::Result<u64> {
        self.mqtt.settle().await?;
        self.mqtt.leave().await?;
        Ok(0)
    }
}

//! One MQTT client: what it says, one thing after the other, and the answers to that.
//!
//! Owns: connecting, subscribing, one message and its handshake. Does not own: bytes ([`crate::client`]), many messages at a
//! time ([`crate::publish`]).

use std::io;
use std::time::{Duration, Instant};

use bytes::BytesMut;

use crate::client::{self, Packet, Version};
use crate::link::{Door, Link, slim};

/// Who a client is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Identity<'a> {
    pub(crate) version: Version,
    pub(crate) client_id: &'a str,
    pub(crate) keep_alive_s: u16,
    pub(crate) username: Option<&'a str>,
    pub(crate) password: Option<&'a str>,
}

/// A connected client.
pub(crate) struct Mqtt {
    pub(crate) link: Link,
    pub(crate) version: Version,
    /// What the server lets be unacknowledged.
    pub(crate) receive_maximum: u16,
    pub(crate) input: BytesMut,
    id: u16,
}

impl Mqtt {
    /// Connects as client `n` and waits for CONNACK. Tells what it waited, from CONNECT on.
    pub(crate) async fn open(door: &Door, n: u32, who: Identity<'_>) -> io::Result<(Self, Duration)> {
        let link = Link::open(door, n).await?;
        let mut mqtt =
            Self { link, version: who.version, receive_maximum: u16::MAX, input: BytesMut::new(), id: 0 };
        let (mut out, started) = (BytesMut::new(), Instant::now());
        let secrets = (who.username, who.password);
        client::put_connect(&mut out, who.version, who.client_id, who.keep_alive_s, secrets);
        mqtt.link.write(&mut out).await?;
        let answer = mqtt.expect(|packet| match packet {
            Packet::Connack { code, receive_maximum } => Some((*code, *receive_maximum)),
            _ => None,
        });
        let (code, maximum) = answer.await?;
        if code != 0 {
            return Err(io::Error::other(format!("CONNACK refuses with {code}")));
        }
        mqtt.receive_maximum = maximum;
        Ok((mqtt, started.elapsed()))
    }

    /// Reads until a packet is what is waited for; others are passed over.
    async fn expect<T>(&mut self, mut wanted: impl FnMut(&Packet<'_>) -> Option<T>) -> io::Result<T> {
        loop {
            self.link.read(&mut self.input).await?;
            let mut found = None;
            client::take_packets(&mut self.input, self.version, |packet| {
                if let Packet::Disconnect { code } = packet {
                    return Err(io::Error::other(format!("the server disconnects with {code}")));
                }
                found = found.take().or_else(|| wanted(&packet));
                Ok(())
            })?;
            if let Some(found) = found {
                slim(&mut self.input);
                return Ok(found);
            }
        }
    }

    fn next_id(&mut self) -> u16 {
        self.id = self.id.checked_add(1).unwrap_or(1);
        self.id
    }

    /// Publishes, and waits until the server has taken it at this QoS; at QoS 0, until it is written.
    pub(crate) async fn publish(&mut self, topic: &str, qos: u8, payload: &[u8]) -> io::Result<()> {
        let (id, mut out) = (self.next_id(), BytesMut::new());
        client::put_publish(&mut out, self.version, topic, (qos, id), payload);
        self.link.write(&mut out).await?;
        if qos == 1 {
            self.answer(client::PUBACK, id).await?;
        } else if qos == 2 {
            self.answer(client::PUBREC, id).await?;
            client::put_answer(&mut out, client::PUBREL, id);
            self.link.write(&mut out).await?;
            self.answer(client::PUBCOMP, id).await?;
        }
        Ok(())
    }

    async fn answer(&mut self, wanted: u8, wanted_id: u16) -> io::Result<()> {
        let answer = self.expect(|packet| match packet {
            Packet::Answer { kind, id, code } if (*kind, *id) == (wanted, wanted_id) => Some(*code),
            _ => None,
        });
        match answer.await? {
            code if code < 0x80 => Ok(()),
            code => Err(io::Error::other(format!("a message is refused with {code}"))),
        }
    }

    pub(crate) async fn subscribe(&mut self, filter: &str, qos: u8) -> io::Result<()> {
        let (id, mut out) = (self.next_id(), BytesMut::new());
        client::put_subscribe(&mut out, self.version, id, filter, qos);
        self.link.write(&mut out).await?;
        let answer = self.expect(|packet| match packet {
            Packet::Suback { code } => Some(*code),
            _ => None,
        });
        match answer.await? {
            code if code < 0x80 => Ok(()),
            code => Err(io::Error::other(format!("SUBACK refuses {filter} with {code}"))),
        }
    }

    /// A sign of life; its answer is read away by whatever reads next.
    pub(crate) async fn ping(&mut self) -> io::Result<()> {
        self.link.write(&mut BytesMut::from(&client::PINGREQ[..])).await
    }

    /// Waits until the server has read all that was written.
    pub(crate) async fn settle(&mut self) -> io::Result<()> {
        self.ping().await?;
        self.expect(|packet| matches!(packet, Packet::Pingresp).then_some(())).await
    }

    /// DISCONNECT, and the end of the connection.
    pub(crate) async fn leave(mut self) -> io::Result<()> {
        self.link.write(&mut BytesMut::from(&client::DISCONNECT[..])).await?;
        self.link.close().await;
        Ok(())
    }
}

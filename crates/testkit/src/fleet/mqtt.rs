//! The fleet's MQTT devices, of both versions and every quality of service, some with sessions that outlive a connection.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::{ANSWER, Shared};
use crate::RawClient;
use crate::packet::{self, Connect, Publish, Version, kind};
use crate::proxy::Seed;
use crate::raw::Packet;

/// Its life, over any number of connections.
pub(super) async fn device(shared: Arc<Shared>, n: usize, seed: Seed) {
    let mut device = Device::new(n, seed);
    while !shared.is_over() {
        let Some(mut client) = device.connect(&shared).await else {
            sleep(Duration::from_millis(20 + device.seed.below(80))).await;
            continue;
        };
        let stands = device.speak(&shared, &mut client).await.is_some();
        // One goodbye of three is none.
        if stands && (shared.is_over() || device.seed.below(3) > 0) {
            let _ = client.try_send(&packet::disconnect(device.version, 0, &[])).await;
        }
        drop(client);
        sleep(Duration::from_millis(device.seed.below(60))).await;
    }
}

struct Device {
    name: String,
    version: Version,
    qos: u8,
    persistent: bool,
    next: u64,
    /// Sent and not acknowledged, in their order.
    waiting: VecDeque<u64>,
    /// Packet ids that PUBREC has freed of their message and PUBCOMP not yet of themselves.
    unreleased: BTreeSet<u16>,
    seed: Seed,
}

/// The packet id of a message: the same whenever it is sent again.
fn id_of(number: u64) -> u16 {
    u16::try_from(number % 60_000).unwrap_or(0) + 1
}

impl Device {
    fn new(n: usize, seed: Seed) -> Self {
        let qos = u8::try_from(n % 3).unwrap_or(0);
        let version = if n.is_multiple_of(2) { Version::V5 } else { Version::V4 };
        let (waiting, unreleased) = (VecDeque::new(), BTreeSet::new());
        let name = format!("mqtt{qos}-{n}");
        Self { name, version, qos, persistent: n % 5 == 2, next: 1, waiting, unreleased, seed }
    }

    async fn connect(&mut self, shared: &Shared) -> Option<RawClient> {
        let doors = shared.doors(self.seed.draw());
        let stream = timeout(ANSWER, TcpStream::connect(doors.mqtt)).await.ok()?.ok()?;
        stream.set_nodelay(true).ok()?;
        let mut client = RawClient::over(stream, self.version);
        let connect = Connect::new(self.version, &self.name).keep_alive(60);
        let connect = if self.persistent { connect.persistent(600) } else { connect };
        client.try_send(&connect.encode()).await.ok()?;
        let connack = answer(&mut client).await?;
        if connack.kind() != kind::CONNACK || connack.connack_code() != 0 {
            return None;
        }
        if !connack.session_present() {
            self.unreleased.clear();
        }
        Some(client)
    }

    /// Sends what was not acknowledged, then goes on. `None` when the connection is no good any more.
    async fn speak(&mut self, shared: &Shared, client: &mut RawClient) -> Option<()> {
        for id in &self.unreleased {
            client.try_send(&packet::acknowledgement(kind::PUBREL, *id)).await.ok()?;
        }
        for number in self.waiting.clone() {
            client.try_send(&self.publish(number, self.persistent)).await.ok()?;
        }
        while !shared.is_over() {
            let number = self.next;
            let bytes = self.publish(number, false);
            if self.qos > 0 {
                // On the list first: once it is on its way it may be stored.
                self.waiting.push_back(number);
                self.next += 1;
            }
            client.try_send(&bytes).await.ok()?;
            if self.qos == 0 {
                self.next += 1;
            }
            while self.waiting.len() >= shared.plan.window.max(1) {
                self.hear(shared, client).await?;
            }
            if self.seed.below(100) < shared.plan.leaves {
                break;
            }
            shared.pause(&mut self.seed).await;
        }
        if self.qos == 0 {
            // What the gateway has not read when another connection takes over is lost, and rightly so: it is read before this is
            // answered.
            client.try_send(&packet::ping()).await.ok()?;
            while client.try_next().await?.kind() != kind::PINGRESP {}
        }
        // Every second time it leaves with something under way.
        while self.seed.below(2) == 0 && !self.waiting.is_empty() {
            self.hear(shared, client).await?;
        }
        Some(())
    }

    fn publish(&self, number: u64, dup: bool) -> Vec<u8> {
        let payload = format!("{}:{number}", self.name);
        Publish { dup, ..Publish::new(self.version, "t", payload, self.qos, id_of(number)) }.encode()
    }

    /// Takes the next packet. `None` when the connection is no good any more.
    async fn hear(&mut self, shared: &Shared, client: &mut RawClient) -> Option<()> {
        let packet = answer(client).await?;
        match packet.kind() {
            kind::PUBACK | kind::PUBREC => {
                let front = *self.waiting.front().expect("an acknowledgement of something");
                assert_eq!(packet.id(), id_of(front), "{}: acknowledged in order [MQTT-4.6.0-2]", self.name);
                if packet.ack_code() >= 0x80 {
                    return None;
                }
                self.waiting.pop_front();
                shared.acknowledged(&self.name, &format!("{}:{front}", self.name));
                if packet.kind() == kind::PUBREC {
                    // It is stored; what follows only ends the exchange.
                    self.unreleased.insert(packet.id());
                    client.try_send(&packet::acknowledgement(kind::PUBREL, packet.id())).await.ok()?;
                }
            }
            kind::PUBCOMP => {
                self.unreleased.remove(&packet.id());
            }
            kind::DISCONNECT => return None,
            other => panic!("{}: a packet of type {other}", self.name),
        }
        Some(())
    }
}

async fn answer(client: &mut RawClient) -> Option<Packet> {
    timeout(ANSWER, client.try_next()).await.ok()?
}

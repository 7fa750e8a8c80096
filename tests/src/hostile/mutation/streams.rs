//! Mutated MQTT packets, before and after a CONNECT that is accepted.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use landfall_testkit::packet::{self, Connect, Publish, Will, acknowledgement, kind, property};
use landfall_testkit::proxy::Seed;
use landfall_testkit::{Version, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

use super::changes::{mutated, pick};

/// Connections at once.
pub(super) const AT_ONCE: u64 = 4;
/// Mutated packets for one connection.
const EACH: u64 = 4;
/// How long a connection whose client has finished may stay open. A client that has said everything is waited for by nobody.
const CLOSES: Duration = Duration::from_secs(10);
/// Between two connections of one attacker: what is asked for is that others are not in its way, not that it has none of the processor.
const PACE: Duration = Duration::from_millis(4);

pub(super) struct Attackers {
    at: SocketAddr,
    seed: Seed,
    waves: u64,
}

impl Attackers {
    pub(super) fn new(at: SocketAddr, seed: Seed) -> Self {
        Self { at, seed, waves: 0 }
    }

    /// So many inputs, from several attackers.
    pub(super) fn wave(&mut self, inputs: u64) -> impl Future<Output = ()> + use<> {
        self.waves += 1;
        let seeds: Vec<Seed> = (0..AT_ONCE).map(|_| Seed(self.seed.draw())).collect();
        let (at, wave) = (self.at, self.waves);
        async move {
            let mut attackers = JoinSet::new();
            for (n, seed) in (0..).zip(seeds) {
                attackers.spawn(attack(at, seed, n, wave, inputs / AT_ONCE));
            }
            while let Some(attacker) = attackers.join_next().await {
                attacker.expect("an attacker finds what it looks for");
            }
        }
    }
}

async fn attack(at: SocketAddr, mut seed: Seed, n: u64, wave: u64, inputs: u64) {
    let mut sent = 0;
    while sent < inputs {
        let version = *pick(&mut seed, &[Version::V4, Version::V5]);
        // The same few come again: none of them may be locked out by what it did before.
        let client = format!("{}-{n}", pick(&mut seed, &["mutant", "narrow"]));
        let connect = connect(&mut seed, version, &client);
        let mut packets = Vec::new();
        let mut stream = open(at, n, wave).await;
        let begins = if seed.below(4) == 0 {
            sent += 1;
            packets.push(mutated(&mut seed, &connect, &packet::ping()));
            false
        } else {
            let _ = stream.write_all(&connect).await;
            let mut connack = [0; 4];
            let read = within(CLOSES, "a CONNACK", stream.read_exact(&mut connack)).await;
            assert!(
                read.is_ok() && connack[0] >> 4 == kind::CONNACK && connack[3] == 0,
                "{client} is let in: {connack:?}"
            );
            true
        };
        if begins {
            for _ in 0..EACH {
                let input = valid(&mut seed, version);
                let other = valid(&mut seed, version);
                packets.push(mutated(&mut seed, &input, &other));
            }
            sent += EACH;
        }
        for packet in &packets {
            // The gateway may have closed by now.
            let _ = stream.write_all(packet).await;
        }
        let _ = stream.write_all(&packet::ping()).await;
        let _ = stream.shutdown().await;
        let mut rest = Vec::new();
        let closed = tokio::time::timeout(CLOSES, stream.read_to_end(&mut rest)).await;
        assert!(closed.is_ok(), "left open after {packets:02x?}");
        tokio::time::sleep(PACE).await;
    }
}

/// From an address of its own, so that ports do not run out.
async fn open(at: SocketAddr, n: u64, wave: u64) -> TcpStream {
    let host = Ipv4Addr::from([127, 3, u8::try_from(wave % 250).unwrap(), u8::try_from(n + 1).unwrap()]);
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind((host, 0).into()).unwrap();
    within(CLOSES, "a connection", socket.connect(at)).await.unwrap()
}

/// A CONNECT that is accepted.
fn connect(seed: &mut Seed, version: Version, client: &str) -> Vec<u8> {
    let mut connect = Connect::new(version, client).login(client, "green");
    if seed.below(2) == 0 {
        connect = connect.persistent(60);
    }
    if seed.below(3) == 0 && client.starts_with("mutant") {
        let will = Will {
            topic: "gone".into(),
            payload: b"x".to_vec(),
            qos: 1,
            retain: false,
            properties: Vec::new(),
        };
        connect = connect.will(will);
    }
    connect.encode()
}

/// A packet that a client may send.
fn valid(seed: &mut Seed, version: Version) -> Vec<u8> {
    let id = u16::try_from(seed.below(6) + 1).unwrap();
    let qos = u8::try_from(seed.below(3)).unwrap();
    match seed.below(9) {
        0 => packet::subscribe(version, id, &[("command///req/#", 1), ("c/+", 2)]),
        1 => packet::unsubscribe(version, id, &["command///req/#"]),
        2 => packet::ping(),
        3 => packet::disconnect(version, 0, &[]),
        4 => acknowledgement(*pick(seed, &[kind::PUBACK, kind::PUBREC, kind::PUBREL, kind::PUBCOMP]), id),
        5 if version == Version::V5 => Publish::new(version, "a/b", "21.5", qos, id)
            .property(&property::content_type("text/plain"))
            .property(&property::topic_alias(3))
            .property(&property::user("k", "v"))
            .encode(),
        6 => Publish::new(version, "$SYS/x", "f", qos, id).encode(),
        _ => Publish::new(version, "a/b", "{\"celsius\":21.5}", qos, id).encode(),
    }
}

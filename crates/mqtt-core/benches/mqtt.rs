//! What an MQTT packet costs, from its bytes to the action and back.
//!
//! Owns: the packets that are measured. Does not own: sockets; the codec alone, which the machine keeps to itself.

#![allow(clippy::panic, clippy::unwrap_used, reason = "a bench that measures something else is to stop")]

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use criterion::{BenchmarkId, Criterion, Throughput};
use landfall_mqtt_core::{Accept, Action, Connection, Limits, Message, QoS, Version};

const VERSIONS: [Version; 2] = [Version::V311, Version::V5];

/// Messages that one read brings.
const BURST: u16 = 20;

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(30)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    connect(&mut criterion);
    publish(&mut criterion);
    deliver(&mut criterion);
    criterion.final_summary();
}

/// A connection with its two buffers.
struct Peer {
    connection: Connection,
    input: BytesMut,
    out: BytesMut,
}

impl Peer {
    fn open(version: Version, limits: &Arc<Limits>) -> Self {
        let connection = Connection::new(Arc::clone(limits));
        let mut peer = Self { connection, input: BytesMut::new(), out: BytesMut::new() };
        peer.input.extend_from_slice(&connect_packet(version));
        let Some(Action::Connect(_)) = peer.connection.poll(&mut peer.input, &mut peer.out) else {
            panic!("no CONNECT")
        };
        peer.connection.accept(&Accept::default(), None, &mut peer.out);
        peer
    }

    /// Takes what came, stores each message, and forgets what would be written. Returns the messages.
    fn take(&mut self, bytes: &[u8]) -> u16 {
        self.input.extend_from_slice(bytes);
        let mut messages = 0;
        while let Some(action) = self.connection.poll(&mut self.input, &mut self.out) {
            if let Action::Publish(message) = action {
                self.connection.stored(message.token, &mut self.out);
                messages += 1;
            }
        }
        self.out.clear();
        messages
    }
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).unwrap();
    let (low, high) = ((length & 0x7f) as u8, (length >> 7) as u8);
    let head = if high > 0 { vec![first, low | 0x80, high] } else { vec![first, low] };
    [&head[..], body].concat()
}

fn text(text: &str) -> Vec<u8> {
    [&u16::try_from(text.len()).unwrap().to_be_bytes()[..], text.as_bytes()].concat()
}

/// Properties of 5.0: none.
fn properties(version: Version) -> &'static [u8] {
    if version == Version::V5 { &[0] } else { &[] }
}

fn connect_packet(version: Version) -> Vec<u8> {
    let level = if version == Version::V5 { 5 } else { 4 };
    packet(0x10, &[&text("MQTT")[..], &[level, 2, 0, 60], properties(version), &text("pump-17")].concat())
}

fn publish_packet(version: Version, qos: u8, id: u16, size: usize) -> Vec<u8> {
    let id = if qos > 0 { id.to_be_bytes().to_vec() } else { Vec::new() };
    let payload = vec![b'x'; size];
    packet(0x30 | qos << 1, &[&text("sensors/pump-17")[..], &id, properties(version), &payload].concat())
}

fn connect(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("mqtt");
    group.throughput(Throughput::Elements(1));
    let limits = Arc::new(Limits::default());
    for version in VERSIONS {
        group.bench_function(BenchmarkId::new("connect and accept", version.as_str()), |bencher| {
            bencher.iter(|| Peer::open(version, &limits));
        });
    }
    group.finish();
}

fn publish(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("mqtt");
    group.throughput(Throughput::Elements(BURST.into()));
    let limits = Arc::new(Limits::default());
    for version in VERSIONS {
        for (qos, size) in [(0, 100), (1, 100), (1, 4_000), (2, 100)] {
            let packets = |first: &dyn Fn(u16) -> Vec<u8>| (1..=BURST).flat_map(first).collect::<Vec<u8>>();
            let publishes = packets(&|id| publish_packet(version, qos, id, size));
            let releases = packets(&|id| [&[0x62, 2][..], &id.to_be_bytes()].concat());
            let mut peer = Peer::open(version, &limits);
            let name = format!("publish QoS {qos} and its answers, {size} B");
            group.bench_function(BenchmarkId::new(name, version.as_str()), |bencher| {
                bencher.iter(|| {
                    assert_eq!(peer.take(&publishes), BURST);
                    if qos == 2 {
                        peer.take(&releases);
                    }
                });
            });
        }
    }
    group.finish();
}

fn deliver(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("mqtt");
    group.throughput(Throughput::Elements(1));
    let limits = Arc::new(Limits::default());
    for version in VERSIONS {
        let mut peer = Peer::open(version, &limits);
        group.bench_function(BenchmarkId::new("deliver QoS 0, 100 B", version.as_str()), |bencher| {
            bencher.iter(|| {
                let message = Message::new("command/pump-17/req/reboot", vec![b'x'; 100], QoS::AtMostOnce);
                let delivery = peer.connection.deliver(message, &mut peer.out);
                peer.out.clear();
                delivery
            });
        });
    }
    group.finish();
}

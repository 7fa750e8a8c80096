//! What a CoAP message costs: its bytes, and a whole exchange of the endpoint.
//!
//! Owns: the messages that are measured. Does not own: sockets.

#![allow(clippy::panic, clippy::unwrap_used, reason = "a bench that measures something else is to stop")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput};
use landfall_coap_core::{
    Code, Endpoint, Kind, Limits, Message, Output, Response, Tick, Token, codec, number,
};

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(30)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    bytes(&mut criterion);
    exchange(&mut criterion);
    criterion.final_summary();
}

/// A POST of a meter, as devices send them.
fn post(kind: Kind, id: u16, size: usize) -> Message {
    let mut message = Message::new(kind, Code::POST, id, Token::new(&id.to_be_bytes()).unwrap());
    message.options.push(number::URI_PATH, "sensors");
    message.options.push(number::URI_PATH, "temperature");
    message.options.push_uint(number::CONTENT_FORMAT, 50);
    message.payload = vec![b'x'; size].into();
    message
}

fn bytes(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("coap");
    group.throughput(Throughput::Elements(1));
    for size in [0, 100, 1_000] {
        let message = post(Kind::Con, 7, size);
        let datagram = codec::encode(&message);
        group.bench_function(BenchmarkId::new("decode", format!("{size} B")), |bencher| {
            bencher.iter(|| codec::decode(black_box(&datagram)).unwrap());
        });
        group.bench_function(BenchmarkId::new("encode", format!("{size} B")), |bencher| {
            bencher.iter(|| codec::encode(black_box(&message)));
        });
    }
    group.finish();
}

/// An endpoint in the steady state: as many messages are forgotten as come.
struct Meter {
    endpoint: Endpoint<u32>,
    kind: Kind,
    /// The request of every message id.
    datagrams: Vec<Vec<u8>>,
    next: usize,
    now: Tick,
}

impl Meter {
    const PEERS: u32 = 100;
    /// No id comes twice within the lifetime of an exchange, which is 247 s.
    const STEP_MS: Tick = 5;

    fn new(kind: Kind) -> Self {
        let endpoint = Endpoint::new(Arc::new(Limits::default()), &[7; 32]);
        let encode = |id| codec::encode(&post(kind, id, 100)).to_vec();
        Self { endpoint, kind, datagrams: (0..=u16::MAX).map(encode).collect(), next: 0, now: 0 }
    }

    fn exchange(&mut self) {
        self.now += Self::STEP_MS;
        let peer = self.next as u32 % Self::PEERS;
        let datagram = self.datagrams.get(self.next % self.datagrams.len()).unwrap();
        self.next += 1;
        self.endpoint.receive(self.now, &peer, datagram);
        while let Some(output) = self.endpoint.poll() {
            match output {
                Output::Request { exchange, .. } => {
                    self.endpoint.prove(&peer);
                    self.endpoint.respond(self.now, exchange, Response::new(Code::CHANGED));
                }
                Output::Rejected { .. } => panic!("{:?} {output:?}", self.kind),
                other => drop(black_box(other)),
            }
        }
        if self.endpoint.next_timeout().is_some_and(|due| due <= self.now) {
            self.endpoint.handle_timeout(self.now);
        }
    }
}

fn exchange(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("coap");
    group.throughput(Throughput::Elements(1));
    for (name, kind) in [("CON", Kind::Con), ("NON", Kind::Non)] {
        let mut meter = Meter::new(kind);
        group.bench_function(BenchmarkId::new("POST and its answer, 100 B", name), |bencher| {
            bencher.iter(|| meter.exchange());
        });
    }
    group.finish();
}

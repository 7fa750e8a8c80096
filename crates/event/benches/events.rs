//! What an event costs: its body in each format, and its subject.
//!
//! Owns: the events that are measured. Does not own: how they travel.

#![allow(clippy::unwrap_used, reason = "a bench that cannot be set up is to stop")]

use std::hint::black_box;
use std::time::Duration;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput};
use landfall_event::{
    Connected, Counters, Disconnected, Ended, Epoch, Event, EventId, Format, IdentifiedBy, Identity,
    Occasion, Origin, Reason, SessionId, SessionInfo, SessionRef, Stream, Subjects, Transport, UnixMs,
    Upstream, encode, encode_raw_upstream, subject, wire,
};

/// Some time in October 2025.
const BEGAN: UnixMs = 1_760_000_000_000;

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(30)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    presence(&mut criterion);
    messages(&mut criterion);
    subjects(&mut criterion);
    criterion.final_summary();
}

fn origin() -> Origin {
    Origin {
        instance: "landfall".parse().unwrap(),
        replica: "a1".parse().unwrap(),
        incarnation: SessionId::new(BEGAN - 60_000, [0xa1; 10]),
    }
}

fn session(number: usize) -> SessionRef {
    let id = SessionId::new(BEGAN, [number as u8; 10]);
    SessionRef::from(SessionInfo {
        tenant: "default".parse().unwrap(),
        device: format!("pump-{number:06}").parse().unwrap(),
        app_version: "demo-v1".into(),
        identity: Identity::new(id, Epoch(BEGAN)),
        transport: Transport::Mqtt,
    })
}

fn connected() -> Event {
    Event::Connected(Connected {
        session: session(17),
        protocol: "MQTT/5.0",
        remote_id: "pump-000017".into(),
        remote_address: "192.0.2.17:51234".parse().unwrap(),
        identified_by: IdentifiedBy::Password,
        keep_alive_ms: Some(90_000),
        inferred: false,
        clean_start: Some(true),
    })
}

fn disconnected(sessions: usize) -> Event {
    let at = BEGAN + 86_400_000;
    let end = |number| Ended {
        session: session(number),
        seq: 2,
        reason: Reason::ConnectionLost,
        initiator: Reason::ConnectionLost.initiator(),
        inferred: false,
        connected_at: BEGAN,
        last_seen_at: Some(at - 250),
        at,
        counters: Some(Counters { messages_in: 3, messages_out: 1, bytes_in: 96, bytes_out: 17 }),
        evidence: None,
        detail: None,
    };
    Event::Disconnected(Disconnected { ended: (0..sessions).map(end).collect() })
}

fn upstream(payload: Vec<u8>) -> Upstream {
    Upstream {
        session: session(17),
        seq: 7,
        topic: "sensors/pump-17/temperature".into(),
        qos: Some(1),
        retain: false,
        will: false,
        content_type: None,
        properties: Vec::new(),
        publish: None,
        payload: Bytes::from(payload),
    }
}

/// A payload of about so many bytes: JSON, text, or bytes that are neither.
fn payloads() -> [(&'static str, Vec<u8>); 4] {
    let json = |values: usize| {
        let values: Vec<String> = (0..values).map(|n| format!("{}.5", n % 90 + 10)).collect();
        format!(r#"{{"celsius":[{}]}}"#, values.join(",")).into_bytes()
    };
    [
        ("JSON, 100 B", json(17)),
        ("JSON, 4 kB", json(800)),
        ("text, 100 B", vec![b'x'; 100]),
        ("binary, 100 B", vec![0xff; 100]),
    ]
}

fn presence(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("event");
    let origin = origin();
    let occasion = Occasion {
        origin: &origin,
        id: EventId::Session(session(17).session(), Stream::Connectivity, 1),
        at: BEGAN,
    };
    for &format in Format::ALL {
        let most = format.max_sessions();
        let whole = disconnected(most);
        let events = [
            ("connected", 1, connected()),
            ("disconnected", 1, disconnected(1)),
            ("disconnected", most, whole),
        ];
        for (name, sessions, event) in events {
            group.throughput(Throughput::Elements(sessions as u64));
            let name = if sessions == 1 { name.to_owned() } else { format!("{name} of {sessions} sessions") };
            group.bench_function(BenchmarkId::new(format.as_str(), name), |bencher| {
                bencher.iter(|| encode(format, &occasion, black_box(&event)));
            });
        }
    }
    group.finish();
}

fn messages(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("event");
    group.throughput(Throughput::Elements(1));
    let origin = origin();
    let id = EventId::Session(session(17).session(), Stream::Messages, 7);
    let occasion = Occasion { origin: &origin, id, at: BEGAN };
    for (name, payload) in payloads() {
        let message = upstream(payload);
        let event = Event::Upstream(message.clone());
        group.bench_function(BenchmarkId::new("json", format!("upstream, {name}")), |bencher| {
            bencher.iter(|| encode(Format::Json, &occasion, black_box(&event)));
        });
        group.bench_function(BenchmarkId::new("raw", format!("upstream, {name}")), |bencher| {
            bencher.iter(|| encode_raw_upstream(&occasion, black_box(&message)));
        });
        let body = encode(Format::Json, &occasion, &event).body;
        group.bench_function(BenchmarkId::new("read json", format!("upstream, {name}")), |bencher| {
            bencher.iter(|| wire::decode(black_box(&body)).unwrap());
        });
    }
    group.finish();
}

fn subjects(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("subject");
    group.throughput(Throughput::Elements(1));
    let instance = "landfall".parse().unwrap();
    let subjects = Subjects::new(&instance);
    let message = Event::Upstream(upstream(Vec::new()));
    for (name, event) in [("connected", connected()), ("upstream", message)] {
        group.bench_function(BenchmarkId::new("of an event", name), |bencher| {
            bencher.iter(|| subjects.of(black_box(&event)));
        });
    }
    let tenant = "default".parse().unwrap();
    for (name, device) in [("plain", "pump-000017"), ("escaped", "Pumpe 17.süd")] {
        let device = device.parse().unwrap();
        group.bench_function(BenchmarkId::new("of a command", name), |bencher| {
            bencher.iter(|| subject::command_subject(&instance, &tenant, black_box(&device)));
        });
        let written = subject::command_subject(&instance, &tenant, &device);
        group.bench_function(BenchmarkId::new("read a command's", name), |bencher| {
            bencher.iter(|| subject::parse_command(&instance, black_box(&written)).unwrap());
        });
    }
    group.finish();
}

//! Fixed events that the golden files and the page of the wire are made of.

use bytes::Bytes;
use landfall_event::{
    Awake, Connected, Counters, Disconnected, Dormant, Downstream, Dropped, Ended, Epoch, Event, EventId,
    Evidence, Gap, IdentifiedBy, Identity, Moved, Occasion, Origin, Outcome, PublishProperties, Reason,
    Refused, RefusedCause, RefusedDetail, Service, ServiceKind, SessionId, SessionInfo, SessionRef, Stream,
    Transport, UnixMs, Upstream,
};

/// Some time in October 2025.
pub(crate) const T0: UnixMs = 1_760_000_000_000;

/// One event with everything that is needed to encode it.
#[derive(Debug)]
pub(crate) struct Sample {
    /// The golden file's name, and the example's in the documentation.
    pub(crate) name: &'static str,
    pub(crate) id: EventId,
    pub(crate) at: UnixMs,
    pub(crate) event: Event,
}

impl Sample {
    pub(crate) fn occasion<'a>(&self, origin: &'a Origin) -> Occasion<'a> {
        Occasion { origin, id: self.id, at: self.at }
    }
}

pub(crate) fn origin() -> Origin {
    Origin {
        instance: "landfall".parse().unwrap(),
        replica: "a1".parse().unwrap(),
        incarnation: SessionId::new(T0 - 60_000, [0xa1; 10]),
    }
}

pub(crate) fn session(device: &str, number: u8, transport: Transport) -> SessionRef {
    let began = T0 + u64::from(number);
    SessionRef::from(SessionInfo {
        tenant: "default".parse().unwrap(),
        device: device.parse().unwrap(),
        app_version: if number == 0 { "demo-v1".into() } else { "".into() },
        identity: Identity::new(SessionId::new(began, [number + 1; 10]), Epoch(began * 1000 + 417)),
        transport,
    })
}

pub(crate) fn ended(session: &SessionRef, reason: Reason, at: UnixMs) -> Ended {
    Ended {
        session: session.clone(),
        seq: 2,
        reason,
        initiator: reason.initiator(),
        inferred: reason == Reason::GatewayLost,
        connected_at: session.epoch().0,
        last_seen_at: Some(at - 250),
        at,
        counters: Some(Counters { messages_in: 3, messages_out: 1, bytes_in: 96, bytes_out: 17 }),
        evidence: None,
        detail: None,
    }
}

pub(crate) fn upstream(session: &SessionRef, seq: u64, topic: &str, payload: &'static [u8]) -> Upstream {
    Upstream {
        session: session.clone(),
        seq,
        topic: topic.into(),
        qos: Some(1),
        retain: false,
        will: false,
        content_type: None,
        properties: Vec::new(),
        publish: None,
        payload: Bytes::from_static(payload),
    }
}

fn downstream(session: Option<(SessionRef, u64)>, outcome: Outcome) -> Downstream {
    Downstream {
        tenant: "default".parse().unwrap(),
        device: "pump-17".parse().unwrap(),
        session,
        command: "7f3a".parse().unwrap(),
        name: "reboot".parse().unwrap(),
        outcome,
        latency_ms: 48,
        attempts: 1,
        response: None,
        status: None,
    }
}

fn service(name: &'static str, kind: ServiceKind, n: u64, sessions: u64) -> Sample {
    let started_at = T0 - 60_000;
    let event = Event::Service(Service { kind, version: "0.1.0", sessions, started_at });
    Sample { name, id: EventId::Gateway(origin().incarnation, n), at: started_at + (n - 1) * 10_000, event }
}

fn refusals() -> [Sample; 3] {
    let guessed = Refused {
        cause: RefusedCause::BadCredentials,
        transport: Transport::Mqtts,
        remote_address: "198.51.100.7:40112".parse().unwrap(),
        device: None,
        detail: None,
        claimed: Some("pump-17".into()),
        other_claims: 3,
        topic: None,
        other_topics: 0,
        count: 42,
        first_at: T0 + 2_000,
        last_at: T0 + 11_800,
    };
    let proven = Refused {
        cause: RefusedCause::NotAuthorized,
        transport: Transport::Mqtt,
        remote_address: "[2001:db8::17]:51000".parse().unwrap(),
        device: Some(("default".parse().unwrap(), "pump-17".parse().unwrap())),
        claimed: None,
        other_claims: 0,
        topic: Some("up/pump-18/flow".into()),
        count: 1,
        first_at: T0 + 13_000,
        last_at: T0 + 13_000,
        ..guessed.clone()
    };
    let foreign = Refused {
        cause: RefusedCause::TlsFailed,
        remote_address: "198.51.100.8:40113".parse().unwrap(),
        detail: Some(RefusedDetail::UnknownAuthority.as_str()),
        claimed: None,
        other_claims: 0,
        count: 1,
        first_at: T0 + 14_000,
        last_at: T0 + 14_000,
        ..guessed.clone()
    };
    let all =
        [("refused", 9, 12, guessed), ("refused-proven", 10, 13, proven), ("refused-tls", 11, 14, foreign)];
    all.map(|(name, n, second, event)| Sample {
        name,
        id: EventId::Gateway(origin().incarnation, n),
        at: T0 + second * 1_000,
        event: Event::Refused(event),
    })
}

/// Every event and every way of writing it, in the order of the documentation.
pub(crate) fn samples() -> Vec<Sample> {
    let mut all = presence();
    all.extend(stateless());
    all.extend(messages());
    all.extend(refusals());
    all.push(service("join", ServiceKind::Join, 1, 0));
    all.push(service("keep-alive", ServiceKind::KeepAlive, 2, 1204));
    all.push(service("leave", ServiceKind::Leave, 3, 0));
    all.push(Sample {
        name: "events-dropped",
        id: EventId::Gateway(origin().incarnation, 11),
        at: T0 + 90_000,
        event: Event::Dropped(Dropped {
            sessions: 12,
            messages: 7,
            gaps: vec![Gap { session: SessionId::new(T0, [1; 10]), from: 3, to: 9 }],
        }),
    });
    all
}

fn presence() -> Vec<Sample> {
    let pump = session("pump-17", 0, Transport::Mqtt);
    let valve = session("Ventil 3/süd", 1, Transport::MqttWss);
    let connected = Event::Connected(Connected {
        session: pump.clone(),
        protocol: "MQTT/5.0",
        remote_id: "pump-17-client".into(),
        remote_address: "192.0.2.17:51234".parse().unwrap(),
        identified_by: IdentifiedBy::Password,
        keep_alive_ms: Some(90_000),
        inferred: false,
        clean_start: Some(true),
    });
    let one = Disconnected { ended: vec![ended(&pump, Reason::ConnectionLost, T0 + 86_400_000)] };
    let several = Disconnected {
        ended: vec![
            ended(&pump, Reason::GatewayLost, T0 + 30_000),
            Ended { last_seen_at: None, counters: None, ..ended(&valve, Reason::GatewayLost, T0 + 30_000) },
        ],
    };
    let id = |seq| EventId::Session(pump.session(), Stream::Connectivity, seq);
    let broken = Ended {
        detail: Some("PUBLISH: an invalid topic name".into()),
        ..ended(&pump, Reason::ProtocolError, T0 + 5_000)
    };
    let broken = Disconnected { ended: vec![broken] };
    vec![
        Sample { name: "connected", id: id(1), at: T0, event: connected },
        Sample { name: "disconnected", id: id(2), at: T0 + 86_400_000, event: Event::Disconnected(one) },
        Sample {
            name: "disconnected-several",
            id: EventId::Gateway(origin().incarnation, 8),
            at: T0 + 30_000,
            event: Event::Disconnected(several),
        },
        Sample { name: "disconnected-detail", id: id(2), at: T0 + 5_000, event: Event::Disconnected(broken) },
    ]
}

/// The story of one CoAP device that never says hello or goodbye, in the order of its `seq`; and a UDP beacon.
fn stateless() -> Vec<Sample> {
    let meter = session("meter-4", 2, Transport::Coap);
    let sample = |name, seq, at, event| {
        let id = EventId::Session(meter.session(), Stream::Connectivity, seq);
        Sample { name, id, at, event }
    };
    let connected = Event::Connected(Connected {
        session: meter.clone(),
        protocol: "CoAP",
        remote_id: "meter-4".into(),
        remote_address: "198.51.100.23:40211".parse().unwrap(),
        identified_by: IdentifiedBy::Password,
        keep_alive_ms: Some(300_000),
        inferred: true,
        clean_start: None,
    });
    let moved = Event::Moved(Moved {
        session: meter.clone(),
        seq: 2,
        from: "198.51.100.23:40211".parse().unwrap(),
        to: "198.51.100.23:61007".parse().unwrap(),
    });
    let dormant = Event::Dormant(Dormant {
        session: meter.clone(),
        seq: 3,
        sleep_ms: 3_600_000,
        wake_by: T0 + 90_000 + 3_600_000 + 300_000,
    });
    let awake = Event::Awake(Awake { session: meter.clone(), seq: 4, dormant_ms: 3_599_210 });
    let at = T0 + 4_000_000;
    let silent = Ended {
        seq: 5,
        inferred: true,
        last_seen_at: Some(at - 51_900),
        counters: Some(Counters { messages_in: 93, messages_out: 0, bytes_in: 2790, bytes_out: 0 }),
        evidence: Some(Evidence { interval_ms: 30_120, silent_ms: 51_900, phi: 8.004_2 }),
        ..ended(&meter, Reason::IdleTimeout, at)
    };
    vec![
        sample("connected-inferred", 1, T0 + 2, connected),
        sample("moved", 2, T0 + 60_000, moved),
        sample("dormant", 3, T0 + 90_000, dormant),
        sample("awake", 4, T0 + 3_689_210, awake),
        sample("disconnected-evidence", 5, at, Event::Disconnected(Disconnected { ended: vec![silent] })),
    ]
}

fn messages() -> Vec<Sample> {
    let pump = session("pump-17", 0, Transport::Mqtt);
    let id = |seq| EventId::Session(pump.session(), Stream::Messages, seq);
    let json = Upstream {
        content_type: Some("application/json".into()),
        properties: vec![("site".into(), "Köln".into()), ("site".into(), "hall \"2\"".into())],
        ..upstream(&pump, 1, "sensors/pump-17/temperature", br#"{"celsius": 21.50}"#)
    };
    let will =
        Upstream { qos: Some(0), retain: true, will: true, ..upstream(&pump, 3, "status", b"offline") };
    let answered = Downstream {
        response: Some(Bytes::from_static(br#"{"ok":true}"#)),
        status: Some("200".into()),
        ..downstream(Some((pump.clone(), 4)), Outcome::Answered)
    };
    let absent = Downstream { latency_ms: 0, attempts: 0, ..downstream(None, Outcome::NotConnected) };
    let beacon = session("beacon-9", 3, Transport::Udp);
    let udp = Upstream { qos: None, ..upstream(&beacon, 1, "", b"21.5") };
    let beacon_id = EventId::Session(beacon.session(), Stream::Messages, 1);
    let asks = PublishProperties {
        response_topic: Some("pump-17/config/reply".into()),
        correlation_data: Some(Bytes::from_static(&[0, 0xff, 7])),
        expiry_ms: Some(30_000),
        is_utf8: true,
    };
    let asks = Upstream { publish: asks.said(), ..upstream(&pump, 5, "pump-17/config/get", b"interval") };
    let raw = upstream(&pump, 2, "camera", &[0xff, 0xd8, 0xff, 0xe0, 0x00]);
    vec![
        Sample { name: "upstream", id: id(1), at: T0 + 1_000, event: Event::Upstream(json) },
        Sample { name: "upstream-base64", id: id(2), at: T0 + 2_000, event: Event::Upstream(raw) },
        Sample { name: "upstream-will", id: id(3), at: T0 + 3_000, event: Event::Upstream(will) },
        Sample { name: "upstream-asks", id: id(5), at: T0 + 3_200, event: Event::Upstream(asks) },
        Sample { name: "upstream-udp", id: beacon_id, at: T0 + 3_500, event: Event::Upstream(udp) },
        Sample { name: "downstream", id: id(4), at: T0 + 4_000, event: Event::Downstream(answered) },
        Sample {
            name: "downstream-not-connected",
            id: EventId::Gateway(origin().incarnation, 7),
            at: T0 + 5_000,
            event: Event::Downstream(absent),
        },
    ]
}
